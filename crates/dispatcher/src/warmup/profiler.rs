//! Which batches to measure on idle capacity, and what they took.
//!
//! Reads execution times, hands back the next number of rows to run and the finished curve. Pure.
//! Knows nothing of replicas, nor of what is in the batches.

use std::time::Duration;

/// Runs of each size; the median counts.
const RUNS: usize = 3;
/// A batch that takes longer than this is not worth holding a replica for.
const LONGEST: Duration = Duration::from_secs(2);
/// Shortest silence before a measurement.
const QUIET_MIN: Duration = Duration::from_millis(20);
/// Silence in terms of what the measurement will take: a request that comes within that time should not wait for it.
const QUIET_FACTOR: u32 = 4;

/// Measures 1, 2, 4 … rows.
#[derive(Debug)]
pub(crate) struct Profiler {
    sizes: Vec<u32>,
    runs: Vec<Duration>,
    curve: Vec<(u32, Duration)>,
    /// No longer batch is measured.
    longest: Duration,
}

impl Profiler {
    /// Batches that take longer than the objective will never run: they are not measured either, for the time that
    /// they take and the memory that they need.
    pub(crate) fn new(batched: bool, batch_rows_max: u32, objective: Option<Duration>) -> Profiler {
        let most = if batched { batch_rows_max.max(1) } else { 1 };
        let mut sizes: Vec<u32> = std::iter::successors(Some(1u32), |rows| rows.checked_mul(2))
            .take_while(|rows| *rows < most)
            .collect();
        sizes.push(most);
        sizes.reverse();
        let longest = objective.map_or(LONGEST, |objective| objective.min(LONGEST));
        Profiler { sizes, runs: Vec::new(), curve: Vec::new(), longest }
    }

    /// The rows to run next and how long nothing must have happened before; `None`: all is measured.
    pub(crate) fn next(&self) -> Option<(u32, Duration)> {
        let rows = *self.sizes.last()?;
        let expected = self.runs.last().copied().or_else(|| {
            let (known_rows, known) = self.curve.last()?;
            Some(known.saturating_mul(rows.div_ceil(*known_rows)))
        });
        let expected = expected.unwrap_or_default();
        (expected <= self.longest).then(|| (rows, QUIET_MIN.max(expected.saturating_mul(QUIET_FACTOR))))
    }

    /// One run of what [`Profiler::next`] said. Returns the curve when that was the last run of a size.
    pub(crate) fn ran(&mut self, execution: Duration) -> Option<&[(u32, Duration)]> {
        self.runs.push(execution);
        if self.runs.len() < RUNS {
            return None;
        }
        self.runs.sort_unstable();
        let rows = self.sizes.pop()?;
        self.curve.push((rows, self.runs[RUNS / 2]));
        self.runs.clear();
        Some(&self.curve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(mut profiler: Profiler, time: impl Fn(u32) -> Duration) -> Vec<(u32, Duration)> {
        while let Some((rows, _)) = profiler.next() {
            profiler.ran(time(rows));
        }
        profiler.curve
    }

    #[test]
    fn sizes_double_up_to_the_limit_which_is_measured_too() {
        let sizes = |profiler| {
            measure(profiler, |_| Duration::ZERO).iter().map(|(rows, _)| *rows).collect::<Vec<_>>()
        };
        assert_eq!(sizes(Profiler::new(true, 20, None)), [1, 2, 4, 8, 16, 20]);
        assert_eq!(sizes(Profiler::new(true, 1, None)), [1]);
        assert_eq!(sizes(Profiler::new(false, 32, None)), [1]);
    }

    #[test]
    fn the_median_counts_and_slow_batches_are_left_out() {
        let mut profiler = Profiler::new(true, 2, None);
        for millis in [90, 5, 7] {
            profiler.ran(Duration::from_millis(millis));
        }
        assert_eq!(profiler.curve, [(1, Duration::from_millis(7))]);
        let curve = measure(Profiler::new(true, 32, None), |rows| Duration::from_millis(300) * rows);
        assert_eq!(curve.last().unwrap().0, 4);
    }

    #[test]
    fn what_the_objective_never_lets_run_is_not_measured() {
        // 16 rows are expected to take twice what 8 take, which is more than the objective allows.
        let profiler = Profiler::new(true, 128, Some(Duration::from_millis(25)));
        let curve = measure(profiler, |rows| Duration::from_millis(6) + Duration::from_millis(1) * rows);
        assert_eq!(curve.last().unwrap().0, 8);
    }

    #[test]
    fn the_longer_a_batch_takes_the_longer_the_silence_before_it() {
        let mut profiler = Profiler::new(true, 8, None);
        assert_eq!(profiler.next(), Some((1, QUIET_MIN)));
        for _ in 0..3 {
            profiler.ran(Duration::from_millis(100));
        }
        assert_eq!(profiler.next(), Some((2, Duration::from_millis(800))));
    }
}

//! The plan: the batch size and rate at which a replica works off a backlog within the objective.
//!
//! Reads the latency curve, hands on size and rate. Knows nothing of the queue.

use std::time::Duration;

use inferd_types::Time;

use super::Latency;
use crate::message::Objective;

/// A request that arrives just after a batch was taken waits for that batch, of mean duration, and runs in the
/// next; a quarter of a batch is room for handovers, without which every head of the queue is nearly late and
/// forces a small batch. Counting the wait at the high quantile too would, with a wide spread, plan batches so
/// small that nearly everything is refused.
const BATCHES_BEFORE: f64 = 1.25;

/// Quantiles to judge runs at instead of the objective's. With a wide spread, the objective's leaves time only for
/// batches so small that most requests are refused.
const JUDGED: [f64; 3] = [0.95, 0.9, 0.75];

/// The plan that admission uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Rows per batch while there is a backlog.
    pub(crate) rows: u32,
    /// Mean time that one such batch occupies a replica, including the pause before it, in nanoseconds; `None`
    /// while nothing is known.
    pub(crate) batch_nanos: Option<f64>,
    /// Whether the objective is shorter than the execution time of one row.
    pub(crate) unreachable: bool,
    /// The quantile at which runs are judged to be in time.
    pub(crate) judged: f64,
}

impl Plan {
    /// The plan for batches of at most `rows_max` and requests that are due `horizon` after arrival.
    ///
    /// Of the sizes that fit the horizon after [`BATCHES_BEFORE`] batches, it takes the one with the highest rate
    /// in time, counting a late response as minus one. The objective's quantile decides what fits, or a lower one
    /// if that gives a higher rate.
    pub(crate) fn new(
        latency: &Latency,
        rows_max: u32,
        objective: Option<Objective>,
        horizon: Duration,
        pause: f64,
    ) -> Self {
        let objective = objective.map_or(u64::MAX, |objective| saturate(objective.latency.as_nanos()));
        let horizon = saturate(horizon.as_nanos());
        let own = latency.quantile();
        let unreachable = latency.known() && latency.longest(1, own) > objective as f64;
        let pause = pause.max(0.0);
        let batch_nanos = latency.mean(rows_max).map(|mean| mean + pause);
        let mut pace = Plan { rows: rows_max, batch_nanos, unreachable, judged: own };
        let mut best = 0.0;
        for judged in JUDGED.into_iter().filter(|judged| *judged < own && !unreachable).chain([own]) {
            let batches = BATCHES_BEFORE + latency.ratio(judged);
            // A late response cancels one in time.
            let worth = (2.0 * judged - 1.0).max(0.1);
            for rows in 1..=rows_max {
                let fits = |mean: &f64| {
                    unreachable || (rows == 1 && judged == own) || mean * batches + pause <= horizon as f64
                };
                if let Some(mean) = latency.mean(rows).filter(fits) {
                    let rate = worth * f64::from(rows) / (mean + pause);
                    if rate > best {
                        best = rate;
                        pace = Plan { rows, batch_nanos: Some(mean + pause), unreachable, judged };
                    }
                }
            }
        }
        pace
    }

    /// Rows per second of one replica.
    pub(crate) fn rate(&self) -> Option<f64> {
        self.row_nanos().map(|nanos| 1e9 / nanos)
    }

    /// Time per row of a backlog, in nanoseconds.
    pub(crate) fn row_nanos(&self) -> Option<f64> {
        self.batch_nanos.map(|nanos| nanos / f64::from(self.rows))
    }
}

/// When `work` nanoseconds are done by replicas that are free at `free`, distributed so that all finish together.
/// Empties `free`. `None` if there is no replica.
pub(crate) fn drained(work: u64, free: &mut Vec<Time>) -> Option<Time> {
    free.sort_unstable();
    let mut sum = 0u128;
    let mut level = None;
    for (count, at) in free.drain(..).enumerate() {
        let here = u128::from(at.as_nanos());
        if level.is_some_and(|level| here >= level) {
            break;
        }
        sum += here;
        level = Some((sum + u128::from(work)) / (count as u128 + 1));
    }
    level.map(|level| Time::from_nanos(saturate(level)))
}

fn saturate(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    #[test]
    fn work_goes_to_the_replicas_that_are_free_first() {
        assert_eq!(drained(0, &mut vec![at(50), at(20)]), Some(at(20)));
        assert_eq!(drained(20, &mut vec![at(50), at(20)]), Some(at(40)));
        assert_eq!(drained(50, &mut vec![at(50), at(20)]), Some(at(60)));
        assert_eq!(drained(50, &mut Vec::new()), None);
    }

    #[test]
    fn the_batch_size_leaves_room_for_the_batch_before_it() {
        let profile: Vec<_> =
            [1u32, 32].map(|rows| (rows, Duration::from_micros(900 + u64::from(rows) * 100))).into();
        let latency = Latency::new(32, 0.5, &profile);
        let pace = |millis| {
            let latency_max = Duration::from_millis(millis);
            let objective = Objective { latency: latency_max, quantile: 0.5 };
            Plan::new(&latency, 32, Some(objective), latency_max, 0.0)
        };
        assert_eq!((pace(100).rows, pace(100).unreachable), (32, false));
        assert!((7..=9).contains(&pace(4).rows), "{:?}", pace(4));
        assert_eq!((pace(1).rows, pace(1).unreachable), (1, false));
        assert_eq!((Plan::new(&latency, 32, None, Duration::MAX, 0.0).rows), 32);
        // One run in twenty takes twice as long: reserving that for every batch would halve the batches.
        let mut wide = Latency::new(32, 0.99, &profile);
        for run in 0..2000u64 {
            wide.observe(1, Duration::from_micros(if run % 20 == 0 { 2000 } else { 950 }));
        }
        let objective = Objective { latency: Duration::from_millis(6), quantile: 0.99 };
        let pace = Plan::new(&wide, 32, Some(objective), objective.latency, 0.0);
        assert!((16..=19).contains(&pace.rows) && pace.judged < 0.99, "{pace:?}");
        let none = Objective { latency: Duration::from_micros(10), quantile: 0.5 };
        assert!(Plan::new(&latency, 32, Some(none), none.latency, 0.0).unreachable);
    }
}

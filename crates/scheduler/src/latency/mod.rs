//! Execution time of a batch as a function of its rows, learned from every run.
//!
//! Reads measured executions, hands on means and high quantiles. Knows nothing of queues or deadlines.
//!
//! The mean at a batch size that was run is that size's own moving mean. Sizes between are interpolated, sizes
//! beyond follow the line `α + β·rows` fitted through all of them, so that a curve that is not a line (vector
//! widths, caches) is represented exactly and a size that was never run has a prediction. All means are multiplied
//! by the machine's present level (`drift`). The spread around the mean is one sketch for all sizes.

pub(crate) mod drift;
pub(crate) mod plan;
pub(crate) mod points;
pub(crate) mod sizes;
pub(crate) mod spread;

use std::time::Duration;

use self::drift::Drift;
use self::points::{CLIP, Point, never_falling, slope};
use self::spread::Spread;

/// How much longer than the longest run so far a caller's timeout may have to be.
const BEYOND_SEEN: f64 = 1.5;
/// A size last run this many runs ago is ignored, if there are two fresher ones.
const STALE_RUNS: u64 = 10_000;
/// Number of runs that set the level of a borrowed curve.
const BORROWED_RUNS: u32 = 3;
/// Number of runs of a size from which they say something about the machine.
const FIRM_RUNS: u64 = 3;
/// Number of sizes with a mean of their own.
const SIZES_MAX: u32 = 4096;
/// Runs between two reads of the sketch (more often at first).
const REFRESH_RUNS: u64 = 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct Latency {
    /// By rows - 1.
    points: Vec<Point>,
    /// Means by rows - 1, in nanoseconds, without gaps, at a level of 1; empty while nothing is known.
    means: Vec<f64>,
    /// The machine's level.
    drift: Drift,
    /// The largest size that was run or is in the profile.
    largest: u32,
    /// The largest size that was run more than a few times.
    firm: u32,
    /// Nanoseconds per additional row.
    slope: f64,
    /// The ratio of runs larger than `means` to the line.
    beyond: f64,
    spread: Spread,
    /// The ratio at the objective's quantile.
    quantile: f64,
    /// The ratio at the judged quantile.
    judged: f64,
    ratio: f64,
    runs: u64,
    /// Runs that still set the level of a borrowed curve.
    borrowed: u32,
    /// Rows and nanoseconds of the longest run so far.
    longest_run: (u32, f64),
}

impl Latency {
    /// A model with the curve `profile`, judged at `quantile`.
    pub(crate) fn new(rows_max: u32, quantile: f64, profile: &[(u32, Duration)]) -> Self {
        let sizes = rows_max.clamp(1, SIZES_MAX) as usize;
        let spread = Spread::new();
        let mut latency = Latency {
            points: vec![Point::default(); sizes],
            means: Vec::new(),
            drift: Drift::new(),
            largest: 0,
            firm: 0,
            slope: 0.0,
            beyond: 1.0,
            ratio: spread.quantile(quantile),
            spread,
            quantile,
            judged: quantile,
            runs: 0,
            borrowed: 0,
            longest_run: (1, 0.0),
        };
        for (rows, time) in profile {
            let known = (*rows as usize).checked_sub(1).and_then(|index| latency.points.get_mut(index));
            if let Some(point) = known {
                point.mean = (time.as_nanos() as f64).max(1.0);
                point.given = true;
                latency.largest = latency.largest.max(*rows);
            }
        }
        latency.rebuild();
        latency
    }

    /// A model with another's curve and spread until it has its own: its first runs set the level of all sizes that
    /// it has not run itself.
    pub(crate) fn like(other: &Latency) -> Self {
        let borrow = |point: &Point| Point { samples: 0, seen: 0, ..*point };
        Latency {
            points: other.points.iter().map(borrow).collect(),
            means: other.means.clone(),
            drift: other.drift.clone(),
            spread: other.spread.clone(),
            runs: 0,
            firm: 0,
            borrowed: BORROWED_RUNS,
            longest_run: (1, 0.0),
            ..*other
        }
    }

    /// Whether the curve was measured or given, not borrowed.
    pub(crate) fn is_measured(&self) -> bool {
        self.known() && (self.borrowed == 0 || self.runs > 0)
    }

    /// Whether anything is known.
    pub(crate) fn known(&self) -> bool {
        !self.means.is_empty()
    }

    /// Learns from one run; `true` if predictions may have changed.
    pub(crate) fn observe(&mut self, rows: u32, execution: Duration) -> bool {
        let rows = rows.max(1);
        let time = (execution.as_nanos() as f64).max(1.0);
        let expected = self.mean(rows);
        self.runs += 1;
        self.largest = self.largest.max(rows);
        if time > self.longest_run.1 {
            self.longest_run = (rows, time);
        }
        if let Some(expected) = expected {
            let ratio = time / expected;
            if self.borrowed > 0 {
                self.borrowed -= 1;
                self.set_level(ratio);
            } else {
                self.spread.record(ratio);
            }
        }
        let before = self.drift.level();
        let moved = match self.points.get_mut(rows as usize - 1) {
            Some(point) => {
                point.learn(time, self.runs);
                if point.samples > FIRM_RUNS {
                    self.firm = self.firm.max(rows);
                }
                // Between known sizes the curve is accurate, beyond them it is a guess.
                if let Some(expected) = expected.filter(|_| rows <= self.firm) {
                    self.drift.record(time / expected * before);
                }
                let moved = |expected: f64| (point.mean / expected * before - 1.0).abs() > 0.01;
                expected.is_none_or(|expected| self.borrowed > 0 || moved(expected))
            }
            None => {
                self.learn_beyond(rows, time);
                false
            }
        };
        if moved {
            self.rebuild();
        } else if self.runs < 64 || self.runs.is_multiple_of(REFRESH_RUNS) {
            self.refresh();
        } else {
            return (self.drift.level() / before - 1.0).abs() > 0.01;
        }
        true
    }

    /// Mean execution time of `rows` in nanoseconds.
    pub(crate) fn mean(&self, rows: u32) -> Option<f64> {
        let rows = rows.max(1) as usize;
        let usual = match self.means.get(rows - 1) {
            Some(mean) => *mean,
            None => {
                let last = *self.means.last()?;
                let line = last + self.slope * (rows - self.means.len()) as f64;
                line * self.beyond
            }
        };
        Some(usual * self.drift.level())
    }

    /// Execution time of `rows` at the judged quantile, in nanoseconds; 0 while nothing is known, so that a new
    /// model starts optimistically.
    pub(crate) fn high(&self, rows: u32) -> u64 {
        self.mean(rows).map_or(0, |mean| (mean * self.ratio) as u64)
    }

    /// As [`Latency::high`], for callers' timeouts: at most `BEYOND_SEEN` times the longest run so far, in proportion
    /// for more rows than it had. The spread holds ratios to means of the moment: where times depend on the input, a long run
    /// raises the mean, and its ratio to the mean before it no longer applies. A plan may err on the long side; a
    /// request that can be answered in time must not be refused for it.
    pub(crate) fn needed(&self, rows: u32) -> u64 {
        let (rows_seen, time) = self.longest_run;
        let seen = time * (f64::from(rows) / f64::from(rows_seen)).max(1.0);
        let high = self.high(rows);
        if time <= 0.0 {
            return high;
        }
        // The curve without the drift: a profile may know sizes that never ran.
        let usual = self.mean(rows).unwrap_or(0.0) / self.drift.level();
        high.min(usual.max(seen * BEYOND_SEEN) as u64)
    }

    /// The objective's quantile.
    pub(crate) fn quantile(&self) -> f64 {
        self.quantile
    }

    /// Sets the judged quantile.
    pub(crate) fn judge_at(&mut self, quantile: f64) {
        if self.judged != quantile {
            self.judged = quantile;
            self.refresh();
        }
    }

    /// Execution time of `rows` at `quantile`, in nanoseconds; 0 while nothing is known.
    pub(crate) fn longest(&self, rows: u32, quantile: f64) -> f64 {
        self.mean(rows).unwrap_or(0.0) * self.spread.quantile(quantile)
    }

    /// The spread: the ratio of execution time to mean at `quantile`.
    pub(crate) fn ratio(&self, quantile: f64) -> f64 {
        self.spread.quantile(quantile)
    }

    /// `T(rows, quantile)`.
    pub(crate) fn at(&self, rows: u32, quantile: f64) -> Option<Duration> {
        let mean = self.mean(rows)?;
        Some(Duration::from_nanos((mean * self.spread.quantile(quantile)) as u64))
    }

    /// Ratios of the last runs to the mean of their size, oldest first.
    pub(crate) fn recent(&self) -> impl Iterator<Item = f64> {
        self.drift.recent()
    }

    /// Time per additional row, in nanoseconds.
    pub(crate) fn per_row(&self) -> f64 {
        self.slope * self.drift.level()
    }

    /// Number of measured runs of exactly `rows`.
    pub(crate) fn samples(&self, rows: u32) -> u64 {
        self.points.get((rows as usize).wrapping_sub(1)).map_or(0, |point| point.samples)
    }

    /// Nanoseconds saved by running `first` and `second` rows together. Infinite if nothing as large was ever run:
    /// otherwise it would never be tried.
    pub(crate) fn gain(&self, first: u32, second: u32) -> f64 {
        if self.known() && first.saturating_add(second) > self.largest {
            return self.mean(second).unwrap_or(0.0);
        }
        match (self.mean(first), self.mean(second), self.mean(first.saturating_add(second))) {
            (Some(first), Some(second), Some(both)) => first + second - both,
            _ => 0.0,
        }
    }

    /// Sets the level of borrowed sizes that were not run since. The first run counts fully, and so does a shorter
    /// one after it: first runs often include allocations.
    fn set_level(&mut self, ratio: f64) {
        let ratio = if self.runs == 1 || ratio < 1.0 { ratio } else { ratio.sqrt() };
        self.points.iter_mut().filter(|point| point.samples == 0).for_each(|point| point.mean *= ratio);
    }

    fn learn_beyond(&mut self, rows: u32, time: f64) {
        if self.means.is_empty() {
            // Nothing smaller was ever run: assume proportional time.
            let share = time / f64::from(rows);
            let sizes = self.points.len();
            if let Some(point) = self.points.last_mut() {
                point.mean = share * sizes as f64;
            }
            self.rebuild();
        } else if let Some(expected) = self.mean(rows) {
            let ratio = (time / expected).clamp(1.0 / CLIP, CLIP);
            self.beyond *= 1.0 + 0.2 * (ratio - 1.0);
        }
    }

    /// Rebuilds the curve from the points.
    fn rebuild(&mut self) {
        let fresh = |point: &Point| point.mean > 0.0 && self.runs - point.seen < STALE_RUNS;
        // A single run says little: the first of a size often includes allocations, and a size that looks slow is
        // not planned with, so that it would never be corrected.
        let fresh = |point: &Point| fresh(point) && point.is_firm();
        let enough = self.points.iter().filter(|point| fresh(point)).count() >= 2;
        let mut known: Vec<(f64, f64, f64)> = self
            .points
            .iter()
            .enumerate()
            .filter(|(_, point)| if enough { fresh(point) } else { point.mean > 0.0 })
            .map(|(index, point)| ((index + 1) as f64, point.mean, (point.samples.clamp(1, 20)) as f64))
            .collect();
        let (Some(first), Some(last)) = (known.first().copied(), known.last().copied()) else { return };
        never_falling(&mut known);
        self.slope = slope(&known);
        // One point says nothing about a fixed part: assume none above it and half below it, to err on the long
        // side.
        let below = if known.len() == 1 { self.slope / 2.0 } else { self.slope };
        self.means.clear();
        let mut next = 0;
        for rows in 1..=self.points.len() {
            let rows = rows as f64;
            while next < known.len() && known[next].0 < rows {
                next += 1;
            }
            let mean = if rows <= first.0 {
                // At least its share, at most the whole.
                (first.1 - below * (first.0 - rows)).max(first.1 * rows / first.0).min(first.1)
            } else if let Some(right) = known.get(next) {
                let left = known[next - 1];
                left.1 + (right.1 - left.1) * (rows - left.0) / (right.0 - left.0)
            } else {
                (last.1 + self.slope * (rows - last.0)).min(last.1 * rows / last.0)
            };
            self.means.push(mean.max(1.0));
        }
        self.refresh();
    }

    fn refresh(&mut self) {
        self.ratio = self.spread.quantile(self.judged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn no_timeout_has_to_be_far_longer_than_any_run_was() {
        let mut latency = Latency::new(1, 0.99, &[]);
        for seconds in [0.3e-3, 90.0, 0.3e-3, 90.0, 90.0] {
            latency.observe(1, Duration::from_secs_f64(seconds));
        }
        latency.judge_at(0.999);
        let (high, needed) = (latency.high(1), latency.needed(1));
        assert!(high > 135_000_000_000 && needed <= 135_000_000_000, "{high} {needed}");
        let usual = Latency::new(8, 0.99, &[(8, micros(800))]);
        assert_eq!(usual.needed(8), usual.high(8), "nothing ran so far");
    }

    fn near(found: Option<f64>, micros: f64) {
        let found = found.expect("known") / 1e3;
        assert!((found / micros - 1.0).abs() < 0.05, "{found} µs instead of {micros} µs");
    }

    #[test]
    fn nothing_is_claimed_before_the_first_run() {
        let latency = Latency::new(32, 0.99, &[]);
        assert_eq!((latency.mean(1), latency.at(1, 0.99), latency.high(8)), (None, None, 0));
    }

    #[test]
    fn a_line_is_found_and_continued_past_what_was_run() {
        let mut latency = Latency::new(32, 0.99, &[]);
        for _ in 0..20 {
            for rows in [1u32, 4, 8] {
                latency.observe(rows, micros(1000 + 100 * u64::from(rows)));
            }
        }
        near(latency.mean(4), 1400.0);
        near(latency.mean(6), 1600.0);
        near(latency.mean(32), 4200.0);
        near(latency.mean(64), 7400.0);
    }

    #[test]
    fn all_sizes_are_slower_while_the_machine_is() {
        let mut latency = Latency::new(32, 0.99, &[]);
        let run = |latency: &mut Latency, sizes: &[u32], factor: u64| {
            for rows in sizes {
                latency.observe(*rows, micros(factor * (1000 + 100 * u64::from(*rows))));
            }
        };
        (0..100).for_each(|_| run(&mut latency, &[1, 8, 16], 1));
        (0..8).for_each(|_| run(&mut latency, &[1], 2));
        for (rows, usual) in [(16, 2600.0), (32, 4200.0)] {
            let factor = latency.mean(rows).unwrap() / 1e3 / usual;
            assert!((1.15..1.6).contains(&factor), "{factor} times what {rows} rows took");
        }
        (0..40).for_each(|_| run(&mut latency, &[8], 1));
        near(latency.mean(16), 2600.0);
    }

    #[test]
    fn a_curve_that_is_no_line_is_followed_where_it_was_measured() {
        let mut latency = Latency::new(16, 0.99, &[]);
        for _ in 0..20 {
            for (rows, time) in [(1, 100), (8, 110), (9, 400), (16, 420)] {
                latency.observe(rows, micros(time));
            }
        }
        near(latency.mean(8), 110.0);
        near(latency.mean(9), 400.0);
        near(latency.mean(4), 104.3);
    }

    #[test]
    fn one_outlier_changes_little_and_a_lasting_change_is_followed() {
        let mut latency = Latency::new(8, 0.99, &[]);
        for _ in 0..100 {
            latency.observe(1, micros(1000));
        }
        latency.observe(1, micros(100_000));
        // A tenth more in the long run, and a little for the present.
        near(latency.mean(1), 1170.0);
        for _ in 0..100 {
            latency.observe(1, micros(3000));
        }
        near(latency.mean(1), 3000.0);
    }

    #[test]
    fn a_slow_first_run_is_forgotten_by_the_second() {
        let mut latency = Latency::new(8, 0.99, &[]);
        latency.observe(1, micros(50_000));
        latency.observe(1, micros(1000));
        near(latency.mean(1), 1000.0);
    }

    #[test]
    fn a_size_whose_only_run_was_slow_does_not_bend_the_curve() {
        let mut latency = Latency::new(32, 0.99, &[]);
        for _ in 0..20 {
            for rows in [1u32, 2, 4] {
                latency.observe(rows, micros(1000 + 10 * u64::from(rows)));
            }
        }
        latency.observe(16, micros(20_000));
        near(latency.mean(16), 1160.0);
        latency.observe(16, micros(1160));
        near(latency.mean(16), 1160.0);
    }

    #[test]
    fn a_profile_counts_as_much_as_the_first_run() {
        let profile = [(1, micros(1000)), (16, micros(1200)), (32, micros(1400))];
        let mut latency = Latency::new(32, 0.99, &profile);
        latency.observe(16, micros(1400));
        near(latency.mean(16), 1300.0);
    }

    #[test]
    fn a_wide_spread_shows_at_high_quantiles_only() {
        let mut latency = Latency::new(8, 0.99, &[]);
        for run in 0..2000 {
            latency.observe(2, micros(if run % 20 == 0 { 2500 } else { 1000 }));
        }
        let median = latency.at(2, 0.5).unwrap().as_secs_f64() * 1e3;
        let high = latency.at(2, 0.99).unwrap().as_secs_f64() * 1e3;
        assert!((0.9..1.1).contains(&median) && (2.2..2.8).contains(&high), "{median} {high}");
    }

    #[test]
    fn a_profile_is_known_before_the_first_run() {
        let latency = Latency::new(32, 0.99, &[(1, micros(500)), (32, micros(3600)), (64, micros(1))]);
        near(latency.mean(1), 500.0);
        near(latency.mean(32), 3600.0);
        assert_eq!(latency.samples(1), 0);
    }

    #[test]
    fn only_requests_larger_than_any_batch_still_teach_something() {
        let mut latency = Latency::new(4, 0.99, &[]);
        for _ in 0..30 {
            latency.observe(100, micros(100_000));
        }
        near(latency.mean(100), 100_000.0);
        near(latency.mean(2), 3000.0);
    }

    #[test]
    fn a_borrowed_curve_keeps_its_shape_and_takes_its_level_from_the_first_runs() {
        let known = Latency::new(32, 0.99, &[(1, micros(1000)), (32, micros(4100))]);
        let mut latency = Latency::like(&known);
        assert!(latency.known() && !latency.is_measured());
        near(latency.mean(32), 4100.0);
        latency.observe(1, micros(9000));
        assert!(latency.is_measured());
        near(latency.mean(32), 36_900.0);
        // The first run included allocations.
        latency.observe(1, micros(4000));
        near(latency.mean(1), 4000.0);
        near(latency.mean(32), 16_400.0);
        near(known.mean(32), 4100.0);
    }
}

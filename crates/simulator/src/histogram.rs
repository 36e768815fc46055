//! A histogram of durations with bins of equal ratio: quantiles within 1 %, in little memory.
//!
//! Reads durations, hands on quantiles. Does not know what they measure.

use std::time::Duration;

/// Bins per octave.
const PER_OCTAVE: f64 = 64.0;
/// From a microsecond to eleven days.
const BINS: usize = 64 * 40;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    bins: Vec<u64>,
    count: u64,
    sum_s: f64,
    longest: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { bins: vec![0; BINS], count: 0, sum_s: 0.0, longest: Duration::ZERO }
    }
}

impl Histogram {
    /// Counts one duration.
    pub(crate) fn record(&mut self, time: Duration) {
        let micros = time.as_nanos() as f64 / 1e3;
        let bin = (micros.max(1.0).log2() * PER_OCTAVE + 0.5) as usize;
        self.bins[bin.min(BINS - 1)] += 1;
        self.count += 1;
        self.sum_s += micros / 1e6;
        self.longest = self.longest.max(time);
    }

    /// The duration at `quantile` in seconds; `None` if there is none.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<f64> {
        let wanted = (quantile * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let at = self.bins.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        let time = (at as f64 / PER_OCTAVE).exp2() / 1e6;
        Some(time.min(self.longest.as_secs_f64()))
    }

    /// The longest, exactly; `None` if there is none.
    pub(crate) fn longest(&self) -> Option<f64> {
        (self.count > 0).then_some(self.longest.as_secs_f64())
    }

    /// Number of durations.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The mean in seconds; `None` if there is none.
    pub(crate) fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_s / self.count as f64)
    }

    /// (seconds, fraction within them), ascending: the cumulative distribution, for plots.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let mut seen = 0;
        let filled = self.bins.iter().enumerate().filter(|(_, count)| **count > 0);
        let point = |(at, count): (usize, &u64)| {
            seen += count;
            ((at as f64 / PER_OCTAVE).exp2() / 1e6, seen as f64 / self.count as f64)
        };
        filled.map(point).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_one_percent() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.quantile(0.5), histogram.mean()), (None, None));
        (1..=10_000).for_each(|step| histogram.record(Duration::from_micros(step * 10)));
        for (quantile, expected) in [(0.01, 0.001), (0.5, 0.05), (0.99, 0.099), (1.0, 0.1)] {
            let found = histogram.quantile(quantile).expect("counted");
            assert!((found / expected - 1.0).abs() < 0.01, "{quantile}: {found}");
        }
        assert!((histogram.mean().expect("counted") - 0.05).abs() < 1e-5);
        assert_eq!(histogram.curve().last().map(|point| point.1), Some(1.0));
    }
}

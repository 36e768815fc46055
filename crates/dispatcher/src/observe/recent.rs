//! The last few hundred times of one kind.
//!
//! Reads one after the other, hands back quantiles. Knows nothing of what they are.

use std::time::Duration;

/// How many are remembered.
const KEPT: usize = 512;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct RecentDurations {
    times: Vec<Duration>,
    next: usize,
}

impl RecentDurations {
    pub(crate) fn record(&mut self, time: Duration) {
        match self.times.get_mut(self.next) {
            Some(oldest) => *oldest = time,
            None => self.times.push(time),
        }
        self.next = (self.next + 1) % KEPT;
    }

    /// What a share `quantile` of them stays within; `None` before the first.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<Duration> {
        let mut times = self.times.clone();
        let last = times.len().checked_sub(1)?;
        let at = ((quantile * times.len() as f64) as usize).min(last);
        Some(*times.select_nth_unstable(at).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_last_few_hundred() {
        let mut recent = RecentDurations::default();
        assert_eq!(recent.quantile(0.5), None);
        (0..10_000).for_each(|_| recent.record(Duration::from_secs(1)));
        (0..KEPT as u64).rev().for_each(|micros| recent.record(Duration::from_micros(micros)));
        assert_eq!(recent.times.len(), KEPT);
        assert_eq!(recent.quantile(0.0), Some(Duration::ZERO));
        assert_eq!(recent.quantile(0.5), Some(Duration::from_micros(256)));
        assert_eq!(recent.quantile(1.0), Some(Duration::from_micros(511)));
    }
}

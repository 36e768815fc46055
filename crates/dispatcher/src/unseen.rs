//! How long batches had ended before that was seen.
//!
//! Reads one time for each batch, hands back quantiles of the last few hundred. Knows nothing of batches.
//!
//! A gateway that shares its cores with the workers waits for its turn: between the end of a run and the answer, and
//! as long between the arrival of a request and its admission. No execution time has that in it, and every caller does.

use std::time::Duration;

/// How many are remembered.
const KEPT: usize = 512;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Unseen {
    times: Vec<Duration>,
    next: usize,
}

impl Unseen {
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
        let mut unseen = Unseen::default();
        assert_eq!(unseen.quantile(0.5), None);
        (0..10_000).for_each(|_| unseen.record(Duration::from_secs(1)));
        (0..KEPT as u64).rev().for_each(|micros| unseen.record(Duration::from_micros(micros)));
        assert_eq!(unseen.times.len(), KEPT);
        assert_eq!(unseen.quantile(0.0), Some(Duration::ZERO));
        assert_eq!(unseen.quantile(0.5), Some(Duration::from_micros(256)));
        assert_eq!(unseen.quantile(1.0), Some(Duration::from_micros(511)));
    }
}

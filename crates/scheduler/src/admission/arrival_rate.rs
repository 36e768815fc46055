//! How many rows come, lately.
//!
//! Reads arrivals, hands back how many more a time will bring. Knows nothing of deadlines or batches.

use std::time::Duration;

use inferd_types::Time;

/// What is remembered, in horizons (the time within which a request is due): long enough that a burst is not taken for
/// a load that lasts, which would refuse those at its end for the sake of others that never come.
const HORIZONS: f64 = 10.0;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Inflow {
    /// Rows a second.
    rate: f64,
    seen: Time,
}

impl Inflow {
    /// `rows` came at `now`; those that came many horizons ago hardly count any more.
    pub(crate) fn came(&mut self, now: Time, rows: u64, horizon: Duration) {
        let window = HORIZONS * horizon.as_secs_f64().clamp(1e-3, 10.0);
        let since = now.since(self.seen).as_secs_f64();
        self.rate = self.rate / (1.0 + since / window) + rows as f64 / window;
        self.seen = now;
    }

    /// Rows that are likely to come within `time`.
    pub(crate) fn within(&self, time: Duration) -> u64 {
        (self.rate * time.as_secs_f64()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_found_and_forgotten_and_a_burst_counts_little() {
        let mut inflow = Inflow::default();
        let horizon = Duration::from_millis(100);
        let mut now = Time::ZERO;
        for _ in 0..10_000 {
            now = now + Duration::from_millis(1);
            inflow.came(now, 2, horizon);
        }
        let steady = inflow.within(Duration::from_millis(100));
        assert!((190..=210).contains(&steady), "{steady}");
        (0..100).for_each(|_| inflow.came(now, 1, horizon));
        assert!(inflow.within(Duration::from_millis(100)) <= steady + 10);
        inflow.came(now + Duration::from_secs(100), 1, horizon);
        assert!(inflow.within(Duration::from_millis(100)) <= 3);
    }
}

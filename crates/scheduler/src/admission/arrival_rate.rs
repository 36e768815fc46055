//! Estimates the arrival rate.
//!
//! Reads arrivals, hands on the rows expected within a time. Knows nothing of deadlines or batches.

use std::time::Duration;

use inferd_types::Time;

/// The averaging window, in horizons (the time within which a request is due): long enough that a burst is not
/// taken for a lasting load, which would refuse its last requests for the sake of others that never arrive.
const HORIZONS: f64 = 10.0;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ArrivalRate {
    /// Rows per second.
    rate: f64,
    seen: Time,
}

impl ArrivalRate {
    /// Records `rows` that arrived at `now`; arrivals of many horizons ago hardly count.
    pub(crate) fn record(&mut self, now: Time, rows: u64, horizon: Duration) {
        let window = HORIZONS * horizon.as_secs_f64().clamp(1e-3, 10.0);
        let since = now.since(self.seen).as_secs_f64();
        self.rate = self.rate / (1.0 + since / window) + rows as f64 / window;
        self.seen = now;
    }

    /// The rows expected within `time`.
    pub(crate) fn within(&self, time: Duration) -> u64 {
        (self.rate * time.as_secs_f64()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_found_and_forgotten_and_a_burst_counts_little() {
        let mut arrival_rate = ArrivalRate::default();
        let horizon = Duration::from_millis(100);
        let mut now = Time::ZERO;
        for _ in 0..10_000 {
            now = now + Duration::from_millis(1);
            arrival_rate.record(now, 2, horizon);
        }
        let steady = arrival_rate.within(Duration::from_millis(100));
        assert!((190..=210).contains(&steady), "{steady}");
        (0..100).for_each(|_| arrival_rate.record(now, 1, horizon));
        assert!(arrival_rate.within(Duration::from_millis(100)) <= steady + 10);
        arrival_rate.record(now + Duration::from_secs(100), 1, horizon);
        assert!(arrival_rate.within(Duration::from_millis(100)) <= 3);
    }
}

//! How long to wait before a worker is started again.
//!
//! Reads how a worker ended, hands back a delay. A function of values.
//! Knows nothing of clocks or processes.

use std::time::Duration;

/// The wait after the second failure in a row; it doubles from there.
const FIRST: Duration = Duration::from_millis(100);
/// A model whose file was repaired is back within this time.
const LONGEST: Duration = Duration::from_secs(30);

/// Failures in a row of one replica's slot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure and says how long to wait. The first start after a success is immediate: most workers that
    /// die, die by accident, and each millisecond without them is capacity lost.
    pub(crate) fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        match self.failures {
            1 => Duration::ZERO,
            more => FIRST.saturating_mul(1 << (more - 2).min(20)).min(LONGEST),
        }
    }

    /// The replica has done its work: what went wrong before is forgiven.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    pub(crate) fn failures(self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_wait_twice_as_long_up_to_a_bound() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..5).map(|_| backoff.failed().as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800]);
        for _ in 0..1000 {
            assert!(backoff.failed() <= LONGEST);
        }
        assert_eq!(backoff.failed(), LONGEST);
    }

    #[test]
    fn a_success_forgives_what_was_before() {
        let mut backoff = Backoff::default();
        backoff.failed();
        backoff.failed();
        backoff.succeeded();
        assert_eq!(backoff.failed(), Duration::ZERO);
    }
}

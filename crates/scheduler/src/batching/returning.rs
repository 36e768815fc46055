//! Detects callers in closed loops: after a batch, how many new requests follow at once.
//!
//! Reads arrivals and finished batches, hands on how long a small batch should linger. Does not identify callers.
//!
//! Callers in closed loops send their next request when they have a response, so that after a batch of eight, eight
//! requests arrive within a fraction of the execution time. Arrivals that are independent of responses fall into
//! that window by chance only: with a window of a fifth of the execution time, at most a fifth of them do. The
//! fraction that arrives within the window tells the two apart.

use std::collections::VecDeque;
use std::time::Duration;

use inferd_types::Time;

/// The fraction from which callers count as returning; that of independent arrivals stays near 0.2 or below.
const SHARE_MIN: f64 = 0.5;
/// Weight of one window in the moving averages.
const STEP: f64 = 0.15;
/// The window, as a fraction of the execution time …
const WINDOW_PART: f64 = 0.2;
/// … and its maximum.
const WINDOW_MAX: Duration = Duration::from_millis(1);
/// Minimum, below which no caller can be back in time.
const WINDOW_MIN: Duration = Duration::from_micros(50);
/// Maximum number of open windows; with more replicas than this some are not watched.
const WINDOWS_MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Window {
    ends: Time,
    answered: u32,
    returned: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Returning {
    /// Moving average of the fraction of callers that return within the window.
    share: f64,
    /// Moving average of requests per batch.
    answered: f64,
    open: VecDeque<Window>,
}

impl Returning {
    /// Records the arrival of a request.
    pub(crate) fn arrived(&mut self, now: Time) {
        self.advance(now);
        if let Some(window) = self.open.iter_mut().find(|window| window.returned < window.answered) {
            window.returned += 1;
        }
    }

    /// Records a batch of `answered` requests that ran for `execution`.
    pub(crate) fn finished(&mut self, now: Time, answered: u32, execution: Duration) {
        self.advance(now);
        let length = execution.mul_f64(WINDOW_PART).min(WINDOW_MAX);
        if answered > 0 && length >= WINDOW_MIN && self.open.len() < WINDOWS_MAX {
            self.open.push_back(Window { ends: now + length, answered, returned: 0 });
        }
    }

    /// Closes the windows that have ended.
    pub(crate) fn advance(&mut self, now: Time) {
        while let Some(window) = self.open.front().copied().filter(|window| window.ends <= now) {
            self.open.pop_front();
            let share = f64::from(window.returned) / f64::from(window.answered);
            self.share += STEP * (share - self.share);
            self.answered += STEP * (f64::from(window.answered) - self.answered);
        }
    }

    /// When the callers of the oldest open window are expected, and how many are missing, if they return.
    pub(crate) fn expected(&self) -> Option<(Time, u32)> {
        let window = self.open.front().filter(|_| self.callers_return())?;
        let missing = self.share * f64::from(window.answered) - f64::from(window.returned);
        (missing > 0.25).then(|| (window.ends, missing.ceil() as u32))
    }

    /// How many of `answered` callers will return soon after their response.
    pub(crate) fn will_return(&self, answered: usize) -> u32 {
        if self.callers_return() { (self.share * answered as f64).round() as u32 } else { 0 }
    }

    /// The number of returning callers, for `explain`.
    pub(crate) fn callers(&self) -> f64 {
        if self.callers_return() { self.share * self.answered } else { 0.0 }
    }

    fn callers_return(&self) -> bool {
        self.share >= SHARE_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXECUTION: Duration = Duration::from_millis(2);

    fn at(micros: u64) -> Time {
        Time::from_nanos(micros * 1000)
    }

    #[test]
    fn callers_that_come_back_are_expected_after_a_few_rounds_until_all_are_there() {
        let mut returning = Returning::default();
        for round in 0..20 {
            returning.finished(at(round * 2000), 4, EXECUTION);
            (0..4).for_each(|caller| returning.arrived(at(round * 2000 + 50 + caller * 10)));
        }
        returning.finished(at(40_000), 4, EXECUTION);
        assert_eq!(returning.expected(), Some((at(40_400), 4)));
        (0..3).for_each(|_| returning.arrived(at(40_100)));
        assert_eq!(returning.expected(), Some((at(40_400), 1)));
        returning.arrived(at(40_110));
        assert_eq!(returning.expected(), None);
    }

    #[test]
    fn arrivals_at_even_distances_are_not_taken_for_returning_callers() {
        let mut returning = Returning::default();
        for micros in 0..200_000u64 {
            if micros % 250 == 0 {
                returning.arrived(at(micros));
            }
            if micros % 2000 == 0 {
                returning.finished(at(micros), 8, EXECUTION);
                assert_eq!(returning.expected(), None);
            }
        }
    }
}

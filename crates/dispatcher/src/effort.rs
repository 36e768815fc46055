//! What a request costs this process, lately.
//!
//! Reads the process's own CPU clock now and then, hands back a time. Workers are other processes: what is left is
//! reading, deciding and answering. Knows nothing of requests but how many there were.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Requests between two looks at the clock, which is a call of the kernel.
const EVERY: u32 = 1024;

/// Counts for all models of the process. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Effort {
    threads: u32,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    requests: u32,
    /// At the last look.
    clock: Option<Duration>,
    each: Option<Duration>,
}

impl Effort {
    /// One for a gateway of `threads` threads.
    pub(crate) fn new(threads: usize) -> Effort {
        Effort { threads: u32::try_from(threads.max(1)).unwrap_or(u32::MAX), state: Arc::default() }
    }

    /// So many more requests were answered.
    pub(crate) fn answered(&self, requests: u32) {
        self.count(requests, || {
            Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
        });
    }

    fn count(&self, requests: u32, clock: impl FnOnce() -> Duration) {
        let mut state = self.lock();
        state.requests = state.requests.saturating_add(requests);
        if state.requests < EVERY {
            return;
        }
        let now = clock();
        if let Some(before) = state.clock.replace(now) {
            let each = now.saturating_sub(before) / (state.requests * self.threads);
            state.each = Some(state.each.map_or(each, |last| (last * 3 + each) / 4));
        }
        state.requests = 0;
    }

    /// How long one keeps the gateway, whose threads share the work; `None` before some thousand were answered.
    pub(crate) fn each(&self) -> Option<Duration> {
        self.lock().each
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Numbers: nothing is left half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_time_between_two_looks_over_the_requests_between_them() {
        let (effort, mut clock) = (Effort::new(2), Duration::from_secs(5));
        let mut answer = |cost: u64| {
            for _ in 0..EVERY {
                clock += Duration::from_micros(cost);
                effort.count(1, || clock);
            }
            effort.each()
        };
        assert_eq!(answer(100), None, "there is no look before the first");
        assert_eq!(answer(40), Some(Duration::from_micros(20)), "two threads share it");
        assert_eq!(answer(80), Some(Duration::from_micros(25)), "a quarter of the way");
    }

    #[test]
    fn the_clock_is_that_of_this_process() {
        let effort = Effort::new(1);
        effort.answered(EVERY);
        let mut spent = 0u64;
        (0..20_000_000u64).for_each(|number| spent = std::hint::black_box(spent ^ number));
        effort.answered(EVERY);
        assert!(effort.each().is_some_and(|each| each > Duration::ZERO));
    }
}

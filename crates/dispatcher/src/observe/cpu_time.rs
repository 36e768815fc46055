//! Moving average of gateway CPU time per request.
//!
//! Reads a CPU clock now and then, hands back a time: that of the gateway's thread where there is one, in which reading,
//! deciding and answering happen, else that of the process, whose workers are other processes. Knows nothing of requests
//! but how many there were.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Requests between two looks at the clock, which is a call of the kernel.
const EVERY: u32 = 1024;

/// Counts for all models of the process. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct CpuTime {
    threads: u32,
    state: Arc<Mutex<Counted>>,
}

#[derive(Debug, Default)]
struct Counted {
    requests: u32,
    /// At the last look.
    clock: Option<Duration>,
    each: Option<Duration>,
}

impl CpuTime {
    /// One for a gateway of `threads` threads.
    pub(crate) fn new(threads: usize) -> CpuTime {
        CpuTime { threads: u32::try_from(threads.max(1)).unwrap_or(u32::MAX), state: Arc::default() }
    }

    /// So many more requests were answered. Called on the gateway's threads.
    pub(crate) fn answered(&self, requests: u32) {
        let clock = if self.threads == 1 { ClockId::ThreadCPUTime } else { ClockId::ProcessCPUTime };
        self.count(requests, || Duration::try_from(clock_gettime(clock)).unwrap_or_default());
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

    fn lock(&self) -> MutexGuard<'_, Counted> {
        // Numbers: nothing is left half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_time_between_two_looks_over_the_requests_between_them() {
        let (cpu_time, mut clock) = (CpuTime::new(2), Duration::from_secs(5));
        let mut answer = |cost: u64| {
            for _ in 0..EVERY {
                clock += Duration::from_micros(cost);
                cpu_time.count(1, || clock);
            }
            cpu_time.each()
        };
        assert_eq!(answer(100), None, "there is no look before the first");
        assert_eq!(answer(40), Some(Duration::from_micros(20)), "two threads share it");
        assert_eq!(answer(80), Some(Duration::from_micros(25)), "a quarter of the way");
    }

    #[test]
    fn one_thread_is_charged_with_its_own_work_alone() {
        let cpu_time = CpuTime::new(1);
        let work = || (0..20_000_000u64).fold(0, |spent, number| std::hint::black_box(spent ^ number));
        let each = || cpu_time.each().unwrap_or_default();
        cpu_time.answered(EVERY);
        std::thread::scope(|scope| scope.spawn(work).join().map(|_| ()).unwrap_or_default());
        cpu_time.answered(EVERY);
        let others = each();
        work();
        cpu_time.answered(EVERY);
        assert!(each() > others, "{:?} {others:?}", each());
    }
}

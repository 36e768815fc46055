//! Wake-ups: an eventfd towards the gateway, a futex in the arena towards a worker.
//!
//! Reads the sleep words in the arena, hands on wake-ups. Both are skipped unless the other side has announced that
//! it sleeps. The order that makes this safe is the same on both sides: *announce sleep, full fence, check once
//! more, sleep* against *publish, full fence, check whether the other sleeps*. One of the two always sees the
//! other. Knows nothing of slots.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use rustix::thread::futex;
use smallvec::SmallVec;
use tokio::io::unix::AsyncFd;

use crate::socket::readable;

/// One eventfd that all workers of one model ring; each of them has a copy. Clones are the same doorbell.
///
/// It is registered edge-triggered: every ring is an edge. Only workers of one model share a doorbell, so misuse
/// harms that model alone.
#[derive(Clone, Debug)]
pub struct Doorbell {
    event: Arc<AsyncFd<OwnedFd>>,
}

impl Doorbell {
    /// A doorbell that has not been rung. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If the process is out of file descriptors.
    pub fn new() -> io::Result<Doorbell> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Doorbell { event: Arc::new(readable(event)?) })
    }

    /// Waits until a worker has rung since the last call. May return spuriously.
    pub async fn rung(&self) {
        match self.event.readable().await {
            Ok(mut guard) => {
                guard.clear_ready();
                // Clears it for `any_rung`. A worker that rings in between has published before, and the caller
                // checks afterwards.
                let _ = rustix::io::read(self.event.get_ref(), &mut [0; 8]);
            }
            // The runtime is shutting down: the caller is about to be dropped.
            Err(_) => std::future::pending().await,
        }
    }

    /// Blocks the thread until one of `bells` rings without [`Doorbell::rung`] having consumed it, or for `time`.
    pub fn any_rung<'a>(bells: impl Iterator<Item = &'a Doorbell>, time: Duration) {
        let mut bells: SmallVec<[PollFd<'_>; 4]> =
            bells.map(|bell| PollFd::new(bell.event.get_ref(), PollFlags::IN)).collect();
        // The caller checks after an error as after a ring.
        let _ = poll(&mut bells, Timespec::try_from(time).ok().as_ref());
    }

    /// The descriptor for a worker.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.event.get_ref().as_fd()
    }
}

/// Rings the gateway.
pub(crate) fn ring(event: &OwnedFd) {
    // A full counter can't be increased, but then it has been rung often enough.
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

/// Wakes the worker that sleeps on `sleeping`, if it does. Call it after publishing.
pub(crate) fn wake(sleeping: &AtomicU32) {
    fence(Ordering::SeqCst);
    if sleeping.load(Ordering::Relaxed) != 0 && sleeping.swap(0, Ordering::Relaxed) != 0 {
        let _ = futex::wake(sleeping, futex::Flags::empty(), 1);
    }
}

/// Sleeps on `sleeping` until woken, unless `ready` finds work after the announcement.
pub(crate) fn sleep(sleeping: &AtomicU32, ready: impl Fn() -> bool) {
    sleeping.store(1, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    if !ready() {
        // Returns at once if the word is 0 again; after a signal or a spurious wake the caller checks once more.
        let _ = futex::wait(sleeping, futex::Flags::empty(), 1, None);
    }
    sleeping.store(0, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use inferd_types::Clock;

    use super::*;

    #[tokio::test]
    async fn every_ring_is_heard() {
        let bell = Doorbell::new().unwrap();
        for _ in 0..3 {
            ring(bell.event.get_ref());
            bell.rung().await;
        }
    }

    #[tokio::test]
    async fn a_blocked_thread_wakes_for_rings_that_were_not_consumed() {
        let (bells, clock) = ([Doorbell::new().unwrap(), Doorbell::new().unwrap()], Clock::start());
        let hears = |limit| {
            let began = clock.now();
            Doorbell::any_rung(bells.iter(), limit);
            clock.now().since(began) < limit
        };
        ring(bells[1].event.get_ref());
        assert!(hears(Duration::from_secs(60)));
        assert!(hears(Duration::from_secs(60)), "waking a blocked thread consumes no ring");
        bells[1].rung().await;
        assert!(!hears(Duration::from_millis(1)));
    }

    #[test]
    fn no_wake_is_lost_between_announcing_and_sleeping() {
        let (sleeping, work) = (AtomicU32::new(0), AtomicU64::new(0));
        let rounds = 20_000;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=rounds {
                    // The response to the previous round: publish only once it was seen.
                    while work.load(Ordering::Acquire) != 2 * (round - 1) {
                        std::thread::yield_now();
                    }
                    work.store(2 * round - 1, Ordering::Release);
                    wake(&sleeping);
                }
            });
            for round in 1..=rounds {
                while work.load(Ordering::Acquire) != 2 * round - 1 {
                    sleep(&sleeping, || work.load(Ordering::Relaxed) == 2 * round - 1);
                }
                work.store(2 * round, Ordering::Release);
            }
        });
    }
}

//! Counts the bytes of requests that are being read, queued or run, over all models and connections.
//!
//! Reads lengths, hands out [`Held`] guards that give the bytes back when they are dropped.
//! Knows nothing of what the bytes are or who waits for them: it refuses, it never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use inferd_types::{Error, ErrorKind, Result};

/// The bound over all requests. Full means refuse: waiting for room while holding a half-read body could stop
/// every connection at once.
#[derive(Debug)]
pub(crate) struct Inflight {
    used: AtomicUsize,
    max: usize,
}

impl Inflight {
    pub(crate) fn new(max: usize) -> Arc<Inflight> {
        Arc::new(Inflight { used: AtomicUsize::new(0), max })
    }

    /// Bytes held now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    fn take(&self, bytes: usize) -> Result<()> {
        let taken = self.used.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if taken <= self.max {
            return Ok(());
        }
        self.used.fetch_sub(bytes, Relaxed);
        Err(Error::new(
            ErrorKind::Overloaded,
            format!(
                "requests in flight hold {} of inflight_max_bytes = {}, no room for {bytes} more; try again \
                 later, or raise inflight_max_bytes",
                taken - bytes,
                self.max
            ),
        )
        .with_retry_after(Duration::from_secs(1)))
    }
}

/// Bytes that one request holds; dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Held {
    of: Arc<Inflight>,
    bytes: AtomicUsize,
}

impl Held {
    /// Holds nothing yet.
    pub(crate) fn none(of: &Arc<Inflight>) -> Held {
        Held { of: of.clone(), bytes: AtomicUsize::new(0) }
    }

    /// Holds `bytes`.
    pub(crate) fn new(of: &Arc<Inflight>, bytes: usize) -> Result<Held> {
        let held = Held::none(of);
        held.add(bytes).map(|()| held)
    }

    /// Holds at least `bytes` in all from now on.
    pub(crate) fn at_least(&self, bytes: usize) -> Result<()> {
        let held = self.bytes.load(Relaxed);
        if bytes > held { self.add(bytes - held) } else { Ok(()) }
    }

    /// Holds `bytes` more from now on.
    pub(crate) fn add(&self, bytes: usize) -> Result<()> {
        self.of.take(bytes)?;
        self.bytes.fetch_add(bytes, Relaxed);
        Ok(())
    }

    /// Bytes held now.
    pub(crate) fn used(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Moves everything that is held into a guard of its own.
    pub(crate) fn split(&self) -> Held {
        Held { of: self.of.clone(), bytes: AtomicUsize::new(self.bytes.swap(0, Relaxed)) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.used.fetch_sub(*self.bytes.get_mut(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_on_drop_and_a_refusal_takes_none() {
        let inflight = Inflight::new(100);
        let held = Held::none(&inflight);
        held.at_least(60).unwrap();
        held.at_least(50).unwrap();
        let other = Held::none(&inflight);
        let error = other.add(41).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert!(error.message().contains("inflight_max_bytes") && error.retry_after().is_some());
        assert_eq!(inflight.used(), 60);
        let moved = held.split();
        drop(held);
        assert_eq!(inflight.used(), 60);
        drop(moved);
        assert_eq!(inflight.used(), 0);
        other.add(100).unwrap();
    }
}

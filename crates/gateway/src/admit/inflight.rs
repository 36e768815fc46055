//! Counts the bytes of requests that are being read, queued or run, over all models and connections.
//!
//! Reads lengths, hands out [`HeldBytes`] guards that give the bytes back when they are dropped.
//! Knows nothing of what the bytes are. It refuses and never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use inferd_types::{Error, ErrorKind, Result, Tenant};

/// The bound over all requests. Full means refuse: waiting for room while holding a half-read body could stop
/// every connection at once.
#[derive(Debug)]
pub(crate) struct Inflight {
    used: AtomicUsize,
    max: usize,
    /// Bytes of each tenant by its number; empty where tenancy is disabled.
    tenants: Box<[AtomicUsize]>,
}

impl Inflight {
    /// `tenants` is how many numbers of tenants there may be; 0 where tenancy is disabled.
    pub(crate) fn new(max: usize, tenants: usize) -> Arc<Inflight> {
        let tenants = std::iter::repeat_with(AtomicUsize::default).take(tenants).collect();
        Arc::new(Inflight { used: AtomicUsize::new(0), max, tenants })
    }

    /// Bytes held now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Bytes that `tenant` holds now; `None` where tenancy is disabled.
    fn used_by(&self, tenant: Tenant) -> Option<&AtomicUsize> {
        self.tenants.get(tenant.id as usize)
    }

    fn take(&self, tenant: Tenant, bytes: usize) -> Result<()> {
        let taken = self.used.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if taken <= self.max {
            if let Some(used) = self.used_by(tenant) {
                used.fetch_add(bytes, Relaxed);
            }
            return Ok(());
        }
        self.used.fetch_sub(bytes, Relaxed);
        let error = Error::new(
            ErrorKind::Overloaded,
            format!(
                "requests in flight hold {} of inflight_max_bytes = {}, no room for {bytes} more; try again \
                 later, or raise inflight_max_bytes",
                taken - bytes,
                self.max
            ),
        )
        .with_retry_after(Duration::from_secs(1));
        Err(match self.used_by(tenant) {
            Some(used) => error.with_detail(format!("the tenant holds {} bytes", used.load(Relaxed))),
            None => error,
        })
    }

    fn give_back(&self, tenant: Tenant, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
        if let Some(used) = self.used_by(tenant) {
            used.fetch_sub(bytes, Relaxed);
        }
    }
}

/// Bytes that one request holds; dropping it gives them back.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    inflight: Arc<Inflight>,
    tenant: Tenant,
    bytes: AtomicUsize,
}

impl HeldBytes {
    /// Holds nothing yet.
    pub(crate) fn none(inflight: &Arc<Inflight>, tenant: Tenant) -> HeldBytes {
        HeldBytes { inflight: inflight.clone(), tenant, bytes: AtomicUsize::new(0) }
    }

    /// Holds at least `bytes` in all from now on.
    ///
    /// # Errors
    /// `Overloaded` where there is no room.
    pub(crate) fn at_least(&self, bytes: usize) -> Result<()> {
        self.add(bytes.saturating_sub(self.bytes.load(Relaxed)))
    }

    /// Holds `bytes` more from now on.
    ///
    /// # Errors
    /// `Overloaded` where there is no room.
    pub(crate) fn add(&self, bytes: usize) -> Result<()> {
        if bytes > 0 {
            self.inflight.take(self.tenant, bytes)?;
            self.bytes.fetch_add(bytes, Relaxed);
        }
        Ok(())
    }

    /// Bytes held now.
    pub(crate) fn used(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Moves everything that is held into a guard of its own.
    pub(crate) fn split(&self) -> HeldBytes {
        let bytes = AtomicUsize::new(self.bytes.swap(0, Relaxed));
        HeldBytes { inflight: self.inflight.clone(), tenant: self.tenant, bytes }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        if bytes > 0 {
            self.inflight.give_back(self.tenant, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_on_drop_and_a_refusal_takes_none() {
        let inflight = Inflight::new(100, 0);
        let held = HeldBytes::none(&inflight, Tenant::default());
        held.at_least(60).unwrap();
        held.at_least(50).unwrap();
        let other = HeldBytes::none(&inflight, Tenant::default());
        let error = other.add(41).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert!(error.message().contains("inflight_max_bytes") && error.retry_after().is_some());
        assert_eq!((inflight.used(), error.detail()), (60, None));
        let moved = held.split();
        drop(held);
        assert_eq!(inflight.used(), 60);
        drop(moved);
        assert_eq!(inflight.used(), 0);
        other.add(100).unwrap();
    }

    #[test]
    fn every_tenant_has_an_account_beside_the_total() {
        let inflight = Inflight::new(100, 3);
        let tenant = |id| Tenant { id, weight: 1 };
        let used = |id| inflight.used_by(tenant(id)).unwrap().load(Relaxed);
        let (gold, tin) = (HeldBytes::none(&inflight, tenant(1)), HeldBytes::none(&inflight, tenant(2)));
        gold.add(70).unwrap();
        tin.add(20).unwrap();
        assert_eq!((used(0), used(1), used(2), inflight.used()), (0, 70, 20, 90));
        let refused = tin.add(20).unwrap_err();
        assert_eq!(refused.detail(), Some("the tenant holds 20 bytes"));
        drop((gold.split(), tin));
        assert_eq!((used(1), used(2), inflight.used()), (0, 0, 0));
    }
}

//! What one load of a model version reports.
//!
//! Reads the dispatcher's events, writes the series of the version. Several loads of one version may live beside each
//! other and share its series: counters and histograms add up by themselves; of a gauge each load adds its part, and
//! takes it back when it ends. Knows nothing of labels.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use inferd_dispatcher::{LossReason, ModelObserver, ReplicaCounts};
use prometheus_client::metrics::gauge::Gauge;

use super::series::{ModelSeries, REPLICA_STATES};

/// The part of one load in the series of its version.
#[derive(Debug)]
pub(super) struct LoadObserver {
    series: Arc<ModelSeries>,
    queue_rows: AtomicI64,
    cache_bytes: AtomicI64,
    replicas: Mutex<[i64; REPLICA_STATES.len()]>,
}

impl LoadObserver {
    pub(super) fn new(series: Arc<ModelSeries>) -> LoadObserver {
        LoadObserver {
            series,
            queue_rows: AtomicI64::new(0),
            cache_bytes: AtomicI64::new(0),
            replicas: Mutex::default(),
        }
    }

    fn set_replicas(&self, counts: [i64; REPLICA_STATES.len()]) {
        let mut replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        for ((gauge, before), now) in self.series.replicas.iter().zip(&*replicas).zip(counts) {
            gauge.inc_by(now - before);
        }
        *replicas = counts;
    }
}

/// Replaces a load's part of `gauge`.
fn set(gauge: &Gauge, part: &AtomicI64, now: i64) {
    gauge.inc_by(now - part.swap(now, Relaxed));
}

impl ModelObserver for LoadObserver {
    fn queue_wait(&self, wait: Duration) {
        self.series.queue_wait.observe(wait.as_secs_f64());
    }

    fn executed(&self, execution: Duration, rows: u32) {
        self.series.execution.observe(execution.as_secs_f64());
        self.series.batch_rows.observe(f64::from(rows));
    }

    fn queue_rows(&self, rows: usize) {
        set(&self.series.queue_rows, &self.queue_rows, rows as i64);
    }

    fn replicas(&self, counts: ReplicaCounts) {
        let ReplicaCounts { starting, ready, stalled, quarantine, backoff } = counts;
        self.set_replicas([starting, ready, stalled, quarantine, backoff].map(|count| count as i64));
    }

    fn worker_lost(&self, reason: LossReason) {
        self.series.losses.count(reason.label());
    }

    fn refused(&self, reason: &'static str) {
        self.series.refused(reason);
    }

    fn objective_missed(&self) {
        self.series.objective_missed.inc();
    }

    fn batching(&self, by: &'static str, shared: bool) {
        self.series.batching.verdict(by, shared);
    }

    fn rows_compared(&self, rows: u64, differing: u64) {
        self.series.batching.compared(rows, differing);
    }

    fn cache(&self, hit: bool) {
        let cache = self.series.cache();
        if hit {
            cache.hits.inc()
        } else {
            cache.misses.inc()
        };
    }

    fn cache_bytes(&self, bytes: usize) {
        set(&self.series.cache().bytes, &self.cache_bytes, bytes as i64);
    }
}

impl Drop for LoadObserver {
    fn drop(&mut self) {
        self.set_replicas(Default::default());
        self.series.queue_rows.dec_by(*self.queue_rows.get_mut());
        let bytes = *self.cache_bytes.get_mut();
        if bytes != 0 {
            self.series.cache().bytes.dec_by(bytes);
        }
    }
}

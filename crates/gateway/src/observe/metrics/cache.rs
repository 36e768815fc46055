//! Hits, misses and bytes of caches. Models without a cache have no such series.
//!
//! Reads nothing, hands out handles. Knows nothing of what is kept.

use inferd_types::metrics as names;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::ModelLabels;

/// Of all models.
#[derive(Clone, Debug, Default)]
pub(super) struct CacheFamilies {
    hits: Family<ModelLabels, Counter>,
    misses: Family<ModelLabels, Counter>,
    bytes: Family<ModelLabels, Gauge>,
}

/// The series of one model version.
#[derive(Debug)]
pub(super) struct CacheMetrics {
    pub(super) hits: Counter,
    pub(super) misses: Counter,
    pub(super) bytes: Gauge,
}

impl CacheFamilies {
    pub(super) fn register(&self, registry: &mut Registry) {
        // The encoder adds `_total` to counters by itself.
        let counter = |name: &'static str| name.trim_end_matches("_total");
        registry.register(
            counter(names::CACHE_HITS_TOTAL),
            "Requests answered from the cache, or with the answer of an equal request that was running",
            self.hits.clone(),
        );
        registry.register(
            counter(names::CACHE_MISSES_TOTAL),
            "Requests to a model with a cache that had to be run",
            self.misses.clone(),
        );
        registry.register(names::CACHE_BYTES, "Bytes of answers in the cache", self.bytes.clone());
    }

    pub(super) fn remove(&self, labels: &ModelLabels) {
        self.hits.remove(labels);
        self.misses.remove(labels);
        self.bytes.remove(labels);
    }

    pub(super) fn model(&self, labels: ModelLabels) -> CacheMetrics {
        CacheMetrics {
            hits: self.hits.get_or_create_owned(&labels),
            misses: self.misses.get_or_create_owned(&labels),
            bytes: self.bytes.get_or_create_owned(&labels),
        }
    }
}

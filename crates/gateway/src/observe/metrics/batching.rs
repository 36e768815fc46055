//! Whether requests of a model share runs, what decided it, and what comparing rows has shown.
//!
//! Reads nothing, hands out handles. Knows nothing of how rows are compared.

use std::sync::{Mutex, PoisonError};

use inferd_types::metrics as names;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::ModelLabels;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VerdictLabels {
    model: String,
    version: u64,
    by: &'static str,
    state: &'static str,
}

/// Of all models.
#[derive(Clone, Debug, Default)]
pub(super) struct BatchingFamilies {
    verdicts: Family<VerdictLabels, Gauge>,
    compared: Family<ModelLabels, Counter>,
    differences: Family<ModelLabels, Counter>,
}

/// The series of one model version, each made when it is first needed.
#[derive(Debug)]
pub(super) struct BatchingMetrics {
    families: BatchingFamilies,
    model: ModelLabels,
    /// The present verdict.
    current: Mutex<Option<VerdictLabels>>,
}

impl BatchingFamilies {
    pub(super) fn register(&self, registry: &mut Registry) {
        // The encoder adds `_total` to counters by itself.
        let counter = |name: &'static str| name.trim_end_matches("_total");
        registry.register(
            names::BATCHING_VERDICT,
            "1 for whether requests share runs (server, alone), by who decided",
            self.verdicts.clone(),
        );
        registry.register(
            counter(names::BATCHING_ROWS_COMPARED_TOTAL),
            "Rows that came and were compared, alone and in company",
            self.compared.clone(),
        );
        registry.register(
            counter(names::BATCHING_DIFFERENCES_TOTAL),
            "Requests whose answers company changed",
            self.differences.clone(),
        );
    }

    pub(super) fn model(&self, model: ModelLabels) -> BatchingMetrics {
        BatchingMetrics { families: self.clone(), model, current: Mutex::default() }
    }
}

impl BatchingMetrics {
    /// Sets the verdict; the series of the verdict before it is removed.
    pub(super) fn verdict(&self, by: &'static str, shared: bool) {
        let state = if shared { "shared" } else { "alone" };
        let ModelLabels { model, version } = self.model.clone();
        let labels = VerdictLabels { model, version, by, state };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = current.take() {
            self.families.verdicts.remove(&before);
        }
        self.families.verdicts.get_or_create_owned(&labels).set(1);
        *current = Some(labels);
    }

    pub(super) fn compared(&self, rows: u64, differing: u64) {
        self.families.compared.get_or_create_owned(&self.model).inc_by(rows);
        self.families.differences.get_or_create_owned(&self.model).inc_by(differing);
    }

    pub(super) fn remove_series(&self) {
        if let Some(verdict) = &*self.current.lock().unwrap_or_else(PoisonError::into_inner) {
            self.families.verdicts.remove(verdict);
        }
        self.families.compared.remove(&self.model);
        self.families.differences.remove(&self.model);
    }
}

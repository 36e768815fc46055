//! Every family of series: its name, its help, its buckets.
//!
//! Reads nothing, hands out families. Knows nothing of which models there are.

use inferd_types::metrics as names;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::batching::BatchingFamilies;
use super::cache::CacheFamilies;
use super::labels::{ModelLabels, OutcomeLabels, ReasonLabels, StateLabels, TenantLabels};

/// Times from 100 µs (the fastest answers take about that) to 60 s (far past any default limit), three buckets a
/// decade: fine enough to read a p99 off against an objective, few enough for many models.
const TIME_BUCKETS: [f64; 18] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0,
    60.0,
];

/// Batch sizes double; that is also how profiles are taken.
const ROW_BUCKETS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

pub(super) type Histograms = Family<ModelLabels, Histogram, fn() -> Histogram>;

pub(super) fn times() -> Histogram {
    Histogram::new(TIME_BUCKETS)
}

pub(super) fn rows() -> Histogram {
    Histogram::new(ROW_BUCKETS)
}

#[derive(Debug)]
pub(super) struct Families {
    pub(super) requests: Family<OutcomeLabels, Counter>,
    pub(super) refusals: Family<ReasonLabels, Counter>,
    pub(super) losses: Family<ReasonLabels, Counter>,
    pub(super) replicas: Family<StateLabels, Gauge>,
    pub(super) duration: Histograms,
    pub(super) queue_wait: Histograms,
    pub(super) execution: Histograms,
    pub(super) batch_rows: Histograms,
    pub(super) queue_rows: Family<ModelLabels, Gauge>,
    pub(super) objective_missed: Family<ModelLabels, Counter>,
    pub(super) tenants: Family<TenantLabels, Counter>,
    pub(super) cache: CacheFamilies,
    pub(super) batching: BatchingFamilies,
}

impl Families {
    pub(super) fn new() -> Families {
        Families {
            requests: Family::default(),
            refusals: Family::default(),
            losses: Family::default(),
            replicas: Family::default(),
            duration: Family::new_with_constructor(times),
            queue_wait: Family::new_with_constructor(times),
            execution: Family::new_with_constructor(times),
            batch_rows: Family::new_with_constructor(rows),
            queue_rows: Family::default(),
            objective_missed: Family::default(),
            tenants: Family::default(),
            cache: CacheFamilies::default(),
            batching: BatchingFamilies::default(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        // The encoder adds `_total` to counters by itself.
        let counter = |name: &'static str| name.trim_end_matches("_total");
        registry.register(
            counter(names::REQUESTS_TOTAL),
            "Inference requests by model, version and outcome (ok or the kind of error)",
            self.requests.clone(),
        );
        registry.register(
            counter(names::REFUSALS_TOTAL),
            "Requests refused before they ran, by reason",
            self.refusals.clone(),
        );
        registry.register(
            counter(names::WORKER_LOSSES_TOTAL),
            "Unexpected worker exits, by reason",
            self.losses.clone(),
        );
        registry.register(
            counter(names::OBJECTIVE_MISSED_TOTAL),
            "Requests answered later than the model's objective",
            self.objective_missed.clone(),
        );
        registry.register(
            counter(names::TENANT_REQUESTS_TOTAL),
            "Inference requests of the tenants that the settings name, by outcome",
            self.tenants.clone(),
        );
        self.cache.register(registry);
        self.batching.register(registry);
        registry.register(names::REPLICAS, "Replicas by state", self.replicas.clone());
        registry.register(names::QUEUE_ROWS, "Rows waiting in the queue", self.queue_rows.clone());
        registry.register(
            names::REQUEST_DURATION_SECONDS,
            "From the first byte of a request to its answer",
            self.duration.clone(),
        );
        registry.register(
            names::QUEUE_WAIT_SECONDS,
            "From admission until a replica took the request",
            self.queue_wait.clone(),
        );
        registry.register(names::EXECUTION_DURATION_SECONDS, "One run of a batch", self.execution.clone());
        registry.register(names::BATCH_ROWS, "Rows that ran together", self.batch_rows.clone());
    }
}

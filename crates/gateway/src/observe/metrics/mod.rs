//! The metrics that Prometheus reads.
//!
//! Reads what the gateway and the dispatcher report, hands out one text. Knows nothing of why a figure is what it
//! is. Handles are looked up by label once per model, never in a request's way.

mod batching;
mod cache;
mod labels;
mod process;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use inferd_dispatcher::{LossReason, ModelObserver, Observer, ReplicaCounts, ReplicaState};
use inferd_types::{ErrorKind, metrics as names};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use self::batching::{BatchingFamilies, BatchingMetrics};
use self::cache::{CacheFamilies, CacheMetrics};
use self::labels::ModelLabels;
use crate::admit::inflight::Inflight;
use crate::observe::logging::LogDrops;

/// Times from 100 µs (the fastest answers take about that) to 60 s (far past any default limit), three buckets a
/// decade: fine enough to read a p99 off against an objective, few enough for many models.
const TIME_BUCKETS: [f64; 18] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0,
    60.0,
];

/// Batch sizes double; that is also how profiles are taken.
const ROW_BUCKETS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    model: String,
    version: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    model: String,
    version: String,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    model: String,
    version: u64,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TenantLabels {
    tenant: String,
    outcome: &'static str,
}

type Histograms = Family<ModelLabels, Histogram, fn() -> Histogram>;

fn times() -> Histogram {
    Histogram::new(TIME_BUCKETS)
}

fn rows() -> Histogram {
    Histogram::new(ROW_BUCKETS)
}

/// All metrics of the process. Made first: the dispatcher's registry and [`crate::serve`] both report to it.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    families: Families,
    models: ArcSwap<Models>,
    /// Requests that never reached a model: an unknown one, a body that is too large, no room.
    unrouted: Arc<ModelMetrics>,
}

/// By name, then version: found without building a key.
type Models = HashMap<String, Vec<(u64, Arc<ModelMetrics>)>>;

#[derive(Debug)]
struct Families {
    requests: Family<OutcomeLabels, Counter>,
    refusals: Family<ReasonLabels, Counter>,
    losses: Family<ReasonLabels, Counter>,
    replicas: Family<StateLabels, Gauge>,
    duration: Histograms,
    queue_wait: Histograms,
    execution: Histograms,
    batch_rows: Histograms,
    queue_rows: Family<ModelLabels, Gauge>,
    objective_missed: Family<ModelLabels, Counter>,
    tenants: Family<TenantLabels, Counter>,
    cache: CacheFamilies,
    batching: BatchingFamilies,
}

impl Families {
    fn new() -> Families {
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

    fn register(&self, registry: &mut Registry) {
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

    /// The handles of one model, and with them its series; of no model where `version` is `None`.
    fn model(&self, name: &str, version: Option<u64>) -> ModelMetrics {
        let model = || name.to_owned();
        let labels = ModelLabels { model: model(), version: version.unwrap_or_default() };
        let state = |state: ReplicaState| {
            let labels = StateLabels { model: model(), version: labels.version, state: state.label() };
            version.map_or_else(Gauge::default, |_| self.replicas.get_or_create_owned(&labels))
        };
        let histogram = |family: &Histograms, make: fn() -> Histogram| {
            version.map_or_else(make, |_| family.get_or_create_owned(&labels))
        };
        ModelMetrics {
            requests: self.requests.clone(),
            refusals: self.refusals.clone(),
            losses: self.losses.clone(),
            cache_families: self.cache.clone(),
            cache: OnceLock::new(),
            batching: self.batching.model(labels.clone()),
            model: model(),
            version: version.map(|version| version.to_string()).unwrap_or_default(),
            outcomes: Default::default(),
            duration: histogram(&self.duration, times),
            queue_wait: histogram(&self.queue_wait, times),
            execution: histogram(&self.execution, times),
            batch_rows: histogram(&self.batch_rows, rows),
            queue_rows: version.map_or_else(Gauge::default, |_| self.queue_rows.get_or_create_owned(&labels)),
            objective_missed: version
                .map_or_else(Counter::default, |_| self.objective_missed.get_or_create_owned(&labels)),
            starting: state(ReplicaState::Starting),
            ready: state(ReplicaState::Ready),
            stalled: state(ReplicaState::Stalled),
            quarantine: state(ReplicaState::Quarantine),
            backoff: state(ReplicaState::Backoff),
        }
    }
}

impl Metrics {
    /// Metrics of nothing yet.
    pub fn new() -> Arc<Metrics> {
        let families = Families::new();
        let mut registry = Registry::default();
        families.register(&mut registry);
        registry.register_collector(Box::new(process::Process));
        let unrouted = Arc::new(families.model("", None));
        Arc::new(Metrics { registry: Mutex::new(registry), families, models: ArcSwap::default(), unrouted })
    }

    /// Shows `inflight` from now on.
    pub(crate) fn watch_inflight(&self, inflight: Arc<Inflight>) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register_collector(Box::new(process::InflightBytes(inflight)));
    }

    /// Shows what the log dropped from now on.
    pub fn watch_log(&self, drops: Arc<LogDrops>) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register_collector(Box::new(process::LogLines(drops)));
    }

    /// Everything in the text format of OpenMetrics.
    pub(crate) fn encode(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::with_capacity(8 * 1024);
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a String takes every write");
        text
    }

    /// The handles of one model version.
    pub(crate) fn model(&self, name: &str, version: u64) -> Arc<ModelMetrics> {
        find(&self.models.load(), name, version).unwrap_or_else(|| self.add(name, version))
    }

    /// What is counted where no model is known. Names that only a client has used never become labels.
    pub(crate) fn unrouted(&self) -> &Arc<ModelMetrics> {
        &self.unrouted
    }

    /// Counts one request of `tenant`, which must be one that the settings name.
    pub(crate) fn tenant_answered(&self, tenant: &str, outcome: Result<(), ErrorKind>) {
        let outcome = outcome.map_or_else(ErrorKind::label, |()| "ok");
        self.families.tenants.get_or_create_owned(&TenantLabels { tenant: tenant.to_owned(), outcome }).inc();
    }

    fn add(&self, name: &str, version: u64) -> Arc<ModelMetrics> {
        self.models.rcu(|models| {
            let mut models = Models::clone(models);
            if find(&models, name, version).is_none() {
                let added = Arc::new(self.families.model(name, Some(version)));
                models.entry(name.to_owned()).or_default().push((version, added));
            }
            models
        });
        find(&self.models.load(), name, version).expect("it was added just now and nothing is ever removed")
    }
}

fn find(models: &Models, name: &str, version: u64) -> Option<Arc<ModelMetrics>> {
    models.get(name)?.iter().find(|(of, _)| *of == version).map(|(_, metrics)| metrics.clone())
}

impl Observer for Metrics {
    fn model(&self, model: &str, version: u64) -> Arc<dyn ModelObserver> {
        Metrics::model(self, model, version)
    }
}

/// The handles of one model version.
#[derive(Debug)]
pub(crate) struct ModelMetrics {
    requests: Family<OutcomeLabels, Counter>,
    refusals: Family<ReasonLabels, Counter>,
    losses: Family<ReasonLabels, Counter>,
    cache_families: CacheFamilies,
    cache: OnceLock<CacheMetrics>,
    batching: BatchingMetrics,
    model: String,
    version: String,
    /// Made when first needed: a model has some of the outcomes, never all. The last one is `ok`.
    outcomes: [OnceLock<Counter<u64, AtomicU64>>; ErrorKind::ALL.len() + 1],
    duration: Histogram,
    queue_wait: Histogram,
    execution: Histogram,
    batch_rows: Histogram,
    queue_rows: Gauge,
    objective_missed: Counter,
    starting: Gauge,
    ready: Gauge,
    stalled: Gauge,
    quarantine: Gauge,
    backoff: Gauge,
}

impl ModelMetrics {
    /// Counts one request that took `duration` from its first byte to its answer.
    pub(crate) fn answered(&self, outcome: Result<(), ErrorKind>, duration: Duration) {
        let (index, label) = match outcome {
            Ok(()) => (ErrorKind::ALL.len(), "ok"),
            Err(kind) => (kind as usize, kind.label()),
        };
        let counter = self.outcomes[index].get_or_init(|| {
            self.requests.get_or_create_owned(&OutcomeLabels {
                model: self.model.clone(),
                version: self.version.clone(),
                outcome: label,
            })
        });
        counter.inc();
        self.duration.observe(duration.as_secs_f64());
    }

    /// Counts one request that was refused before it ran.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create_owned(&self.reason(reason)).inc();
    }

    fn cache(&self) -> &CacheMetrics {
        self.cache.get_or_init(|| {
            let version = self.version.parse().unwrap_or_default();
            self.cache_families.model(ModelLabels { model: self.model.clone(), version })
        })
    }

    fn reason(&self, reason: &'static str) -> ReasonLabels {
        ReasonLabels { model: self.model.clone(), version: self.version.clone(), reason }
    }
}

impl ModelObserver for ModelMetrics {
    fn queue_wait(&self, wait: Duration) {
        self.queue_wait.observe(wait.as_secs_f64());
    }

    fn executed(&self, execution: Duration, rows: u32) {
        self.execution.observe(execution.as_secs_f64());
        self.batch_rows.observe(f64::from(rows));
    }

    fn queue_rows(&self, rows: usize) {
        self.queue_rows.set(rows as i64);
    }

    fn replicas(&self, counts: ReplicaCounts) {
        self.starting.set(counts.starting as i64);
        self.ready.set(counts.ready as i64);
        self.stalled.set(counts.stalled as i64);
        self.quarantine.set(counts.quarantine as i64);
        self.backoff.set(counts.backoff as i64);
    }

    fn worker_lost(&self, reason: LossReason) {
        self.losses.get_or_create_owned(&self.reason(reason.label())).inc();
    }

    fn refused(&self, reason: &'static str) {
        ModelMetrics::refused(self, reason);
    }

    fn objective_missed(&self) {
        self.objective_missed.inc();
    }

    fn batching(&self, by: &'static str, shared: bool) {
        self.batching.verdict(by, shared);
    }

    fn rows_compared(&self, rows: u64, differing: u64) {
        self.batching.compared(rows, differing);
    }

    fn cache(&self, hit: bool) {
        let cache = ModelMetrics::cache(self);
        if hit {
            cache.hits.inc()
        } else {
            cache.misses.inc()
        };
    }

    fn cache_bytes(&self, bytes: usize) {
        ModelMetrics::cache(self).bytes.set(bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_label_is_in_the_text() {
        let metrics = Metrics::new();
        metrics.watch_inflight(Inflight::new(10, 0));
        metrics.watch_log(Arc::default());
        let model = metrics.model("fraud", 3);
        model.answered(Ok(()), Duration::from_millis(3));
        model.answered(Err(ErrorKind::Overloaded), Duration::from_millis(3));
        ModelObserver::refused(&*model, "overloaded");
        model.queue_wait(Duration::from_millis(1));
        model.executed(Duration::from_millis(2), 4);
        model.queue_rows(7);
        model.replicas(ReplicaCounts { ready: 2, ..ReplicaCounts::default() });
        model.worker_lost(LossReason::Signal);
        model.objective_missed();
        ModelObserver::cache(&*model, true);
        model.batching("probe", true);
        model.batching("traffic", false);
        model.rows_compared(12, 1);
        model.cache_bytes(77);
        metrics.model("uncached", 1);
        metrics.unrouted().answered(Err(ErrorKind::NotFound), Duration::ZERO);
        metrics.tenant_answered("gold", Ok(()));
        let text = metrics.encode();
        for line in [
            r#"inferd_requests_total{model="fraud",version="3",outcome="ok"} 1"#,
            r#"inferd_requests_total{model="fraud",version="3",outcome="overloaded"} 1"#,
            r#"inferd_requests_total{model="",version="",outcome="not_found"} 1"#,
            r#"inferd_refusals_total{model="fraud",version="3",reason="overloaded"} 1"#,
            r#"inferd_worker_losses_total{model="fraud",version="3",reason="signal"} 1"#,
            r#"inferd_objective_missed_total{model="fraud",version="3"} 1"#,
            r#"inferd_tenant_requests_total{tenant="gold",outcome="ok"} 1"#,
            r#"inferd_queue_rows{model="fraud",version="3"} 7"#,
            r#"inferd_replicas{model="fraud",version="3",state="ready"} 2"#,
            r#"inferd_request_duration_seconds_count{model="fraud",version="3"} 2"#,
            r#"inferd_queue_wait_seconds_count{model="fraud",version="3"} 1"#,
            r#"inferd_execution_duration_seconds_bucket{le="0.002",model="fraud",version="3"} 1"#,
            r#"inferd_batch_rows_bucket{le="4.0",model="fraud",version="3"} 1"#,
            r#"inferd_cache_hits_total{model="fraud",version="3"} 1"#,
            r#"inferd_cache_misses_total{model="fraud",version="3"} 0"#,
            r#"inferd_cache_bytes{model="fraud",version="3"} 77"#,
            r#"inferd_batching_verdict{model="fraud",version="3",by="traffic",state="alone"} 1"#,
            r#"inferd_batching_rows_compared_total{model="fraud",version="3"} 12"#,
            r#"inferd_batching_differences_total{model="fraud",version="3"} 1"#,
            "inferd_inflight_bytes 0",
            r#"inferd_log_lines_dropped_total{reason="blocked"} 0"#,
            "process_resident_memory_bytes ",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains(r#"by="probe""#), "{text}");
        assert!(!text.contains(r#"inferd_cache_bytes{model="uncached""#), "{text}");
    }
}

//! The series of each model version, from its first load to the end of its last.
//!
//! Reads what the gateway and the dispatcher report, writes series of [`Families`]. Handles are looked up by label
//! once per model version, never in a request's way. Knows nothing of why a figure is what it is.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use inferd_dispatcher::ReplicaState;
use inferd_types::ErrorKind;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::batching::BatchingMetrics;
use super::cache::CacheMetrics;
use super::families::{Families, Histograms, rows, times};
use super::labels::{ModelLabels, OutcomeLabels, ReasonLabels, StateLabels};

/// By name, then version: found without building a key.
type Models = HashMap<String, Vec<(u64, Weak<ModelSeries>)>>;

/// The series of all model versions. They live as long as somebody holds them: a load, or a request.
#[derive(Debug)]
pub(super) struct SeriesTable {
    pub(super) families: Families,
    models: ArcSwap<Models>,
    /// HeldBytes while series are added or removed.
    changing: Mutex<()>,
}

impl SeriesTable {
    pub(super) fn new(families: Families) -> Arc<SeriesTable> {
        Arc::new(SeriesTable { families, models: ArcSwap::default(), changing: Mutex::default() })
    }

    /// The series of requests that never reached a model.
    pub(super) fn unrouted(self: &Arc<Self>) -> Arc<ModelSeries> {
        Arc::new(ModelSeries::new(self, "", None))
    }

    /// The series of one model version.
    pub(super) fn model(self: &Arc<Self>, name: &str, version: u64) -> Arc<ModelSeries> {
        find(&self.models.load(), name, version).unwrap_or_else(|| self.add(name, version))
    }

    fn add(self: &Arc<Self>, name: &str, version: u64) -> Arc<ModelSeries> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut models = Models::clone(&self.models.load());
        if let Some(found) = find(&models, name, version) {
            return found;
        }
        let added = Arc::new(ModelSeries::new(self, name, Some(version)));
        let versions = models.entry(name.to_owned()).or_default();
        versions.retain(|(of, _)| *of != version);
        versions.push((version, Arc::downgrade(&added)));
        self.models.store(Arc::new(models));
        added
    }

    /// Removes the series of `ended`, which nobody holds any more.
    fn remove(&self, ended: &ModelSeries, version: u64) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut models = Models::clone(&self.models.load());
        let Some(versions) = models.get_mut(&ended.model) else { return };
        let before = versions.len();
        versions.retain(|(of, series)| *of != version || !std::ptr::eq(series.as_ptr(), ended));
        if versions.len() == before {
            // A new load came in between, and writes to the same series.
            return;
        }
        if versions.is_empty() {
            models.remove(&ended.model);
        }
        self.models.store(Arc::new(models));
        ended.remove_series(&self.families, version);
    }
}

fn find(models: &Models, name: &str, version: u64) -> Option<Arc<ModelSeries>> {
    models.get(name)?.iter().find(|(of, _)| *of == version)?.1.upgrade()
}

/// The series of one model version, shared by its loads. The last holder removes them.
#[derive(Debug)]
pub(crate) struct ModelSeries {
    table: Arc<SeriesTable>,
    cache: OnceLock<CacheMetrics>,
    pub(super) batching: BatchingMetrics,
    model: String,
    /// `None`: of no model.
    number: Option<u64>,
    version: String,
    /// Made when first needed: a model has some of the outcomes, never all. The last one is `ok`.
    outcomes: [OnceLock<Counter<u64, AtomicU64>>; ErrorKind::ALL.len() + 1],
    refusals: ByReason,
    pub(super) losses: ByReason,
    duration: Histogram,
    pub(super) queue_wait: Histogram,
    pub(super) execution: Histogram,
    pub(super) batch_rows: Histogram,
    pub(super) queue_rows: Gauge,
    pub(super) objective_missed: Counter,
    /// In the order of [`REPLICA_STATES`].
    pub(super) replicas: [Gauge; REPLICA_STATES.len()],
}

pub(super) const REPLICA_STATES: [ReplicaState; 5] = [
    ReplicaState::Starting,
    ReplicaState::Ready,
    ReplicaState::Stalled,
    ReplicaState::Quarantine,
    ReplicaState::Backoff,
];

impl ModelSeries {
    fn new(table: &Arc<SeriesTable>, name: &str, number: Option<u64>) -> ModelSeries {
        let families = &table.families;
        let labels = ModelLabels { model: name.to_owned(), version: number.unwrap_or_default() };
        let version = number.map(|version| version.to_string()).unwrap_or_default();
        let histogram = |family: &Histograms, make: fn() -> Histogram| {
            number.map_or_else(make, |_| family.get_or_create_owned(&labels))
        };
        ModelSeries {
            table: table.clone(),
            cache: OnceLock::new(),
            batching: families.batching.model(labels.clone()),
            model: name.to_owned(),
            number,
            outcomes: Default::default(),
            refusals: ByReason::new(&families.refusals, name, &version),
            losses: ByReason::new(&families.losses, name, &version),
            version,
            duration: histogram(&families.duration, times),
            queue_wait: histogram(&families.queue_wait, times),
            execution: histogram(&families.execution, times),
            batch_rows: histogram(&families.batch_rows, rows),
            queue_rows: number
                .map_or_else(Gauge::default, |_| families.queue_rows.get_or_create_owned(&labels)),
            objective_missed: number
                .map_or_else(Counter::default, |_| families.objective_missed.get_or_create_owned(&labels)),
            replicas: REPLICA_STATES.map(|state| {
                let labels = state_labels(name, labels.version, state);
                number.map_or_else(Gauge::default, |_| families.replicas.get_or_create_owned(&labels))
            }),
        }
    }

    /// Counts one request that took `duration` from its first byte to its answer.
    pub(crate) fn answered(&self, outcome: Result<(), ErrorKind>, duration: Duration) {
        let (index, label) = match outcome {
            Ok(()) => (ErrorKind::ALL.len(), "ok"),
            Err(kind) => (kind as usize, kind.label()),
        };
        let requests = &self.table.families.requests;
        self.outcomes[index].get_or_init(|| requests.get_or_create_owned(&self.outcome(label))).inc();
        self.duration.observe(duration.as_secs_f64());
    }

    /// Counts one request that was refused before it ran.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refusals.count(reason);
    }

    pub(super) fn cache(&self) -> &CacheMetrics {
        self.cache.get_or_init(|| {
            let version = self.number.unwrap_or_default();
            self.table.families.cache.model(ModelLabels { model: self.model.clone(), version })
        })
    }

    fn outcome(&self, outcome: &'static str) -> OutcomeLabels {
        OutcomeLabels { model: self.model.clone(), version: self.version.clone(), outcome }
    }

    fn remove_series(&self, families: &Families, version: u64) {
        let labels = ModelLabels { model: self.model.clone(), version };
        for outcome in ErrorKind::ALL.iter().map(|kind| kind.label()).chain(["ok"]) {
            families.requests.remove(&self.outcome(outcome));
        }
        self.refusals.remove_series();
        self.losses.remove_series();
        for family in [&families.duration, &families.queue_wait, &families.execution, &families.batch_rows] {
            family.remove(&labels);
        }
        families.queue_rows.remove(&labels);
        families.objective_missed.remove(&labels);
        for state in REPLICA_STATES {
            families.replicas.remove(&state_labels(&self.model, version, state));
        }
        families.cache.remove(&labels);
        self.batching.remove_series();
    }
}

impl Drop for ModelSeries {
    fn drop(&mut self) {
        if let Some(version) = self.number {
            self.table.clone().remove(self, version);
        }
    }
}

fn state_labels(model: &str, version: u64, state: ReplicaState) -> StateLabels {
    StateLabels { model: model.to_owned(), version, state: state.label() }
}

/// Counters of one model version by reason, each made when first needed.
#[derive(Debug)]
pub(super) struct ByReason {
    family: Family<ReasonLabels, Counter>,
    model: String,
    version: String,
    counters: Mutex<Vec<(&'static str, Counter)>>,
}

impl ByReason {
    fn new(family: &Family<ReasonLabels, Counter>, model: &str, version: &str) -> ByReason {
        ByReason {
            family: family.clone(),
            model: model.to_owned(),
            version: version.to_owned(),
            counters: Mutex::default(),
        }
    }

    pub(super) fn count(&self, reason: &'static str) {
        // The list is valid after every push.
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, counter)) = counters.iter().find(|(of, _)| *of == reason) {
            counter.inc();
            return;
        }
        let counter = self.family.get_or_create_owned(&self.labels(reason));
        counter.inc();
        counters.push((reason, counter));
    }

    fn remove_series(&self) {
        for (reason, _) in &*self.counters.lock().unwrap_or_else(PoisonError::into_inner) {
            self.family.remove(&self.labels(reason));
        }
    }

    fn labels(&self, reason: &'static str) -> ReasonLabels {
        ReasonLabels { model: self.model.clone(), version: self.version.clone(), reason }
    }
}

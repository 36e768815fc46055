//! What others may watch while a model serves.
//!
//! Reads nothing, hands each figure to the traits' implementation (the gateway, with Prometheus).
//! Knows nothing of metric names or label sets: those are looked up once per model, not once per request.

use std::sync::Arc;
use std::time::Duration;

/// Why a worker ended without being asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LossReason {
    /// It left by itself.
    Exit,
    /// A signal ended it.
    Signal,
    /// It ran longer than its model ever does and was killed.
    Hang,
}

impl LossReason {
    /// The value of metric and log labels.
    pub const fn label(self) -> &'static str {
        match self {
            LossReason::Exit => "exit",
            LossReason::Signal => "signal",
            LossReason::Hang => "hang",
        }
    }
}

/// How many replicas of a model are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaCounts {
    /// Loading or warming up.
    pub starting: usize,
    /// Serving.
    pub ready: usize,
    /// In a run that takes far longer than usual.
    pub stalled: usize,
    /// Running suspects only.
    pub quarantine: usize,
    /// Waiting before the next start.
    pub backoff: usize,
}

/// Makes one [`ModelObserver`] for each model version that is loaded.
pub trait Observer: Send + Sync {
    /// The observer of `model` in `version`. Called once for each load.
    fn model(&self, model: &str, version: u64) -> Arc<dyn ModelObserver>;
}

/// Told what happens in one model version. Every method is called on the model's task (those of the
/// cache on the caller's): it must be quick.
pub trait ModelObserver: Send + Sync {
    /// One request waited this long from admission until a replica took it.
    fn queue_wait(&self, _wait: Duration) {}
    /// One batch of `rows` rows ran this long, as its worker measured it.
    fn executed(&self, _execution: Duration, _rows: u32) {}
    /// So many rows wait now.
    fn queue_rows(&self, _rows: usize) {}
    /// The replicas are in these states now.
    fn replicas(&self, _counts: ReplicaCounts) {}
    /// A worker ended without being asked to.
    fn worker_lost(&self, _reason: LossReason) {}
    /// A request was answered with an error before it ran, for this reason: a label of `scheduler::Refusal`
    /// (`queue_rows`, `predicted_late`, `timed_out` …), or `inbox_full`, `not_ready`, `draining`.
    fn refused(&self, _reason: &'static str) {}
    /// A request was answered later than the model's objective allows.
    fn objective_missed(&self) {}
    /// Requests share runs, or not, as this decided (a label of `types::Decider`). Told when the model is loaded, and again
    /// when it changes.
    fn batching(&self, _by: &'static str, _shared: bool) {}
    /// So many rows that came were compared, run alone and together, and so many requests differed.
    fn rows_compared(&self, _rows: u64, _differing: u64) {}
    /// A request to a model with a cache was answered from it, or had to be run.
    fn cache(&self, _hit: bool) {}
    /// The model's cache takes so many bytes now. Told once more as it is emptied; never of a model without one.
    fn cache_bytes(&self, _bytes: usize) {}
}

/// Watches nothing.
impl Observer for () {
    fn model(&self, _model: &str, _version: u64) -> Arc<dyn ModelObserver> {
        Arc::new(())
    }
}

impl ModelObserver for () {}

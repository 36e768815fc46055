//! The cheap handle on one model version.
//!
//! Reads what the model's task publishes, hands requests and commands to it.
//! Knows nothing of batches, replicas' memory or retries.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use inferd_types::settings::{LoadedModel, ModelSettings};
use inferd_types::{Error, ErrorKind, InferRequest, Signature};
use tokio::sync::oneshot;

use crate::inbox::{Command, Inbox, Refused};
use crate::observer::ModelObserver;
use crate::statistics::ModelStatistics;
use crate::ticket::Ticket;

/// Whether a model version serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// Its first replicas start.
    Loading,
    /// Every replica was ready once, and it serves (perhaps after a restart that is under way).
    Ready,
    /// No replica is ready and the latest start failed, for this reason.
    Unavailable(String),
    /// It admits nothing more.
    Draining,
}

/// What one replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaState {
    /// Loading or warming up.
    Starting,
    /// Serving.
    Ready,
    /// Running suspects only.
    Quarantine,
    /// Waiting before the next start.
    Backoff,
    /// Ending, as it was asked to.
    Closing,
}

impl ReplicaState {
    /// The value of metric and log labels.
    pub const fn label(self) -> &'static str {
        match self {
            ReplicaState::Starting => "starting",
            ReplicaState::Ready => "ready",
            ReplicaState::Quarantine => "quarantine",
            ReplicaState::Backoff => "backoff",
            ReplicaState::Closing => "closing",
        }
    }
}

/// One replica as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Its place among the model's replicas; a restarted one keeps it.
    pub index: usize,
    /// The worker process, where there is one.
    pub pid: Option<u32>,
    /// What it does.
    pub state: ReplicaState,
}

const LOADING: u8 = 0;
const READY: u8 = 1;
const UNAVAILABLE: u8 = 2;
const DRAINING: u8 = 3;

/// What the task publishes and handles read.
pub(crate) struct Shared {
    pub(crate) settings: ModelSettings,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) observer: Arc<dyn ModelObserver>,
    /// The state as a number, so that the hot path reads one byte.
    state: AtomicU8,
    reason: ArcSwap<String>,
    loaded: OnceLock<(Arc<Signature>, BTreeMap<String, String>)>,
    statistics: Mutex<ModelStatistics>,
    pub(crate) replicas: ArcSwap<Vec<ReplicaStatus>>,
    pub(crate) profile: ArcSwap<Vec<(u32, f64)>>,
}

impl Shared {
    pub(crate) fn new(settings: ModelSettings, observer: Arc<dyn ModelObserver>) -> Shared {
        // The queue's own bound is in the scheduler; what waits here is what one turn of the reactor brings.
        let inbox = Arc::new(Inbox::new(settings.queue_rows_max.max(64)));
        Shared {
            profile: ArcSwap::from_pointee(settings.profile.clone()),
            settings,
            inbox,
            observer,
            state: AtomicU8::new(LOADING),
            reason: ArcSwap::default(),
            loaded: OnceLock::new(),
            statistics: Mutex::default(),
            replicas: ArcSwap::default(),
        }
    }

    pub(crate) fn state(&self) -> ModelState {
        match self.state.load(Ordering::Acquire) {
            LOADING => ModelState::Loading,
            READY => ModelState::Ready,
            UNAVAILABLE => ModelState::Unavailable(self.reason.load().to_string()),
            _ => ModelState::Draining,
        }
    }

    pub(crate) fn set_state(&self, state: ModelState) {
        let number = match state {
            ModelState::Loading => LOADING,
            ModelState::Ready => READY,
            ModelState::Unavailable(reason) => {
                self.reason.store(Arc::new(reason));
                UNAVAILABLE
            }
            ModelState::Draining => DRAINING,
        };
        self.state.store(number, Ordering::Release);
    }

    /// Keeps what the first worker told; a later one must tell the same.
    pub(crate) fn set_loaded(&self, loaded: LoadedModel) {
        let _told_before = self.loaded.set((Arc::new(loaded.signature), loaded.facts));
    }

    pub(crate) fn signature(&self) -> Option<&Arc<Signature>> {
        self.loaded.get().map(|(signature, _)| signature)
    }

    pub(crate) fn statistics(&self) -> MutexGuard<'_, ModelStatistics> {
        // Counters are valid after every single addition.
        self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nothing is admitted now; `None` where it is.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let name = &self.settings.name;
        match self.state.load(Ordering::Acquire) {
            READY => None,
            LOADING => Some(Error::new(
                ErrorKind::NotReady,
                format!("model '{name}' is loading; try again when it is ready"),
            )),
            UNAVAILABLE => Some(Error::new(
                ErrorKind::NotReady,
                format!("model '{name}' has no replica that runs; one is being started again, try later"),
            )),
            _ => Some(draining(name)),
        }
    }
}

pub(crate) fn draining(name: &str) -> Error {
    Error::new(ErrorKind::Draining, format!("model '{name}' is being stopped; try again later or elsewhere"))
}

/// One loaded (or loading) model version. Cheap to clone; every clone is the same model.
#[derive(Clone)]
pub struct ModelHandle {
    pub(crate) shared: Arc<Shared>,
}

impl ModelHandle {
    /// The name in every path.
    pub fn name(&self) -> &str {
        &self.shared.settings.name
    }

    /// The version.
    pub fn version(&self) -> u64 {
        self.shared.settings.version
    }

    /// The settings that it was loaded with.
    pub fn settings(&self) -> &ModelSettings {
        &self.shared.settings
    }

    /// What it takes and gives; `None` until its first worker has told.
    pub fn signature(&self) -> Option<Arc<Signature>> {
        self.shared.signature().cloned()
    }

    /// Facts for the start-up table; empty until its first worker has told.
    pub fn facts(&self) -> BTreeMap<String, String> {
        self.shared.loaded.get().map(|(_, facts)| facts.clone()).unwrap_or_default()
    }

    /// Whether it serves.
    pub fn state(&self) -> ModelState {
        self.shared.state()
    }

    /// Hands `request` to the model. The inputs must be those of the signature, in its order.
    ///
    /// Never waits: where the model does not admit it, the ticket is an error already.
    pub fn submit(&self, request: InferRequest) -> Ticket {
        if let Some(refusal) = self.shared.refusal() {
            self.shared.observer.refused(refusal.kind().label());
            return Ticket::refused(refusal);
        }
        let (reply, answer) = oneshot::channel();
        match self.shared.inbox.submit(request, reply) {
            Ok(id) => Ticket::waiting(id, answer, self.shared.inbox.clone()),
            Err(Refused::Closed(error)) => Ticket::refused(error),
            Err(Refused::Full) => {
                self.shared.observer.refused("inbox_full");
                Ticket::refused(Error::new(
                    ErrorKind::Overloaded,
                    format!(
                        "model '{}' has more requests than it can admit; send fewer, or raise queue_rows_max",
                        self.name()
                    ),
                ))
            }
        }
    }

    /// What it has done since it was loaded.
    pub fn statistics(&self) -> ModelStatistics {
        self.shared.statistics().clone()
    }

    /// Why it decides as it does: the latency curve, recent batches, refusals.
    pub async fn explain(&self) -> serde_json::Value {
        let (reply, answer) = oneshot::channel();
        if self.shared.inbox.command(Command::Explain(reply)).is_err() {
            return serde_json::Value::Null;
        }
        answer.await.unwrap_or_default()
    }

    /// Every replica, by index.
    pub fn replicas(&self) -> Vec<ReplicaStatus> {
        self.shared.replicas.load().to_vec()
    }

    /// The latency curve as pairs of rows and seconds: as given, or as measured since. Empty: not known.
    pub fn profile(&self) -> Vec<(u32, f64)> {
        self.shared.profile.load().to_vec()
    }
}

impl fmt::Debug for ModelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelHandle")
            .field("name", &self.name())
            .field("version", &self.version())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

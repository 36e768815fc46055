//! What a model's task publishes and its handles read.
//!
//! Reads states and figures from the task, hands them to handles; hands their requests to the task's inbox.
//! Knows nothing of batches, replicas' memory or retries.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use inferd_scheduler::pipeline::StepEstimate;
use inferd_types::settings::{LoadedModel, ModelSettings};
use inferd_types::{Clock, Error, ErrorKind, InferRequest, InferResponse, Signature};
use tokio::sync::{mpsc, oneshot};

use crate::cache::{self, Cache};
use crate::inbox::{Inbox, Refused};
use crate::observer::ModelObserver;
use crate::statistics::ModelStatistics;
use crate::stream::{RESPONSES_MAX, Responses};
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
    /// `None`: every request is run.
    cache: Option<Arc<Cache>>,
    /// The state as a number, so that the hot path reads one byte.
    state: AtomicU8,
    reason: ArcSwap<String>,
    loaded: OnceLock<(Arc<Signature>, BTreeMap<String, String>)>,
    statistics: Mutex<ModelStatistics>,
    pub(crate) replicas: ArcSwap<Vec<ReplicaStatus>>,
    pub(crate) profile: ArcSwap<Vec<(u32, f64)>>,
    /// Set while pipelines are drained: their steps are admitted still, nobody else.
    pub(crate) steps_only: AtomicBool,
    /// What a newcomer has to expect, published for pipelines once one asks.
    estimate: Mutex<StepEstimate>,
    estimate_wanted: AtomicBool,
}

impl Shared {
    pub(crate) fn new(settings: ModelSettings, observer: Arc<dyn ModelObserver>, clock: Clock) -> Shared {
        // The queue's own bound is in the scheduler; what waits here is what one turn of the reactor brings.
        let inbox = Arc::new(Inbox::new(settings.queue_rows_max.max(64)));
        let cache = settings.cache_max_bytes.map(|max_bytes| {
            observer.cache_bytes(0);
            Arc::new(Cache::new(&settings.name, settings.version, max_bytes, clock))
        });
        Shared {
            cache,
            profile: ArcSwap::from_pointee(settings.profile.clone()),
            settings,
            inbox,
            observer,
            state: AtomicU8::new(LOADING),
            reason: ArcSwap::default(),
            loaded: OnceLock::new(),
            statistics: Mutex::default(),
            replicas: ArcSwap::default(),
            steps_only: AtomicBool::new(false),
            estimate: Mutex::default(),
            estimate_wanted: AtomicBool::new(false),
        }
    }

    /// Publishes what `estimate` gives, where a pipeline reads it.
    pub(crate) fn publish(&self, estimate: impl FnOnce() -> StepEstimate) {
        if self.estimate_wanted.load(Ordering::Relaxed) {
            *self.estimate.lock().unwrap_or_else(PoisonError::into_inner) = estimate();
        }
    }

    pub(crate) fn estimate(&self) -> StepEstimate {
        self.estimate_wanted.store(true, Ordering::Relaxed);
        *self.estimate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request gets any number of responses.
    pub(crate) fn is_decoupled(&self) -> bool {
        self.signature().is_some_and(|signature| signature.decoupled)
    }

    /// Answers `request`: from the cache where there is one and it can, else by a run.
    pub(crate) fn submit(self: &Arc<Self>, request: InferRequest) -> Ticket {
        if self.is_decoupled() {
            return Ticket::refused(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "model '{}' streams its responses, and this call has one answer; use ModelStreamInfer over gRPC, \
                     or POST /v2/models/{}/generate_stream",
                    self.settings.name, self.settings.name
                ),
            ));
        }
        match &self.cache {
            None => self.submit_new(request),
            Some(cache) if self.refusal().is_none() => {
                Ticket::running(Box::pin(cache::answer(self.clone(), cache.clone(), request)))
            }
            Some(_) => self.submit_new(request),
        }
    }

    /// The answers that are kept; `None` where none are.
    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.cache.as_deref()
    }

    /// Hands `request` to the task.
    pub(crate) fn submit_new(&self, request: InferRequest) -> Ticket {
        self.send(request, None)
    }

    /// The same for a model that may give many responses.
    pub(crate) fn stream(&self, request: InferRequest) -> Responses {
        let (sender, parts) = mpsc::channel(RESPONSES_MAX);
        Responses::many(parts, self.inbox.clone(), self.send(request, Some(sender)))
    }

    fn send(&self, request: InferRequest, parts: Option<mpsc::Sender<InferResponse>>) -> Ticket {
        if let Some(refusal) = self.refusal() {
            self.observer.refused(refusal.kind().label());
            return Ticket::refused(refusal);
        }
        let (reply, answer) = oneshot::channel();
        match self.inbox.submit(request, reply, parts) {
            Ok(id) => Ticket::waiting(id, answer, self.inbox.clone()),
            Err(Refused::Closed(error)) => Ticket::refused(error),
            Err(Refused::Full) => {
                self.observer.refused("inbox_full");
                Ticket::refused(Error::new(
                    ErrorKind::Overloaded,
                    format!(
                        "model '{}' has more requests than it can admit; send fewer, or raise queue_rows_max",
                        self.settings.name
                    ),
                ))
            }
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

    pub(crate) fn facts(&self) -> BTreeMap<String, String> {
        self.loaded.get().map(|(_, facts)| facts.clone()).unwrap_or_default()
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

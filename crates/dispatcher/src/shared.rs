//! What a model's task publishes and its handles read.
//!
//! Reads states and figures from the task, hands them to handles; hands their requests to the task's inbox.
//! Knows nothing of batches, replicas' memory or retries.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use inferd_scheduler::pipeline::StepEstimate;
use inferd_types::settings::{LoadedModel, ModelSettings};
use inferd_types::{Clock, Error, ErrorKind, InferRequest, InferResponse, Signature, Tensor};
use tokio::sync::{mpsc, oneshot};

use crate::cache::{self, Cache};
use crate::events::GenerationEvents;
use crate::inbox::{Inbox, Refused};
use crate::interior::Interior;
use crate::observer::ModelObserver;
use crate::sequences::{self, Sequences};
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
    /// In a run that takes far longer than usual.
    Stalled,
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
            ReplicaState::Stalled => "stalled",
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

/// What the first worker told.
struct Loaded {
    /// What the worker takes and gives.
    signature: Arc<Signature>,
    /// What clients send and get.
    seen: Arc<Signature>,
    /// How one becomes the other; `None` where they are the same.
    interior: Option<Arc<Interior>>,
    sequences: Option<Arc<Sequences>>,
    facts: BTreeMap<String, String>,
}

/// What the task publishes and handles read.
pub(crate) struct Shared {
    pub(crate) settings: ModelSettings,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) observer: Arc<dyn ModelObserver>,
    pub(crate) events: GenerationEvents,
    /// `None`: every request is run.
    cache: Option<Arc<Cache>>,
    /// The state as a number, so that the hot path reads one byte.
    state: AtomicU8,
    reason: ArcSwap<String>,
    loaded: OnceLock<Loaded>,
    clock: Clock,
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
    pub(crate) fn new(
        settings: ModelSettings,
        observer: Arc<dyn ModelObserver>,
        events: GenerationEvents,
        clock: Clock,
    ) -> Shared {
        // The queue's own bound is in the scheduler; what waits here is what one turn of the reactor brings.
        let inbox = Arc::new(Inbox::new(settings.queue_rows_max.max(64)));
        let cache = settings.cache_max_bytes.map(|max_bytes| {
            observer.cache_bytes(0);
            Arc::new(Cache::new(&settings.name, settings.version, max_bytes, clock))
        });
        Shared {
            cache,
            clock,
            profile: ArcSwap::from_pointee(settings.profile.clone()),
            settings,
            inbox,
            observer,
            events,
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
        let (interior, sequences) = self
            .loaded
            .get()
            .map_or((None, None), |loaded| (loaded.interior.as_ref(), loaded.sequences.as_ref()));
        match (sequences, &request.sequence) {
            (None, None) if interior.is_none() => self.submit_cached(request),
            (None, None) => self.submit_filled(interior, request),
            (Some(sequences), Some(sequence)) => {
                let sequence = sequence.clone();
                sequences::submit(self, sequences, interior.cloned(), &sequence, request)
            }
            (sequences, _) => Ticket::refused(self.wrong_sequence(sequences.is_some())),
        }
    }

    fn submit_filled(&self, interior: Option<&Arc<Interior>>, mut request: InferRequest) -> Ticket {
        match interior.map_or(Ok(()), |interior| self.fill(interior, &mut request, &[])) {
            Ok(()) => self.submit_new(request),
            Err(error) => Ticket::refused(error),
        }
    }

    /// Puts what no client sends into `request`.
    pub(crate) fn fill(
        &self,
        interior: &Interior,
        request: &mut InferRequest,
        state: &[Tensor],
    ) -> Result<(), Error> {
        let deadline = request.timeout.filter(|_| interior.wants_context());
        interior.fill(
            request,
            state,
            deadline.map(|timeout| on_machine_clock(timeout.since(self.clock.now()))),
        )
    }

    fn wrong_sequence(&self, has_sequences: bool) -> Error {
        let name = &self.settings.name;
        let message = if has_sequences {
            format!(
                "model '{name}' answers sequences; name one with the parameter sequence_id (not 0, not empty)"
            )
        } else {
            format!(
                "model '{name}' has no sequences; leave sequence_id out, or give the model the setting sequence"
            )
        };
        Error::new(ErrorKind::InvalidInput, message)
    }

    fn submit_cached(self: &Arc<Self>, request: InferRequest) -> Ticket {
        match &self.cache {
            None => self.submit_new(request),
            Some(cache) if self.refusal().is_none() => cache::submit(self, cache, request),
            Some(_) => self.submit_new(request),
        }
    }

    /// Admits nothing more of what waits here before the model's task knows it, and returns when that is answered.
    pub(crate) async fn drain(&self) {
        if let Some(sequences) = self.sequences() {
            sequences.drain().await;
        }
        if let Some(cache) = &self.cache {
            cache.drain().await;
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
        let interior = self.loaded.get().and_then(|loaded| loaded.interior.as_ref());
        let mut request = request;
        let filled = match (&request.sequence, interior) {
            (Some(_), _) => Err(self.wrong_sequence(false)),
            (None, None) => Ok(()),
            (None, Some(interior)) => self.fill(interior, &mut request, &[]),
        };
        let (sender, parts) = mpsc::channel(RESPONSES_MAX);
        let ticket = match filled {
            Ok(()) => self.send(request, Some(sender)),
            Err(error) => Ticket::refused(error),
        };
        Responses::many(parts, self.inbox.clone(), ticket)
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
        self.events.state(&state);
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
    ///
    /// # Errors
    /// `InvalidInput` where the model's settings ask for what it can't do.
    pub(crate) fn set_loaded(&self, loaded: LoadedModel) -> Result<(), Error> {
        let settings = &self.settings;
        let sequence = settings.sequence.as_ref().or(loaded.sequence.as_ref());
        let interior = Interior::new(&loaded, sequence, settings.batch_rows_max)?;
        let invalid = |message: &str| Err(Error::new(ErrorKind::InvalidInput, message.to_owned()));
        if self.cache.is_some() && (sequence.is_some() || interior.is_some()) {
            return invalid(
                "what the model answers depends on more than its inputs (a sequence, or what comes with a request), so \
                 its answers can't be kept; leave cache_max_bytes out",
            );
        }
        if sequence.is_some() && loaded.signature.decoupled {
            return invalid("a model that streams its responses has no sequences; leave sequence out");
        }
        if sequence.is_some_and(|sequence| sequence.state.is_empty()) && settings.replicas > 1 {
            return invalid(
                "the model remembers its sequences by itself, which one replica alone can do; set replicas: 1, or hand \
                 its state over with sequence.state",
            );
        }
        let sequences = sequence.map(|sequence| {
            Arc::new(Sequences::new(&settings.name, sequence, settings.queue_rows_max, self.clock))
        });
        let signature = Arc::new(loaded.signature);
        let (seen, interior) = match interior {
            Some((seen, interior)) => (Arc::new(seen), Some(Arc::new(interior))),
            None => (signature.clone(), None),
        };
        let _told_before =
            self.loaded.set(Loaded { signature, seen, interior, sequences, facts: loaded.facts });
        Ok(())
    }

    pub(crate) fn facts(&self) -> BTreeMap<String, String> {
        self.loaded.get().map(|loaded| loaded.facts.clone()).unwrap_or_default()
    }

    /// What the worker takes and gives.
    pub(crate) fn signature(&self) -> Option<&Arc<Signature>> {
        self.loaded.get().map(|loaded| &loaded.signature)
    }

    /// What clients send and get.
    pub(crate) fn seen(&self) -> Option<&Arc<Signature>> {
        self.loaded.get().map(|loaded| &loaded.seen)
    }

    pub(crate) fn interior(&self) -> Option<&Arc<Interior>> {
        self.loaded.get().and_then(|loaded| loaded.interior.as_ref())
    }

    pub(crate) fn sequences(&self) -> Option<&Arc<Sequences>> {
        self.loaded.get().and_then(|loaded| loaded.sequences.as_ref())
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

/// The moment `ahead` of now in nanoseconds of the clock that all processes of this machine share.
fn on_machine_clock(ahead: Duration) -> u64 {
    inferd_transport::machine_nanos().saturating_add(u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX))
}

pub(crate) fn draining(name: &str) -> Error {
    Error::new(ErrorKind::Draining, format!("model '{name}' is being stopped; try again later or elsewhere"))
}

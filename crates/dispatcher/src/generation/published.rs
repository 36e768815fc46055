//! What a model's task publishes: its state, its replicas, its figures, and the description of the model by its first worker.
//!
//! Reads all of it from the task, hands it to handles, to the intake and to metrics.
//! Knows nothing of requests, batches or replicas' memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use inferd_scheduler::pipeline::StepEstimate;
use inferd_types::settings::ModelSettings;
use inferd_types::{Error, ErrorKind, Signature};

use crate::generation::state::{ModelState, ReplicaStatus};
use crate::generation::statistics::ModelStatistics;
use crate::observe::events::GenerationEvents;
use crate::observe::observer::ModelObserver;

const LOADING: u8 = 0;
const READY: u8 = 1;
const UNAVAILABLE: u8 = 2;
const DRAINING: u8 = 3;

/// What the first worker told of its model.
pub(crate) struct Description {
    /// What the worker takes and gives.
    pub(crate) signature: Arc<Signature>,
    /// What clients send and get.
    pub(crate) client_signature: Arc<Signature>,
    /// For the start-up table.
    pub(crate) facts: BTreeMap<String, String>,
}

/// See the module.
pub(crate) struct Published {
    pub(crate) settings: ModelSettings,
    pub(crate) observer: Arc<dyn ModelObserver>,
    pub(crate) events: GenerationEvents,
    /// The state as a number, so that the hot path reads one byte.
    state: AtomicU8,
    reason: ArcSwap<String>,
    description: OnceLock<Description>,
    statistics: Mutex<ModelStatistics>,
    pub(crate) replicas: ArcSwap<Vec<ReplicaStatus>>,
    /// How many of them are wanted.
    replicas_wanted: AtomicU32,
    pub(crate) profile: ArcSwap<Vec<(u32, f64)>>,
    /// What a new request has to expect, published for pipelines once one asks.
    estimate: Mutex<StepEstimate>,
    estimate_wanted: AtomicBool,
}

impl Published {
    pub(crate) fn new(
        settings: ModelSettings,
        observer: Arc<dyn ModelObserver>,
        events: GenerationEvents,
    ) -> Published {
        Published {
            profile: ArcSwap::from_pointee(settings.profile.clone()),
            replicas_wanted: AtomicU32::new(settings.replicas),
            settings,
            observer,
            events,
            state: AtomicU8::new(LOADING),
            reason: ArcSwap::default(),
            description: OnceLock::new(),
            statistics: Mutex::default(),
            replicas: ArcSwap::default(),
            estimate: Mutex::default(),
            estimate_wanted: AtomicBool::new(false),
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
        let number = match &state {
            ModelState::Loading => LOADING,
            ModelState::Ready => READY,
            ModelState::Unavailable(reason) => {
                self.reason.store(Arc::new(reason.clone()));
                UNAVAILABLE
            }
            ModelState::Draining => DRAINING,
        };
        self.state.store(number, Ordering::Release);
        // Afterwards: who reads the state on the event finds it.
        self.events.state(&state);
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
                format!("model '{name}' has no healthy replica; a restart is in progress, try again later"),
            )),
            _ => Some(draining(name)),
        }
    }

    /// Publishes what the first worker told. Later workers must tell the same, and change nothing here.
    pub(crate) fn describe(&self, description: Description) {
        let _described_before = self.description.set(description);
    }

    pub(crate) fn facts(&self) -> BTreeMap<String, String> {
        self.description.get().map(|description| description.facts.clone()).unwrap_or_default()
    }

    /// What the worker takes and gives.
    pub(crate) fn signature(&self) -> Option<&Arc<Signature>> {
        self.description.get().map(|description| &description.signature)
    }

    /// What clients send and get.
    pub(crate) fn client_signature(&self) -> Option<&Arc<Signature>> {
        self.description.get().map(|description| &description.client_signature)
    }

    /// Whether a request gets any number of responses.
    pub(crate) fn is_decoupled(&self) -> bool {
        self.signature().is_some_and(|signature| signature.decoupled)
    }

    pub(crate) fn statistics(&self) -> MutexGuard<'_, ModelStatistics> {
        // Counters are valid after every single addition.
        self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn replicas_wanted(&self) -> u32 {
        self.replicas_wanted.load(Ordering::Relaxed)
    }

    pub(crate) fn set_replicas_wanted(&self, replicas: u32) {
        self.replicas_wanted.store(replicas, Ordering::Relaxed);
    }

    /// Publishes what `estimate` gives, where a pipeline reads it.
    pub(crate) fn publish_estimate(&self, estimate: impl FnOnce() -> StepEstimate) {
        if self.estimate_wanted.load(Ordering::Relaxed) {
            *self.estimate.lock().unwrap_or_else(PoisonError::into_inner) = estimate();
        }
    }

    pub(crate) fn estimate(&self) -> StepEstimate {
        self.estimate_wanted.store(true, Ordering::Relaxed);
        *self.estimate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn draining(name: &str) -> Error {
    Error::new(ErrorKind::Draining, format!("model '{name}' is being stopped; try again later or elsewhere"))
}

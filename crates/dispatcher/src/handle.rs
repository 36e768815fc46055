//! The cheap handle on what is served under a name: a model version, or a pipeline.
//!
//! Reads what the model's task publishes, hands requests and commands to it. Callers need not know which it is.
//! Knows nothing of batches, replicas' memory or retries.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use inferd_scheduler::pipeline::StepEstimate;
use inferd_types::settings::ModelSettings;
use inferd_types::{Error, ErrorKind, InferRequest, Result, Signature};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::generation::model::Model;
use crate::generation::published::draining;
use crate::generation::state::{ModelState, ReplicaStatus};
use crate::generation::statistics::ModelStatistics;
use crate::intake::inbox::Command;
use crate::intake::stream::Responses;
use crate::intake::ticket::Ticket;
use crate::pipeline::Pipeline;

/// What a pipeline is called where models have a framework; Triton's word.
const ENSEMBLE: &str = "ensemble";

/// One generation, that is one load of one model version, or a pipeline. Cheap to clone; every clone is the same load.
/// A generation that is replaced serves the holders of its handles.
#[derive(Clone)]
pub struct ModelHandle(Arc<SharedByClones>);

/// What the clones of a handle share.
struct SharedByClones {
    kind: Kind,
    holders: TaskTracker,
    /// Given back with the last clone.
    _token: TaskTrackerToken,
}

pub(crate) enum Kind {
    Model(Arc<Model>),
    Pipeline(Arc<Pipeline>),
}

impl ModelHandle {
    pub(crate) fn new(kind: Kind) -> ModelHandle {
        let holders = TaskTracker::new();
        ModelHandle(Arc::new(SharedByClones { kind, _token: holders.token(), holders }))
    }

    /// The name in every path.
    pub fn name(&self) -> &str {
        match self.kind() {
            Kind::Model(model) => &model.published.settings.name,
            Kind::Pipeline(pipeline) => &pipeline.settings.name,
        }
    }

    /// The version; a pipeline has one.
    pub fn version(&self) -> u64 {
        self.model().map_or(1, |model| model.published.settings.version)
    }

    /// The number of the load among all of this process, as events have it; 0 for a pipeline.
    pub fn generation(&self) -> u64 {
        self.model().map_or(0, |model| model.published.events.generation())
    }

    /// The settings that a model was loaded with; `None` for a pipeline.
    pub fn settings(&self) -> Option<&ModelSettings> {
        self.model().map(|model| &model.published.settings)
    }

    /// What runs it, e.g. `onnx_onnxruntime`.
    pub fn platform(&self) -> &str {
        self.model().map_or(ENSEMBLE, |model| &model.published.settings.platform)
    }

    /// Class of requests that don't say.
    pub fn priority_default(&self) -> u8 {
        match self.kind() {
            Kind::Model(model) => model.published.settings.priority_default,
            Kind::Pipeline(pipeline) => pipeline.settings.priority_default,
        }
    }

    /// What it takes and gives; `None` until its first worker has told.
    pub fn signature(&self) -> Option<Arc<Signature>> {
        match self.kind() {
            Kind::Model(model) => model.published.client_signature().cloned(),
            Kind::Pipeline(pipeline) => Some(pipeline.signature.clone()),
        }
    }

    /// Facts for the start-up table; empty until its first worker has told.
    pub fn facts(&self) -> BTreeMap<String, String> {
        match self.kind() {
            Kind::Model(model) => model.published.facts(),
            Kind::Pipeline(pipeline) => {
                [("steps".to_owned(), pipeline.settings.steps.len().to_string())].into_iter().collect()
            }
        }
    }

    /// Whether it serves.
    pub fn state(&self) -> ModelState {
        match self.kind() {
            Kind::Model(model) => model.published.state(),
            Kind::Pipeline(pipeline) => pipeline.state(),
        }
    }

    /// Hands `request` to the model. The inputs must be those of the signature, in its order.
    ///
    /// Never waits: where the model does not admit it, the ticket is an error already.
    pub fn submit(&self, request: InferRequest) -> Ticket {
        match self.kind() {
            Kind::Model(model) => model.intake.submit(request),
            Kind::Pipeline(pipeline) => pipeline.submit(request),
        }
    }

    /// Whether a request gets any number of responses instead of one.
    pub fn is_decoupled(&self) -> bool {
        self.model().is_some_and(|model| model.published.is_decoupled())
    }

    /// Whether the model reads what comes with a request besides tensors; a pipeline, whether one of its steps does.
    pub fn wants_context(&self) -> bool {
        match self.kind() {
            Kind::Model(model) => model.intake.implicit().is_some_and(|implicit| implicit.wants_context()),
            Kind::Pipeline(pipeline) => pipeline.wants_context(),
        }
    }

    /// Whether the model answers sequences; a pipeline, whether one of its steps does.
    pub(crate) fn has_sequences(&self) -> bool {
        match self.kind() {
            Kind::Model(model) => model.intake.sequences().is_some(),
            Kind::Pipeline(pipeline) => pipeline.has_sequences(),
        }
    }

    /// As [`ModelHandle::submit`], for callers that take any number of responses: one from an ordinary model.
    pub fn stream(&self, request: InferRequest) -> Responses {
        match self.kind() {
            Kind::Model(model) => model.intake.stream(request),
            Kind::Pipeline(pipeline) => Responses::one(pipeline.submit(request)),
        }
    }

    /// As [`ModelHandle::submit`], for a step of a request that was admitted by a pipeline.
    pub(crate) fn submit_step(&self, request: InferRequest) -> Ticket {
        match self.kind() {
            Kind::Model(model) => model.intake.submit_step(request),
            Kind::Pipeline(pipeline) => pipeline.submit(request),
        }
    }

    /// What a newcomer has to expect here; nothing while that is not known.
    pub(crate) fn estimate(&self) -> StepEstimate {
        self.model().map(|model| model.published.estimate()).unwrap_or_default()
    }

    /// What it has done since it was loaded.
    pub fn statistics(&self) -> ModelStatistics {
        match self.kind() {
            Kind::Model(model) => model.published.statistics().clone(),
            Kind::Pipeline(pipeline) => pipeline.statistics().clone(),
        }
    }

    /// Why it decides as it does: the latency curve, recent batches, refusals. Null for a pipeline, whose steps'
    /// models decide.
    pub async fn explain(&self) -> serde_json::Value {
        let (reply, answer) = oneshot::channel();
        match self.model().map(|model| model.intake.inbox().command(Command::Explain(reply))) {
            Some(Ok(())) => answer.await.unwrap_or_default(),
            _ => serde_json::Value::Null,
        }
    }

    /// Has the model run on so many replicas from now on: more are started, and of those that are too many each ends what it
    /// runs. Returns when that is decided; [`ModelHandle::replicas`] shows how far it is.
    ///
    /// # Errors
    /// `InvalidInput` where it can't have so many, or is a pipeline; `Draining` where it is being stopped.
    pub async fn scale(&self, replicas: u32) -> Result<()> {
        let Some(model) = self.model() else {
            let message = "a pipeline has no replicas; scale the models that it runs on";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        };
        let (reply, answer) = oneshot::channel();
        let gone = || draining(&model.published.settings.name);
        model.intake.inbox().command(Command::Scale(replicas, reply)).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Every replica, by index.
    pub fn replicas(&self) -> Vec<ReplicaStatus> {
        self.model().map(|model| model.published.replicas.load().to_vec()).unwrap_or_default()
    }

    /// The latency curve as pairs of rows and seconds: as given, or as measured since. Empty: not known.
    pub fn profile(&self) -> Vec<(u32, f64)> {
        self.model().map(|model| model.published.profile.load().to_vec()).unwrap_or_default()
    }

    /// Whether both are handles on the same load.
    pub(crate) fn is(&self, other: &ModelHandle) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// Gives this clone back; what is returned waits until every other one is given back too.
    pub(crate) fn release(self) -> impl Future<Output = ()> + Send + use<> {
        let holders = self.0.holders.clone();
        drop(self);
        async move {
            holders.close();
            holders.wait().await;
        }
    }

    pub(crate) fn model(&self) -> Option<&Arc<Model>> {
        match self.kind() {
            Kind::Model(model) => Some(model),
            Kind::Pipeline(_) => None,
        }
    }

    pub(crate) fn pipeline(&self) -> Option<&Arc<Pipeline>> {
        match self.kind() {
            Kind::Model(_) => None,
            Kind::Pipeline(pipeline) => Some(pipeline),
        }
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

//! One inference: request, response and timing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{ReplicaId, Tenant, Tensor, Time};

/// A priority class. Classes are strictly ordered; 0 is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Priority(pub u8);

impl Default for Priority {
    /// The middle of the three usual classes, so that there is room on both sides.
    fn default() -> Self {
        Priority(1)
    }
}

/// The soft deadline of a request besides its caller's timeout: it steers order, batching and admission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Due {
    /// The model's objective, counted from arrival, if it has one.
    #[default]
    Objective,
    /// This time: the end of a pipeline step's share of the pipeline's objective. The pipeline was admitted, so its
    /// steps are not refused for predicted lateness.
    At(Time),
    /// None: best effort, admitted before.
    Never,
}

/// A client's id for a sequence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SequenceId {
    /// A number; 0 is none.
    Number(u64),
    /// A text; empty is none.
    Text(Arc<str>),
}

impl fmt::Display for SequenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SequenceId::Number(number) => number.fmt(f),
            SequenceId::Text(text) => text.fmt(f),
        }
    }
}

/// The position of a request in a sequence: requests that a model runs in order, with the state of those before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The sequence.
    pub id: SequenceId,
    /// Whether it starts with this request; a running sequence of the same id is discarded.
    pub start: bool,
    /// Whether it ends with this request.
    pub end: bool,
}

/// What came with a request besides tensors, for models that declare a context input.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestContext {
    /// The request's id, from the client or generated.
    pub id: String,
    /// Headers or gRPC metadata without credentials, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Parameters that the server does not interpret.
    pub parameters: Vec<(String, serde_json::Value)>,
}

/// A request as the dispatcher takes it: decoded and validated against the signature.
#[derive(Clone, Debug, Default)]
pub struct InferRequest {
    /// Every input of the signature, in its order.
    pub inputs: SmallVec<[Tensor; 2]>,
    /// When the first byte of the request was seen.
    pub arrived: Time,
    /// The caller's hard deadline, past which no response is expected. `None`: no deadline.
    pub timeout: Option<Time>,
    /// Its priority class.
    pub priority: Priority,
    /// Its tenant.
    pub tenant: Tenant,
    /// Its soft deadline.
    pub due: Due,
    /// Its position in a sequence, if it is part of one.
    pub sequence: Option<Arc<Sequence>>,
    /// Its context, if the model declares one.
    pub context: Option<Arc<RequestContext>>,
    /// The only replica that may run it, because that holds its sequence's state; `None`: any.
    pub home: Option<ReplicaId>,
}

/// The timestamps of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timing {
    /// When its batch was staged on a replica.
    pub staged: Time,
    /// When the replica began the run.
    pub started: Time,
    /// When the run ended.
    pub finished: Time,
    /// Execution time, as measured by the replica.
    pub execution: Duration,
    /// Rows of the batch, including its own.
    pub batch_rows: u32,
}

/// The response to one request.
#[derive(Clone, Debug)]
pub struct InferResponse {
    /// Every output of the signature, in its order; only this request's rows.
    pub outputs: SmallVec<[Tensor; 2]>,
    /// The timestamps.
    pub timing: Timing,
    /// The replica that ran it; in a pipeline, that of its last step.
    pub replica: ReplicaId,
    /// In a pipeline: the steps that ran, in the order in which they ended.
    pub steps: Vec<StepTiming>,
}

/// The timestamps of one step of a pipeline.
#[derive(Clone, Debug)]
pub struct StepTiming {
    /// The step's name.
    pub step: Arc<str>,
    /// When all its inputs were ready.
    pub entered: Time,
    /// The timestamps from then on.
    pub timing: Timing,
}

//! One inference, asked and answered.

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

/// What a request is held to beside its caller's timeout. Soft: it steers order, batching and admission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Due {
    /// The model's own objective, from arrival on; none where it has none.
    #[default]
    Objective,
    /// At this time: a step of a pipeline, whose share of the pipeline's objective ends then. It was admitted at
    /// the pipeline's door and is not refused again for being predicted late.
    At(Time),
    /// Never: best effort, admitted before.
    Never,
}

/// A client's name for a sequence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SequenceId {
    /// As a number; 0 is none.
    Number(u64),
    /// As text; empty is none.
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

/// The place of a request in a sequence: requests that a model answers one after the other, with what it remembers of
/// those before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Which.
    pub id: SequenceId,
    /// Whether it begins with this request; one of the same name that is under way is given up for it.
    pub start: bool,
    /// Whether it ends with this request.
    pub end: bool,
}

/// What came with a request besides tensors, for models that ask for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestContext {
    /// The request's id, as the client gave it or as the server named it.
    pub id: String,
    /// Headers (or gRPC metadata) without those that carry credentials, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Parameters that mean nothing to the server.
    pub parameters: Vec<(String, serde_json::Value)>,
}

/// What the dispatcher is asked to run: already decoded, already checked against the signature.
#[derive(Clone, Debug, Default)]
pub struct InferRequest {
    /// Every input of the signature, in its order.
    pub inputs: SmallVec<[Tensor; 2]>,
    /// When the first byte of the request was seen.
    pub arrived: Time,
    /// The caller's hard limit: past it nobody listens. `None`: the caller waits.
    pub timeout: Option<Time>,
    /// The class that it is served in.
    pub priority: Priority,
    /// On whose behalf it comes.
    pub tenant: Tenant,
    /// What it is held to.
    pub due: Due,
    /// Its place in a sequence, where the client named one.
    pub sequence: Option<Arc<Sequence>>,
    /// What came with it, where its model asks for that.
    pub context: Option<Arc<RequestContext>>,
    /// The one replica that may run it, because what it goes on from is there; `None`: any.
    pub home: Option<ReplicaId>,
}

/// Where the time of one request went.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timing {
    /// When its batch was handed to a replica's queue.
    pub staged: Time,
    /// When the replica began to execute it.
    pub started: Time,
    /// When the replica was done.
    pub finished: Time,
    /// What the replica measured for the run itself.
    pub execution: Duration,
    /// Rows that ran together, its own included.
    pub batch_rows: u32,
}

/// The answer to one request.
#[derive(Clone, Debug)]
pub struct InferResponse {
    /// Every output of the signature, in its order; the rows of this request alone.
    pub outputs: SmallVec<[Tensor; 2]>,
    /// Where the time went.
    pub timing: Timing,
    /// Which replica answered; of a pipeline, that of its last step.
    pub replica: ReplicaId,
    /// Of a pipeline: the steps that ran, in the order of their ends.
    pub steps: Vec<StepTiming>,
}

/// Where the time of one step of a pipeline went.
#[derive(Clone, Debug)]
pub struct StepTiming {
    /// The step.
    pub step: Arc<str>,
    /// When everything that it needs was there.
    pub entered: Time,
    /// From then on.
    pub timing: Timing,
}

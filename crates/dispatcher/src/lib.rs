//! The task per model that owns its scheduler and its replicas: in flight, retry, quarantine, drain.
//!
//! Reads decoded requests from the gateway, hands back one answer each, and carries out what `scheduler`
//! decides on replicas: worker processes of `transport`, or any other kind. Knows nothing of HTTP, gRPC or any other form
//! that bytes have on the wire: the compiler forbids it to see `protocol`.
//!
//! A request's way: `route` → `handle` (or `pipeline`) → `intake` → `task`, which holds it in `requests` and has a
//! `replica` run it.
#![forbid(unsafe_code)]

mod batching;
mod generation;
mod handle;
mod intake;
mod observe;
mod pipeline;
mod replica;
mod requests;
mod route;
mod task;
mod warmup;

pub use generation::state::{ModelState, ReplicaState, ReplicaStatus};
pub use generation::statistics::{BatchStatistics, DurationStatistics, ModelStatistics};
pub use handle::ModelHandle;
pub use inferd_transport::Spawner;
pub use intake::stream::Responses;
pub use intake::ticket::Ticket;
pub use observe::events::{EventKind, Events, GenerationState, ModelEvent, Received};
pub use observe::observer::{LossReason, ModelObserver, Observer, ReplicaCounts};
pub use route::{Drained, Registry, Rules};
pub use task::moderation::Moderation;
pub use task::start::{LauncherFactory, TaskStart, WorkerProcesses};

/// What a kind of replica implements.
pub mod kind {
    pub use inferd_transport::{AppendOutcome, Doorbell, StageError, WorkerFailure};

    pub use crate::replica::kind::{
        BatchOutputs, Capabilities, Done, Ended, Launcher, Place, Polled, Replica, Shares,
    };
}

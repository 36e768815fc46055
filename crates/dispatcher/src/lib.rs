//! The task per model that owns its scheduler and its workers: in flight, retry, quarantine, drain.
//!
//! Reads decoded requests from the gateway, hands back one answer each, and carries out what `scheduler`
//! decides on the workers of `transport`. Knows nothing of HTTP, gRPC or any other form that bytes have
//! on the wire: the compiler forbids it to see `protocol`.
#![forbid(unsafe_code)]

mod alarm;
mod backoff;
mod cache;
mod company;
mod effort;
mod events;
mod explain;
mod flight;
mod handle;
mod inbox;
mod interior;
mod moderation;
mod observer;
mod padding;
mod parts;
mod pipeline;
mod profiler;
mod quarantine;
mod recent;
mod registry;
mod replica;
mod samples;
mod sequences;
mod shared;
mod statistics;
mod status;
mod stream;
mod synthetic;
mod task;
mod ticket;
mod worker;

pub use events::{Event, EventKind, Events, GenerationState, Received};
pub use handle::ModelHandle;
pub use inferd_transport::Spawner;
pub use moderation::Moderation;
pub use observer::{LossReason, ModelObserver, Observer, ReplicaCounts};
pub use registry::{Drained, Registry};
pub use shared::{ModelState, ReplicaState, ReplicaStatus};
pub use statistics::{BatchStatistics, DurationStatistics, ModelStatistics};
pub use stream::Responses;
pub use ticket::Ticket;

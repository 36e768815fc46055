//! Worker processes and the shared memory through which they get batches.
//!
//! Reads batches of tensors from `dispatcher`, hands on results, slot states and process exits; the other end,
//! [`worker`], runs inside the worker process. Knows nothing of queues, deadlines, retries or network protocols.
#![allow(
    unsafe_code,
    reason = "shared memory and process creation need it; every block says why it is sound"
)]

mod descendants;
mod descriptor;
mod doorbell;
mod exchange;
mod frames;
mod layout;
mod link;
mod log;
mod memory;
mod moment;
mod outputs;
mod process;
mod session;
mod slots;
mod socket;
mod spawn;
mod spawner;
mod staging;
#[cfg(test)]
mod tests;
mod word;
pub mod worker;
mod zygote;

pub use descendants::{Mark, end_descendants};
pub use doorbell::Doorbell;
pub use moment::nanos as machine_nanos;
pub use outputs::Outputs;
pub use process::Exit;
pub use session::Worker;
pub use slots::{AppendOutcome, BatchResult, SlotId, SlotState, StageError, Waiting, WorkerFailure};
pub use spawner::Spawner;

/// The parsers of a worker's bytes, as functions of bytes: for fuzz targets.
pub mod untrusted {
    pub use crate::descriptor::{Fault, Located, OutputRoom, check_outputs};
    pub use crate::frames::WorkerFrame;
}

//! Worker processes and the shared memory through which batches reach them.
//!
//! Reads batches of tensors from `dispatcher`, hands back results, states and the end of a process; the other
//! end, [`worker`], reads and answers the same batches inside the worker process.
//! Knows nothing of queues, deadlines, retries or protocols on the wire.
#![allow(
    unsafe_code,
    reason = "shared memory and process creation need it; every block says why it is sound"
)]

mod doorbell;
mod outputs;
mod session;
mod slots;
mod spawn;
pub mod worker;

pub use doorbell::Doorbell;
pub use outputs::Outputs;
pub use session::{Exit, Worker};
pub use slots::{AppendOutcome, BatchResult, SlotId, SlotState, StageError, Waiting, WorkerFailure};
pub use spawn::Spawner;

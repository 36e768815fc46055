//! One worker process from start to end: stub of the public surface.
use inferd_types::Result;
use inferd_types::settings::{LoadedModel, ModelSettings};

use crate::{Doorbell, Spawner};

/// How a worker process ended. It is reaped: its memory may be used again, its batches may run elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Status(i32),
    /// This signal ended it.
    Signal(i32),
    /// It is gone; how is not known (its zygote died with it).
    Unknown,
}

/// One incarnation of a worker: the process, its arena and its channel. Dropping it kills the process.
#[derive(Debug)]
pub struct Worker {}

impl Worker {
    /// Starts a process, has it load the model, and gives it its arena. Dropping the future kills the process.
    ///
    /// # Errors
    /// `ModelFailed` with what the worker said when it could not load the model, `WorkerLost` when it ended
    /// before it answered, `Internal` when no process could be started.
    pub async fn start(
        spawner: &Spawner,
        settings: &ModelSettings,
        replica_index: usize,
        doorbell: &Doorbell,
    ) -> Result<(Worker, LoadedModel)> {
        let _ = (spawner, settings, replica_index, doorbell);
        todo!()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        todo!()
    }

    /// Waits until the process has ended and is reaped. Any number of these may wait at once; they don't
    /// borrow the worker.
    pub fn exited(&self) -> impl Future<Output = Exit> + Send + use<> {
        async { todo!() }
    }

    /// Ends the process now.
    pub fn kill(&self) {
        todo!()
    }

    /// Asks the runtime to stop the batch that it runs; not every runtime can.
    pub fn terminate_run(&self) {
        todo!()
    }

    /// Asks the worker to finish the batch that it has and exit.
    pub fn close(&self) {
        todo!()
    }
}

//! What the model's task needs of a worker, and how `transport` gives it.
//!
//! Reads calls of the task, hands them on to a worker process. The traits are there so that faults can be
//! played through without processes; they add nothing to what `transport` does.
//! Knows nothing of requests, retries or the scheduler.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use inferd_transport::{
    AppendOutcome, Doorbell, Exit, Outputs, SlotId, SlotState, Spawner, StageError, Waiting, WorkerFailure,
};
use inferd_types::settings::{LoadedModel, ModelSettings};
use inferd_types::{BatchId, Error, ErrorKind, Result, Tensor};
use smallvec::SmallVec;

/// What each request of a batch gets, in the order of staging.
pub(crate) type Shares = Vec<SmallVec<[Tensor; 2]>>;

/// A batch that has run.
#[derive(Debug)]
pub(crate) struct Done<O> {
    pub(crate) batch: BatchId,
    pub(crate) execution: Duration,
    /// How long before it was seen it had ended.
    pub(crate) unseen: Duration,
    pub(crate) outcome: Result<O, WorkerFailure>,
}

/// Where a slot stands.
#[derive(Debug)]
pub(crate) enum Polled<O> {
    Free,
    Open,
    Taken,
    /// One of several responses is there, and the worker waits.
    Partial,
    Done(Done<O>),
}

/// The outputs of one batch.
pub(crate) trait Split: Send + 'static {
    /// Each request's rows; an error where they don't add up.
    fn split(&self, rows: &[u32]) -> Result<Shares>;
}

/// One incarnation of a worker. Dropping it ends it.
pub(crate) trait Worker: Send + 'static {
    type Outputs: Split;

    fn pid(&self) -> u32;
    fn exited(&self) -> impl Future<Output = Exit> + Send + 'static;
    fn kill(&self);
    fn terminate_run(&self);
    fn close(&self);
    fn stage(&mut self, batch: BatchId, requests: &[&[Tensor]]) -> Result<SlotId, StageError>;
    fn append(&mut self, slot: SlotId, requests: &[&[Tensor]]) -> AppendOutcome;
    fn withdraw(&mut self, slot: SlotId) -> bool;
    /// Sets rows of an input that has one byte for each, whether the batch runs or not.
    fn mark(&mut self, slot: SlotId, input: usize, first_row: u32, rows: u32);
    fn poll(&mut self, slot: SlotId) -> Polled<Self::Outputs>;
    /// Takes the response that a slot holds and lets the worker go on; `Ok(None)` where none is there. After an error
    /// the worker was told to stop.
    fn take_partial(&mut self, slot: SlotId) -> Result<Option<Self::Outputs>, WorkerFailure>;
    /// Tells the worker that no further response is wanted.
    fn stop_stream(&mut self, slot: SlotId);
    /// Whether a finished batch rings from now on.
    fn set_waiting(&self, waiting: bool);
}

/// Starts the workers of one model.
pub(crate) trait Launcher: Send + Sync + 'static {
    type Worker: Worker;

    /// Starts one and has it load the model. Dropping the future ends what was begun.
    fn start(
        &self,
        index: usize,
    ) -> impl Future<Output = Result<(Self::Worker, LoadedModel)>> + Send + 'static;
    /// Waits until a worker has something to tell. May return without cause.
    fn rung(&self) -> impl Future<Output = ()> + Send;
}

/// Starts worker processes.
#[derive(Debug)]
pub(crate) struct Processes {
    spawner: Spawner,
    settings: Arc<ModelSettings>,
    doorbell: Doorbell,
}

impl Processes {
    /// Must be called inside the runtime.
    pub(crate) fn new(spawner: Spawner, settings: ModelSettings) -> Result<Processes> {
        let doorbell = Doorbell::new().map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                format!(
                    "no descriptor is left for the model's doorbell ({error}); raise the limit on open files"
                ),
            )
        })?;
        Ok(Processes { spawner, settings: Arc::new(settings), doorbell })
    }

    /// What all of its workers ring.
    pub(crate) fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }
}

impl Launcher for Processes {
    type Worker = inferd_transport::Worker;

    fn start(
        &self,
        index: usize,
    ) -> impl Future<Output = Result<(Self::Worker, LoadedModel)>> + Send + 'static {
        let (spawner, settings, doorbell) =
            (self.spawner.clone(), self.settings.clone(), self.doorbell.clone());
        async move { inferd_transport::Worker::start(&spawner, &settings, index, &doorbell).await }
    }

    async fn rung(&self) {
        self.doorbell.rung().await;
    }
}

impl Split for Outputs {
    fn split(&self, rows: &[u32]) -> Result<Shares> {
        self.split(rows)
    }
}

impl Worker for inferd_transport::Worker {
    type Outputs = Outputs;

    fn pid(&self) -> u32 {
        self.pid()
    }

    fn exited(&self) -> impl Future<Output = Exit> + Send + 'static {
        self.exited()
    }

    fn kill(&self) {
        self.kill();
    }

    fn terminate_run(&self) {
        self.terminate_run();
    }

    fn close(&self) {
        self.close();
    }

    fn stage(&mut self, batch: BatchId, requests: &[&[Tensor]]) -> Result<SlotId, StageError> {
        self.stage(batch, requests)
    }

    fn append(&mut self, slot: SlotId, requests: &[&[Tensor]]) -> AppendOutcome {
        self.append(slot, requests)
    }

    fn withdraw(&mut self, slot: SlotId) -> bool {
        self.withdraw(slot)
    }

    fn mark(&mut self, slot: SlotId, input: usize, first_row: u32, rows: u32) {
        self.mark(slot, input, first_row, rows);
    }

    fn poll(&mut self, slot: SlotId) -> Polled<Outputs> {
        match self.poll(slot) {
            SlotState::Free => Polled::Free,
            SlotState::Open => Polled::Open,
            SlotState::Taken => Polled::Taken,
            SlotState::Partial => Polled::Partial,
            SlotState::Done(result) => Polled::Done(Done {
                batch: result.batch,
                execution: result.execution,
                unseen: result.unseen,
                outcome: result.outcome,
            }),
        }
    }

    fn take_partial(&mut self, slot: SlotId) -> Result<Option<Outputs>, WorkerFailure> {
        self.take_partial(slot)
    }

    fn stop_stream(&mut self, slot: SlotId) {
        self.stop_stream(slot);
    }

    fn set_waiting(&self, waiting: bool) {
        self.set_waiting(if waiting { Waiting::Done } else { Waiting::No });
    }
}

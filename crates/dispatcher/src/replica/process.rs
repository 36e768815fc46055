//! The kind of replica that is a worker process of this machine, reached through shared memory.
//!
//! Reads calls of the task, hands them on to `transport`, to which it adds nothing.
//! Knows nothing of requests, retries or the scheduler.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;

use inferd_transport::{
    AppendOutcome, Doorbell, Exit, Outputs, SlotId, SlotState, Spawner, StageError, Waiting, WorkerFailure,
};
use inferd_types::settings::{LoadedModel, ModelSettings, Placement};
use inferd_types::{BatchId, Error, ErrorKind, Result, Tensor, Time};

use crate::observe::observer::LossReason;
use crate::replica::kind::{
    BatchOutputs, Capabilities, Done, Ended, Launcher, Place, Polled, Replica, Shares,
};

/// Starts worker processes of one model.
#[derive(Debug)]
pub(crate) struct ProcessLauncher {
    spawner: Spawner,
    settings: Arc<ModelSettings>,
    doorbell: Doorbell,
}

impl ProcessLauncher {
    /// Must be called inside the runtime.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub(crate) fn new(spawner: Spawner, settings: ModelSettings) -> Result<ProcessLauncher> {
        let doorbell = Doorbell::new().map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                format!(
                    "no descriptor is left for the model's doorbell ({error}); raise the limit on open files"
                ),
            )
        })?;
        Ok(ProcessLauncher { spawner, settings: Arc::new(settings), doorbell })
    }
}

impl Launcher for ProcessLauncher {
    type Replica = inferd_transport::Worker;

    fn start(
        &self,
        placement: Placement,
    ) -> impl Future<Output = Result<(Self::Replica, LoadedModel)>> + Send + 'static {
        let (spawner, settings, doorbell) =
            (self.spawner.clone(), self.settings.clone(), self.doorbell.clone());
        async move { inferd_transport::Worker::start(&spawner, &settings, placement, &doorbell).await }
    }

    async fn notified(&self) {
        self.doorbell.rung().await;
    }

    fn doorbell(&self) -> Option<&Doorbell> {
        Some(&self.doorbell)
    }
}

impl BatchOutputs for Outputs {
    fn split(&self, rows: &[u32]) -> Result<Shares> {
        self.split(rows)
    }
}

fn slot(place: Place) -> SlotId {
    SlotId::ALL[usize::from(place.0)]
}

impl Replica for inferd_transport::Worker {
    type Outputs = Outputs;

    fn capabilities(&self) -> Capabilities {
        Capabilities::WORKER_PROCESS
    }

    fn pid(&self) -> Option<u32> {
        Some(self.pid())
    }

    fn ended(&self) -> impl Future<Output = Ended> + Send + 'static {
        let exited = self.exited();
        async move { ended(exited.await) }
    }

    fn kill(&self) {
        self.kill();
    }

    fn close(&self) {
        self.close();
    }

    fn stop_run(&self) {
        self.terminate_run();
    }

    fn stage(
        &mut self,
        batch: BatchId,
        requests: &[&[Tensor]],
        _: impl Iterator<Item = Option<Time>>,
    ) -> Result<Place, StageError> {
        self.stage(batch, requests).map(|slot| Place(slot.index() as u8))
    }

    fn append(
        &mut self,
        place: Place,
        requests: &[&[Tensor]],
        _: impl Iterator<Item = Option<Time>>,
    ) -> AppendOutcome {
        self.append(slot(place), requests)
    }

    fn withdraw(&mut self, place: Place) -> bool {
        self.withdraw(slot(place))
    }

    fn mark_cancelled(&mut self, place: Place, input: usize, first_row: u32, rows: u32) {
        self.mark(slot(place), input, first_row, rows);
    }

    fn poll(&mut self, place: Place) -> Polled<Outputs> {
        match self.poll(slot(place)) {
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

    fn take_partial(&mut self, place: Place) -> Result<Option<Outputs>, WorkerFailure> {
        self.take_partial(slot(place))
    }

    fn stop_stream(&mut self, place: Place) {
        self.stop_stream(slot(place));
    }

    fn set_waiting(&self, waiting: bool) {
        self.set_waiting(if waiting { Waiting::Done } else { Waiting::No });
    }
}

fn ended(exit: Exit) -> Ended {
    match exit {
        Exit::Status(status) => {
            Ended { reason: LossReason::Exit, how: Cow::Owned(format!("with status {status}")) }
        }
        Exit::Signal(signal) => {
            Ended { reason: LossReason::Signal, how: Cow::Owned(format!("by signal {signal}")) }
        }
        Exit::Unknown => Ended { reason: LossReason::Exit, how: Cow::Borrowed("for an unknown reason") },
    }
}

//! What a model's task needs of a replica, whatever runs the batches: a worker process, a remote server, a test's double.
//!
//! Reads calls of the task, hands back results, failures and the end. One implementation for each kind; kinds that stand
//! side by side in one model are an enum of theirs, so that no call on the way of a batch is dynamic.
//! Knows nothing of requests, retries or the scheduler.

use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

use inferd_transport::{AppendOutcome, Doorbell, StageError, WorkerFailure};
use inferd_types::settings::{LoadedModel, Placement};
use inferd_types::{BatchId, Result, Tensor, Time};
use smallvec::SmallVec;

use crate::observe::observer::LossReason;

/// What each request of a batch gets, in the order of staging.
pub type Shares = Vec<SmallVec<[Tensor; 2]>>;

/// One of the places in which a replica holds batches, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub u8);

/// What a replica can do; the same for all its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Batches that it holds at once, the one that runs included; at least 1. The scheduler uses at most 2.
    pub batches_max: u8,
    /// Whether requests may join a batch that it holds and has not begun.
    pub appends: bool,
    /// Whether its loss says something about the requests that it ran: a process that dies in the middle of a run may have
    /// died of it, a connection that is lost has not. Only evidence leads into the quarantine.
    pub loss_is_evidence: bool,
}

impl Capabilities {
    /// Those of a worker process.
    pub const WORKER_PROCESS: Capabilities =
        Capabilities { batches_max: 2, appends: true, loss_is_evidence: true };
}

/// A batch that has run.
#[derive(Debug)]
pub struct Done<O> {
    /// Which.
    pub batch: BatchId,
    /// What the run itself took, as the replica measured it.
    pub execution: Duration,
    /// How long before it was seen it had ended.
    pub unseen: Duration,
    /// What it gave.
    pub outcome: Result<O, WorkerFailure>,
}

/// How far a replica is with what is in one of its places.
#[derive(Debug)]
pub enum Polled<O> {
    /// Nothing is there.
    Free,
    /// A batch that it has not begun.
    Open,
    /// A batch that it runs.
    Taken,
    /// One of several responses is there, and the replica waits until it is taken.
    Partial,
    /// The batch has run. Told once: the place is free with this.
    Done(Done<O>),
}

/// The outputs of one batch.
pub trait BatchOutputs: Send + 'static {
    /// Each request's rows.
    ///
    /// # Errors
    /// Where the outputs don't have as many rows as `rows` sums up to.
    fn split(&self, rows: &[u32]) -> Result<Shares>;
}

/// How a replica ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// For metrics.
    pub reason: LossReason,
    /// For people: completes "the worker ended …".
    pub how: Cow<'static, str>,
}

/// One incarnation of a replica. Dropping it ends it.
pub trait Replica: Send + 'static {
    /// What its batches give.
    type Outputs: BatchOutputs;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// The process that it is, if it is one of this machine.
    fn pid(&self) -> Option<u32>;

    /// Waits until it has ended and nothing of it is left.
    fn ended(&self) -> impl Future<Output = Ended> + Send + 'static;

    /// Ends it now.
    fn kill(&self);

    /// Asks it to finish what it runs, and to end then.
    fn close(&self);

    /// Asks it to stop the batch that it runs; not every runtime can.
    fn stop_run(&self);

    /// Takes one batch. `due` gives, for each request, when its caller stops listening, if ever; it is read only by kinds
    /// that hand it on.
    ///
    /// # Errors
    /// Why it can't; nothing has changed then.
    fn stage(
        &mut self,
        batch: BatchId,
        requests: &[&[Tensor]],
        due: impl Iterator<Item = Option<Time>>,
    ) -> Result<Place, StageError>;

    /// Adds requests to a batch that it holds.
    fn append(
        &mut self,
        place: Place,
        requests: &[&[Tensor]],
        due: impl Iterator<Item = Option<Time>>,
    ) -> AppendOutcome;

    /// Takes a batch back that has not begun; false: it has.
    fn withdraw(&mut self, place: Place) -> bool;

    /// Marks rows whose callers have gone in `input`, which has one byte for each, whether or not the batch runs.
    fn mark_cancelled(&mut self, place: Place, input: usize, first_row: u32, rows: u32);

    /// How far it is.
    fn poll(&mut self, place: Place) -> Polled<Self::Outputs>;

    /// Takes the response that is there and lets the replica go on; `Ok(None)`: none is there.
    ///
    /// # Errors
    /// Where the response is unusable: the replica has been told to stop then.
    fn take_partial(&mut self, place: Place) -> Result<Option<Self::Outputs>, WorkerFailure>;

    /// Tells the replica that no further response is wanted.
    fn stop_stream(&mut self, place: Place);

    /// Whether a finished batch must wake the task from now on.
    fn set_waiting(&self, waiting: bool);
}

/// Starts the replicas of one model.
pub trait Launcher: Send + Sync + 'static {
    /// What it starts.
    type Replica: Replica;

    /// Starts one and has it load the model. Dropping the future ends what was begun.
    fn start(
        &self,
        placement: Placement,
    ) -> impl Future<Output = Result<(Self::Replica, LoadedModel)>> + Send + 'static;

    /// Waits until a replica has something to tell. May return without cause.
    fn notified(&self) -> impl Future<Output = ()> + Send;

    /// What a blocked thread can wait for in place of [`Launcher::notified`]. `None`, for kinds whose news comes otherwise:
    /// the gateway's thread then never rests while the model is loaded.
    fn doorbell(&self) -> Option<&Doorbell>;
}

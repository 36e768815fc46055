//! The two batches a worker holds: stub of the public surface.
use std::time::Duration;

use inferd_types::{BatchId, ErrorKind, Tensor};

use crate::{Outputs, Worker};

/// One of the two places for a batch in a worker's arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotId(pub(crate) u8);

impl SlotId {
    /// Every slot of a worker.
    pub const ALL: [SlotId; 2] = [SlotId(0), SlotId(1)];

    /// 0 or 1.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Where a slot stands.
#[derive(Debug)]
pub enum SlotState {
    /// Nothing is in it.
    Free,
    /// A batch is staged and not yet taken.
    Open,
    /// The worker runs it.
    Taken,
    /// It has run. Told once: the slot is free with this.
    Done(BatchResult),
}

/// How a batch ended.
#[derive(Debug)]
pub struct BatchResult {
    /// Which.
    pub batch: BatchId,
    /// Its rows.
    pub rows: u32,
    /// What the worker measured for the run itself.
    pub execution: Duration,
    /// What it gave.
    pub outcome: Result<Outputs, WorkerFailure>,
}

/// Why a batch as a whole has no outputs although its worker lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerFailure {
    /// `InvalidInput` or `ModelFailed`.
    pub kind: ErrorKind,
    /// What clients may read.
    pub message: String,
    /// For the log: a traceback. May be empty.
    pub detail: String,
}

/// Why a batch could not be staged. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageError {
    /// Both slots hold batches.
    NoSlot,
    /// It would never fit.
    TooLarge {
        /// The `arena_max_bytes` that would do.
        needed: usize,
        /// `arena_max_bytes` as it is.
        max: usize,
    },
    /// The requests do not form one batch (different shapes, or several for a model that is not batched).
    Mixed,
    /// The worker is gone or going; its exit follows.
    Lost,
}

/// What became of an attempt to add to an open batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The requests are part of the batch, behind those already in it.
    Appended,
    /// The worker was faster: nothing was added.
    TakenAlready,
    /// They don't fit in, or their shapes differ: nothing was added.
    NoRoom,
}

/// What a sleeping gateway wants to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing: it is awake and will look by itself.
    No,
    /// A batch is done. A batch that the worker takes right behind is seen with the same ring.
    Done,
    /// Also when a batch has been taken.
    TakenOrDone,
}

impl Worker {
    /// Opens a batch on a free slot and rings the worker. Each request is its inputs in the signature's order.
    ///
    /// # Errors
    /// See [`StageError`].
    pub fn stage(&mut self, batch: BatchId, requests: &[&[Tensor]]) -> Result<SlotId, StageError> {
        let _ = (batch, requests);
        todo!()
    }

    /// Adds to a batch that is still open.
    pub fn append(&mut self, slot: SlotId, requests: &[&[Tensor]]) -> AppendOutcome {
        let _ = (slot, requests);
        todo!()
    }

    /// Takes an open batch back, whole; the slot is free then. False: the worker has it already.
    pub fn withdraw(&mut self, slot: SlotId) -> bool {
        let _ = slot;
        todo!()
    }

    /// Where a slot stands now. Cheap: one load of shared memory, unless a batch is done.
    pub fn poll(&mut self, slot: SlotId) -> SlotState {
        let _ = slot;
        todo!()
    }

    /// Says what to ring the [`crate::Doorbell`] for from now on. After anything but [`Waiting::No`], poll both
    /// slots once more before sleeping: what happened just before is not rung for. One ring uses the wish up:
    /// say it again before the next sleep.
    pub fn set_waiting(&self, waiting: Waiting) {
        let _ = waiting;
        todo!()
    }
}

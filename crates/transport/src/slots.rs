//! The two batches that a worker holds, as the gateway knows them, and what can become of each.

use std::sync::Arc;
use std::time::Duration;

use inferd_types::settings::ModelSettings;
use inferd_types::{BatchId, ErrorKind, Signature};

use crate::Outputs;
use crate::layout::Layout;
use crate::link::Segment;
use crate::memory::Mapping;
use crate::staging::{Placed, Shapes};
use crate::word::Word;

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
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack for a moment; a box would be one allocation per batch"
)]
pub enum SlotState {
    /// Nothing is in it.
    Free,
    /// A batch is staged and not yet taken.
    Open,
    /// The worker runs it.
    Taken,
    /// One of several responses is there, and the worker waits: take it with [`crate::Worker::take_partial`], or
    /// [`crate::Worker::stop_stream`].
    Partial,
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
    /// How long before it was seen it had ended: what the gateway waited for its turn.
    pub unseen: Duration,
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
    /// The requests do not form one batch: no request, different shapes, or several for a model that is not batched.
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
#[repr(u32)]
pub enum Waiting {
    /// Nothing: it is awake and will look by itself.
    No = 0,
    /// A batch is done. A batch that the worker takes right behind is seen with the same ring.
    Done = 1,
    /// Also when a batch has been taken.
    TakenOrDone = 2,
}

/// The gateway's side of a worker's arena.
#[derive(Debug)]
pub(crate) struct Slots {
    pub(crate) mapping: Arc<Mapping>,
    pub(crate) layout: Layout,
    pub(crate) signature: Signature,
    pub(crate) batch_rows_max: u32,
    pub(crate) arena_max_bytes: usize,
    /// Of the last batch opened.
    pub(crate) generation: u32,
    pub(crate) staged: [Option<Staged>; 2],
    /// The worker broke the protocol: nothing it writes is looked at any more.
    pub(crate) broken: bool,
    /// Kept between batches so that staging allocates nothing.
    pub(crate) shapes: Shapes,
}

/// What the gateway knows of a batch by itself: what the worker writes is compared with it.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) batch: BatchId,
    /// As the gateway last wrote it.
    pub(crate) word: Word,
    pub(crate) taken: bool,
    /// No further response is wanted; the worker was told.
    pub(crate) stopped: bool,
    /// Rows that there is room for; none beyond its own where rows differ in size.
    pub(crate) capacity: u32,
    pub(crate) inputs: Vec<Placed>,
    pub(crate) segment: Option<Segment>,
}

impl Slots {
    pub(crate) fn new(
        mapping: Arc<Mapping>,
        layout: Layout,
        signature: &Signature,
        settings: &ModelSettings,
    ) -> Slots {
        Slots {
            mapping,
            layout,
            signature: signature.clone(),
            batch_rows_max: settings.batch_rows_max,
            arena_max_bytes: settings.arena_max_bytes,
            generation: 0,
            staged: [None, None],
            broken: false,
            shapes: Shapes::default(),
        }
    }
}

#[cfg(test)]
impl Slots {
    pub(crate) fn broken(&self) -> bool {
        self.broken
    }
}

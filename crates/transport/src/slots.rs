//! The gateway's record of a worker's two slots, and the types of its results.
//!
//! Changed by `exchange` alone. Does not read the arena itself.

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
    /// Both slots of a worker.
    pub const ALL: [SlotId; 2] = [SlotId(0), SlotId(1)];

    /// 0 or 1.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The state of a slot.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack for a moment; a box would be one allocation per batch"
)]
pub enum SlotState {
    /// It is empty.
    Free,
    /// A batch is staged and not yet taken.
    Open,
    /// The worker runs it.
    Taken,
    /// One of several responses is ready, and the worker waits: take it with [`crate::Worker::take_partial`], or
    /// [`crate::Worker::stop_stream`].
    Partial,
    /// It has run. Reported once: the slot is free with this.
    Done(BatchResult),
}

/// How a batch ended.
#[derive(Debug)]
pub struct BatchResult {
    /// The batch.
    pub batch: BatchId,
    /// Its rows.
    pub rows: u32,
    /// Execution time, as measured by the worker.
    pub execution: Duration,
    /// Time from the batch's end until the gateway saw it.
    pub unseen: Duration,
    /// Its outputs, or its failure.
    pub outcome: Result<Outputs, WorkerFailure>,
}

/// Why a batch as a whole has no outputs although its worker is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerFailure {
    /// `InvalidInput` or `ModelFailed`.
    pub kind: ErrorKind,
    /// The message for clients.
    pub message: String,
    /// For the log: a traceback. May be empty.
    pub detail: String,
}

/// Why a batch could not be staged. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageError {
    /// Both slots are in use.
    NoSlot,
    /// It exceeds `arena_max_bytes`.
    TooLarge {
        /// The `arena_max_bytes` that it needs.
        needed: usize,
        /// The present `arena_max_bytes`.
        max: usize,
    },
    /// The requests do not form one batch: none, different shapes, or several for a model that is not batched.
    Mixed,
    /// The worker is lost; its exit follows.
    Lost,
}

/// The result of an attempt to append to an open batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The requests are part of the batch, after those already in it.
    Appended,
    /// The worker has taken it: nothing was appended.
    TakenAlready,
    /// They don't fit, or their shapes differ: nothing was appended.
    NoRoom,
}

/// What a sleeping gateway wants to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Waiting {
    /// Nothing: it is awake and polls.
    No = 0,
    /// A finished batch. A batch that the worker takes right after is seen with the same ring.
    Done = 1,
    /// Also a taken batch.
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
    /// The generation of the last opened batch.
    pub(crate) generation: u32,
    pub(crate) staged: [Option<Staged>; 2],
    /// Whether the worker broke the protocol: nothing it writes is read any more.
    pub(crate) broken: bool,
    /// Reused, so that staging allocates nothing.
    pub(crate) shapes: Shapes,
}

/// The gateway's own record of a batch, with which the worker's words are compared.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) batch: BatchId,
    /// As last written by the gateway.
    pub(crate) word: Word,
    pub(crate) taken: bool,
    /// Whether the worker was told that no further response is wanted.
    pub(crate) stopped: bool,
    /// Rows that it has room for; only its own if rows differ in size.
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

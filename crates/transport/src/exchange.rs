//! Exchanges batches and results with a worker.
//!
//! Reads the tensors of requests and writes them into the arena as one batch; reads what the worker wrote and hands
//! on results. Does not know why a batch is staged, and trusts nothing that the worker writes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use inferd_types::{BatchId, ErrorKind, Tensor};

use crate::descriptor::{ARENA, Fault, OutputRoom, check_outputs, segment_of};
use crate::layout::{DESCRIPTOR_BYTES, DETAIL_MAX, GATEWAY_WAITING, MESSAGE_MAX, WORKER_SLEEPING, head};
use crate::link::Segment;
use crate::session::Worker;
use crate::slots::{
    AppendOutcome, BatchResult, SlotId, SlotState, StageError, Staged, Waiting, WorkerFailure,
};
use crate::staging::Plan;
use crate::word::{State, Word};
use crate::{Outputs, doorbell, staging};

/// Upper bound of the time between a batch's end and its being seen; a worker that reports more is wrong.
const UNSEEN_MAX: Duration = Duration::from_secs(1);

impl Worker {
    /// Opens a batch on a free slot and wakes the worker. Each request is its inputs in the signature's order.
    ///
    /// # Errors
    /// See [`StageError`].
    pub fn stage(&mut self, batch: BatchId, requests: &[&[Tensor]]) -> Result<SlotId, StageError> {
        let slots = &mut self.slots;
        if slots.broken {
            return Err(StageError::Lost);
        }
        let slot = slots.staged.iter().position(Option::is_none).ok_or(StageError::NoSlot)?;
        let batched = slots.layout.batched;
        let rows = slots.shapes.read(requests, &slots.signature, batched).ok_or(StageError::Mixed)?;
        let plan = slots.shapes.plan(rows, slots.batch_rows_max, batched);
        let (roomy, segment) = self.room_for(slot, plan)?;
        let slots = &mut self.slots;
        let place = &slots.layout.slots[slot];
        let (memory, base, id) = match &segment {
            Some(segment) => (&segment.mapping, 0, segment.id),
            None => (&slots.mapping, place.inputs.offset, ARENA),
        };
        let capacity = if roomy { plan.roomy_rows } else { rows };
        let inputs = slots.shapes.place(base, capacity, roomy);
        staging::write_rows(memory, &inputs, 0, requests);
        let descriptors = place.head + head::DESCRIPTORS;
        slots.shapes.describe(&slots.mapping, descriptors, id, &inputs);

        slots.generation = slots.generation.wrapping_add(1);
        let word = Word::new(slots.generation, State::Open, rows);
        let messages = self.link.opened(slot, word.generation);
        slots.mapping.u64(place.head + head::MESSAGES).store(messages, Ordering::Relaxed);
        // Rows and descriptors are written before the word: a worker that sees OPEN sees them.
        slots.mapping.u64(place.head + head::WORD).store(word.pack(), Ordering::Release);
        doorbell::wake(slots.mapping.u32(WORKER_SLEEPING));
        slots.staged[slot] =
            Some(Staged { batch, word, taken: false, stopped: false, capacity, inputs, segment });
        Ok(SlotId::ALL[slot])
    }

    /// The memory for the inputs of a batch: whether there is room for more rows, and the segment unless it is the
    /// arena.
    fn room_for(&self, slot: usize, plan: Plan) -> Result<(bool, Option<Segment>), StageError> {
        let arena = self.slots.layout.slots[slot].inputs.bytes;
        // In order of preference: the arena with room for more rows, a segment with such room unless that is large,
        // the exact size.
        let (roomy, bytes) = match (plan.roomy_bytes, plan.exact_bytes) {
            (roomy, _) if roomy <= arena => return Ok((true, None)),
            (roomy, _) if roomy <= self.link.slot_max() / 2 => (true, roomy),
            (_, exact) if exact <= arena => return Ok((false, None)),
            (_, exact) => (false, exact),
        };
        match self.link.input_segment(slot, bytes) {
            Ok(Some(segment)) => Ok((roomy, Some(segment))),
            Ok(None) => {
                let needed = self.slots.layout.bytes.saturating_add(plan.exact_bytes.saturating_mul(2));
                Err(StageError::TooLarge { needed, max: self.slots.arena_max_bytes })
            }
            Err(error) => {
                tracing::error!(pid = self.pid(), "a worker can't be given a segment, it is killed: {error}");
                self.process.kill();
                Err(StageError::Lost)
            }
        }
    }

    /// Appends to an open batch.
    pub fn append(&mut self, slot: SlotId, requests: &[&[Tensor]]) -> AppendOutcome {
        let slots = &mut self.slots;
        let Some(staged) = &mut slots.staged[slot.index()] else { return AppendOutcome::TakenAlready };
        let at = slots.layout.slots[slot.index()].head + head::WORD;
        let word = slots.mapping.u64(at);
        if word.load(Ordering::Relaxed) != staged.word.pack() {
            return AppendOutcome::TakenAlready;
        }
        let more = match staging::more_rows(requests, &staged.inputs) {
            Some(more) if slots.layout.batched => more,
            _ => return AppendOutcome::NoRoom,
        };
        let rows = match staged.word.rows.checked_add(more) {
            Some(rows) if rows <= staged.capacity => rows,
            _ => return AppendOutcome::NoRoom,
        };
        let memory = staged.segment.as_ref().map_or(&slots.mapping, |segment| &segment.mapping);
        // If the worker takes the batch meanwhile, these bytes are beyond its rows.
        staging::write_rows(memory, &staged.inputs, staged.word.rows, requests);
        let grown = Word { rows, ..staged.word };
        match word.compare_exchange(staged.word.pack(), grown.pack(), Ordering::Release, Ordering::Relaxed) {
            Ok(_) => {
                staged.word = grown;
                AppendOutcome::Appended
            }
            Err(_) => AppendOutcome::TakenAlready,
        }
    }

    /// Withdraws an open batch whole; the slot is free then. False: the worker has taken it already.
    pub fn withdraw(&mut self, slot: SlotId) -> bool {
        let slots = &mut self.slots;
        let Some(staged) = &slots.staged[slot.index()] else { return false };
        let at = slots.layout.slots[slot.index()].head + head::WORD;
        let free = Word { state: State::Free, rows: 0, ..staged.word };
        let swap = slots.mapping.u64(at).compare_exchange(
            staged.word.pack(),
            free.pack(),
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        if swap.is_err() {
            return false;
        }
        self.link.freed(slot.index(), staged.segment.is_some());
        slots.staged[slot.index()] = None;
        true
    }

    /// Sets `rows` rows from `first_row` on of an input with one byte per row, in a batch that may be running. Does
    /// nothing if there is no such input or row.
    pub fn mark(&mut self, slot: SlotId, input: usize, first_row: u32, rows: u32) {
        let slots = &self.slots;
        let Some(staged) = &slots.staged[slot.index()] else { return };
        let end = first_row.checked_add(rows).filter(|end| *end <= staged.word.rows);
        let offset = staged.inputs.get(input).and_then(|input| input.row_of_a_byte(first_row));
        if let (Some(_), Some(offset)) = (end, offset) {
            let memory = staged.segment.as_ref().map_or(&slots.mapping, |segment| &segment.mapping);
            memory.write(offset, &vec![1; rows as usize]);
        }
    }

    /// The state of a slot. Cheap: one load of shared memory, unless a batch is done.
    pub fn poll(&mut self, slot: SlotId) -> SlotState {
        let slots = &mut self.slots;
        let Some(staged) = &mut slots.staged[slot.index()] else { return SlotState::Free };
        if slots.broken {
            return SlotState::Taken;
        }
        let at = slots.layout.slots[slot.index()].head + head::WORD;
        let word = slots.mapping.u64(at).load(Ordering::Acquire);
        let taken = |state| Word { state, ..staged.word }.pack();
        if word == staged.word.pack() && !staged.taken {
            return SlotState::Open;
        }
        if word == taken(State::Taken) {
            staged.taken = true;
            return SlotState::Taken;
        }
        if slots.signature.decoupled && !staged.stopped && word == taken(State::Partial) {
            staged.taken = true;
            return SlotState::Partial;
        }
        if staged.stopped && word == taken(State::Stopped) {
            return SlotState::Taken;
        }
        if word != taken(State::Done) {
            self.broken("its slot word is neither taken nor done");
            return SlotState::Taken;
        }
        match self.result(slot.index()) {
            Ok(result) => SlotState::Done(result),
            Err(problem) => {
                self.broken(problem);
                SlotState::Taken
            }
        }
    }

    /// Sets what the [`crate::Doorbell`] should be rung for. After anything but [`Waiting::No`], poll both slots
    /// once more before sleeping: earlier events are not rung for. One ring uses it up: set it again before the
    /// next sleep.
    pub fn set_waiting(&self, waiting: Waiting) {
        let word = self.slots.mapping.u32(GATEWAY_WAITING);
        word.store(waiting as u32, Ordering::Relaxed);
        if waiting != Waiting::No {
            // Pairs with the fence between a worker's DONE and its read of this word.
            std::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    /// Copies the response in a slot out of the arena and lets the worker continue. `Ok(None)`: there is none, or
    /// the worker broke the protocol and its exit follows.
    ///
    /// # Errors
    /// If the model's response does not match its signature; the worker was told to stop.
    pub fn take_partial(&mut self, slot: SlotId) -> Result<Option<Outputs>, WorkerFailure> {
        if !matches!(self.poll(slot), SlotState::Partial) {
            return Ok(None);
        }
        let rows = self.slots.staged[slot.index()].as_ref().map_or(0, |staged| staged.word.rows);
        match self.outputs(slot.index(), rows) {
            Ok(outputs) => {
                self.acknowledge(slot.index(), State::Taken);
                Ok(Some(outputs))
            }
            Err(Fault::Broken(problem)) => {
                self.broken(problem);
                Ok(None)
            }
            Err(Fault::Model(message)) => {
                self.acknowledge(slot.index(), State::Stopped);
                Err(WorkerFailure { kind: ErrorKind::ModelFailed, message, detail: String::new() })
            }
        }
    }

    /// Tells a worker that waits with a response that no further response of the batch is wanted.
    pub fn stop_stream(&mut self, slot: SlotId) {
        if matches!(self.poll(slot), SlotState::Partial) {
            self.acknowledge(slot.index(), State::Stopped);
        }
    }

    fn acknowledge(&mut self, slot: usize, answer: State) {
        let messages = self.link.refilled(slot);
        let slots = &mut self.slots;
        let Some(staged) = &mut slots.staged[slot] else { return };
        let head = slots.layout.slots[slot].head;
        staged.stopped = answer == State::Stopped;
        slots.mapping.u64(head + head::MESSAGES).store(messages, Ordering::Relaxed);
        let (from, to) =
            (Word { state: State::Partial, ..staged.word }, Word { state: answer, ..staged.word });
        // The copy precedes the word: the worker overwrites the outputs once it sees it.
        let swap = slots.mapping.u64(head + head::WORD).compare_exchange(
            from.pack(),
            to.pack(),
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        if swap.is_err() {
            return self.broken("it went on before its response was acknowledged");
        }
        doorbell::wake(slots.mapping.u32(WORKER_SLEEPING));
    }

    /// Copies the result of a finished batch out of the arena and frees the slot.
    fn result(&mut self, slot: usize) -> Result<BatchResult, &'static str> {
        let slots = &self.slots;
        let place = &slots.layout.slots[slot];
        let memory = &slots.mapping;
        let staged = slots.staged[slot].as_ref().ok_or("it finished a batch that is not there")?;
        let execution =
            Duration::from_nanos(memory.u64(place.head + head::EXECUTION).load(Ordering::Relaxed));
        let ended = memory.u64(place.head + head::ENDED).load(Ordering::Relaxed);
        // The worker may have written anything.
        let unseen = Duration::from_nanos(crate::moment::nanos().saturating_sub(ended)).min(UNSEEN_MAX);
        let outcome = match memory.u32(place.head + head::OUTCOME).load(Ordering::Relaxed) {
            // Its responses were taken one by one.
            0 if slots.signature.decoupled => Ok(Outputs::none()),
            0 => match self.outputs(slot, staged.word.rows) {
                Ok(outputs) => Ok(outputs),
                Err(Fault::Broken(problem)) => return Err(problem),
                Err(Fault::Model(message)) => {
                    Err(WorkerFailure { kind: ErrorKind::ModelFailed, message, detail: String::new() })
                }
            },
            1 => Err(self.failure(slot, ErrorKind::InvalidInput)?),
            2 => Err(self.failure(slot, ErrorKind::ModelFailed)?),
            _ => return Err("an unknown outcome"),
        };
        let free = Word { state: State::Free, rows: 0, ..staged.word };
        let (batch, rows) = (staged.batch, staged.word.rows);
        memory.u64(place.head + head::WORD).store(free.pack(), Ordering::Release);
        self.link.freed(slot, staged.segment.is_some());
        self.slots.staged[slot] = None;
        Ok(BatchResult { batch, rows, execution, unseen, outcome })
    }

    fn outputs(&self, slot: usize, rows: u32) -> Result<Outputs, Fault> {
        let slots = &self.slots;
        let place = &slots.layout.slots[slot];
        let at = place.head + head::DESCRIPTORS + slots.layout.inputs * DESCRIPTOR_BYTES;
        let mut descriptors = Vec::new();
        slots.mapping.read_into(at, slots.layout.outputs * DESCRIPTOR_BYTES, &mut descriptors);
        // Most batches need no segment, and then the lock is not taken.
        let elsewhere = descriptors.chunks_exact(DESCRIPTOR_BYTES).any(|bytes| segment_of(bytes) != ARENA);
        let segments = if elsewhere { self.link.output_segments(slot) } else { Vec::new() };
        let arena = OutputRoom { segment: ARENA, start: place.outputs.offset, end: place.outputs.end() };
        let room =
            |segment: &Segment| OutputRoom { segment: segment.id, start: 0, end: segment.mapping.bytes() };
        let rooms: smallvec::SmallVec<[OutputRoom; 4]> =
            std::iter::once(arena).chain(segments.iter().map(room)).collect();
        let located = check_outputs(&descriptors, rows, &slots.signature, &rooms)?;
        let mut data = Vec::with_capacity(located.iter().map(|output| output.len).sum());
        for output in &located {
            let memory = segments
                .iter()
                .find(|segment| segment.id == output.segment)
                .map_or(&slots.mapping, |segment| &segment.mapping);
            memory.read_into(output.offset, output.len, &mut data);
        }
        Outputs::new(data, &located, rows, slots.layout.batched)
    }

    fn failure(&self, slot: usize, kind: ErrorKind) -> Result<WorkerFailure, &'static str> {
        let memory = &self.slots.mapping;
        let place = &self.slots.layout.slots[slot];
        let text = |field: usize, offset: usize, max: usize| {
            let len = memory.u32(place.head + field).load(Ordering::Relaxed) as usize;
            if len > max {
                return Err("a message that is too long");
            }
            let mut bytes = Vec::new();
            memory.read_into(place.text + offset, len, &mut bytes);
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let message = text(head::MESSAGE_LEN, 0, MESSAGE_MAX)?;
        let detail = text(head::DETAIL_LEN, MESSAGE_MAX, DETAIL_MAX)?;
        Ok(WorkerFailure { kind, message, detail })
    }

    /// Kills a worker that broke the protocol; its batches stay as they are until it is gone.
    fn broken(&mut self, problem: &str) {
        self.slots.broken = true;
        tracing::error!(
            pid = self.pid(),
            "a worker broke the protocol in shared memory and is killed: {problem}"
        );
        self.process.kill();
    }
}

//! One batch in a worker.
//!
//! Reads the descriptors that the gateway wrote, hands on addresses in the arena for inputs and outputs. Knows
//! nothing of what is computed between the two.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use inferd_types::{DataType, Error, ErrorKind, Result, Shape, element_count};
use smallvec::SmallVec;

use super::cut::{cut, cut_front};
use super::shared::{Arena, Shared, Taken};
use crate::descriptor::{ARENA, Descriptor};
use crate::frames::WorkerFrame;
use crate::layout::{ALIGN, DESCRIPTOR_BYTES, DETAIL_MAX, MESSAGE_MAX, RANK_MAX, align, head, with_rows};
use crate::memory::Mapping;

/// One input of a batch, in the arena. Valid until the batch ends.
#[derive(Clone, Debug)]
pub struct View {
    /// The element type.
    pub datatype: DataType,
    /// The dimensions; dimension 0 is the batch's rows for a batched model.
    pub shape: Shape,
    /// The first byte; aligned to 64.
    pub ptr: *const u8,
    /// Number of bytes.
    pub len: usize,
}

// SAFETY: the address belongs to a mapping that the batch holds, which no thread owns; nothing is read through it
// here.
unsafe impl Send for View {}
// SAFETY: as above: sharing the address alone accesses nothing.
unsafe impl Sync for View {}

/// A batch that this worker has taken. `Send`. Dropping it unfinished fails it.
#[derive(Debug)]
pub struct Batch {
    shared: Arc<Shared>,
    taken: Taken,
    inputs: SmallVec<[View; 2]>,
    /// Keep mapped what the addresses point into, even if the gateway releases it meanwhile.
    held: SmallVec<[Arc<Mapping>; 1]>,
    /// Room for outputs without a fixed place.
    free: Vec<Free>,
    /// Whether the slot's output segments have been added to `free`.
    looked: bool,
    answered: bool,
}

/// Free memory for outputs.
#[derive(Debug)]
struct Free {
    segment: u32,
    mapping: Arc<Mapping>,
    at: usize,
    end: usize,
}

impl Free {
    /// The next `len` bytes, if there is room.
    fn claim(&mut self, len: usize) -> Option<(u32, usize, *mut u8)> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.end)?;
        let at = self.at;
        self.at = align(end)?.min(self.end);
        Some((self.segment, at, self.mapping.at(at, len)))
    }
}

impl Batch {
    pub(super) fn open(shared: Arc<Shared>, taken: Taken) -> Result<Batch> {
        shared.busy.store(true, Ordering::Release);
        let (free, inputs, held) = (Vec::new(), SmallVec::new(), SmallVec::new());
        let mut batch = Batch { shared, taken, inputs, held, free, looked: false, answered: false };
        batch.read_inputs()?;
        Ok(batch)
    }

    fn read_inputs(&mut self) -> Result<()> {
        let shared = self.shared.clone();
        let arena = shared.arena()?;
        let place = &arena.layout.slots[self.taken.slot];
        shared.catch_up(arena.mapping.u64(place.head + head::MESSAGES).load(Ordering::Relaxed))?;
        let first = place.head + head::DESCRIPTORS;
        let wrong = |problem: &str| Error::new(ErrorKind::Internal, format!("a batch has {problem}"));
        for index in 0..arena.layout.inputs {
            let input = Descriptor::decode(
                &arena.mapping.read::<{ DESCRIPTOR_BYTES }>(first + index * DESCRIPTOR_BYTES),
            )
            .map_err(wrong)?
            .ok_or_else(|| wrong("an input without a description"))?;
            let batched = arena.layout.batched;
            let shape = if batched { with_rows(&input.shape, self.taken.word.rows) } else { input.shape };
            let len = match input.datatype.size() {
                Some(size) => element_count(&shape)?.checked_mul(size as u64),
                None => Some(input.len),
            };
            let range = len.and_then(|len| usize::try_from(len).ok()).zip(usize::try_from(input.offset).ok());
            let (len, offset) = range.ok_or_else(|| wrong("an input beyond all memory"))?;
            let mapping = if input.segment == ARENA {
                &arena.mapping
            } else {
                let inbox = shared.inbox();
                let segment =
                    inbox.segments.get(&input.segment).ok_or_else(|| wrong("an unknown segment"))?;
                self.held.push(segment.mapping.clone());
                &self.held[self.held.len() - 1]
            };
            if offset.checked_add(len).is_none_or(|end| end > mapping.bytes()) {
                return Err(wrong("an input outside of its memory"));
            }
            let ptr = mapping.at(offset, len).cast_const();
            self.inputs.push(View { datatype: input.datatype, shape, ptr, len });
        }
        self.clear_outputs();
        Ok(())
    }

    /// Resets the outputs, and frees all their room.
    fn clear_outputs(&mut self) {
        let shared = self.shared.clone();
        let Ok(arena) = shared.arena() else { return };
        let place = &arena.layout.slots[self.taken.slot];
        for index in 0..arena.layout.outputs {
            // No datatype: the output is not given yet.
            arena
                .mapping
                .zero(place.head + head::DESCRIPTORS + (arena.layout.inputs + index) * DESCRIPTOR_BYTES, 4);
        }
        self.free.clear();
        self.looked = false;
        let room = place.free_outputs;
        if room.bytes > 0 {
            self.free.push(Free {
                segment: ARENA,
                mapping: arena.mapping.clone(),
                at: room.offset,
                end: room.end(),
            });
        }
    }

    /// The batch's slot: together with `rows` and the addresses of inputs and outputs a cache key for bindings.
    pub fn slot(&self) -> usize {
        self.taken.slot
    }

    /// Rows; 1 for a model that is not batched.
    pub fn rows(&self) -> u32 {
        self.taken.word.rows
    }

    /// The inputs in the signature's order.
    pub fn inputs(&self) -> &[View] {
        &self.inputs
    }

    /// Memory for output `index` (the signature's order), aligned to 64, valid until the batch ends: fill all of
    /// it. An output of fixed shape has the same address for every batch in this slot. May ask the gateway for more
    /// memory and wait for it.
    ///
    /// # Errors
    /// If the output does not fit into `arena_max_bytes`, there is no such output, or `datatype` is BYTES.
    pub fn output(&mut self, index: usize, datatype: DataType, shape: &[u64]) -> Result<*mut u8> {
        let size = datatype.size().ok_or_else(|| {
            Error::new(ErrorKind::ModelFailed, format!("output {index} is BYTES; use output_bytes"))
        })?;
        let bytes =
            element_count(shape)?.checked_mul(size as u64).and_then(|bytes| usize::try_from(bytes).ok());
        let bytes =
            bytes.ok_or_else(|| Error::new(ErrorKind::ModelFailed, "an output is larger than all memory"))?;
        self.claim(index, datatype, shape, bytes)
    }

    /// The same for a BYTES output: `len` bytes for length-prefixed elements.
    ///
    /// # Errors
    /// As [`Batch::output`].
    pub fn output_bytes(&mut self, index: usize, shape: &[u64], len: usize) -> Result<*mut u8> {
        self.claim(index, DataType::Bytes, shape, len)
    }

    fn claim(&mut self, index: usize, datatype: DataType, shape: &[u64], len: usize) -> Result<*mut u8> {
        let failed = |message: String| Error::new(ErrorKind::ModelFailed, message);
        let shared = self.shared.clone();
        let arena = shared.arena()?;
        let place = &arena.layout.slots[self.taken.slot];
        if index >= arena.layout.outputs {
            return Err(failed(format!(
                "there is no output {index}; the signature has {}",
                arena.layout.outputs
            )));
        }
        if shape.len() > RANK_MAX {
            return Err(failed(format!(
                "output {index} has {} dimensions; {RANK_MAX} is the most",
                shape.len()
            )));
        }
        let (segment, offset, ptr) = match place.fixed_outputs[index].filter(|room| len <= room.bytes) {
            Some(room) => (ARENA, room.offset, arena.mapping.at(room.offset, len)),
            None => self.claim_free(index, len)?,
        };
        let shape = Shape::from_slice(shape);
        let descriptor = Descriptor { datatype, shape, segment, offset: offset as u64, len: len as u64 };
        let at = place.head + head::DESCRIPTORS + (arena.layout.inputs + index) * DESCRIPTOR_BYTES;
        arena.mapping.write(at, &descriptor.encode());
        Ok(ptr)
    }

    /// Room outside of the fixed places: the rest of the arena, then segments, then a new segment.
    fn claim_free(&mut self, index: usize, len: usize) -> Result<(u32, usize, *mut u8)> {
        if let Some(found) = self.free.iter_mut().find_map(|free| free.claim(len)) {
            return Ok(found);
        }
        if !self.looked {
            self.looked = true;
            let slot = self.taken.slot;
            let inbox = self.shared.inbox();
            let segments =
                inbox.segments.iter().filter(|(_, segment)| segment.outputs && segment.slot == slot);
            self.free.extend(segments.map(|(id, segment)| free(*id, &segment.mapping)));
            drop(inbox);
            if let Some(found) = self.free.iter_mut().find_map(|free| free.claim(len)) {
                return Ok(found);
            }
        }
        self.shared.inbox().room = None;
        let bytes = len.max(ALIGN);
        let (slot, generation) = (self.taken.slot, self.taken.word.generation);
        self.shared.send(&WorkerFrame::Room { slot, generation, bytes })?;
        let given = self.shared.wait_for(|inbox| match inbox.room.take()? {
            Ok(id) => inbox.segments.get(&id).map(|segment| Ok(free(id, &segment.mapping))),
            Err(max) => Some(Err(max)),
        })?;
        let mut given = given.map_err(|max| {
            let message = format!(
                "output {index} of {len} bytes does not fit with the rest of the batch; raise arena_max_bytes ({max}) \
                 or lower batch_rows_max"
            );
            Error::new(ErrorKind::ModelFailed, message)
        })?;
        let found = given.claim(len);
        self.free.push(given);
        found.ok_or_else(|| Error::new(ErrorKind::Internal, "the gateway gave less room than asked for"))
    }

    /// Keeps mapped what the addresses given so far point into, for arrays over them that may outlive the batch.
    pub fn memory(&self) -> Arc<dyn Any + Send + Sync> {
        let mut mappings: SmallVec<[Arc<Mapping>; 2]> = self.held.iter().cloned().collect();
        mappings.extend(self.free.iter().map(|free| free.mapping.clone()));
        mappings.extend(self.shared.arena().ok().map(|arena| arena.mapping.clone()));
        Arc::new(mappings)
    }

    /// Hands the outputs over as one of several responses and waits until the gateway has taken them. True:
    /// continue, with new outputs; false: no further response is wanted, so finish. Only for models whose signature
    /// is `decoupled`.
    ///
    /// # Errors
    /// If the gateway sent something invalid; exit then.
    pub fn respond(&mut self) -> Result<bool> {
        let shared = self.shared.clone();
        let arena = shared.arena()?;
        let head = arena.layout.slots[self.taken.slot].head;
        let go_on = shared.respond(arena, self.taken)?;
        shared.catch_up(arena.mapping.u64(head + head::MESSAGES).load(Ordering::Relaxed))?;
        self.clear_outputs();
        Ok(go_on)
    }

    /// Hands the outputs over. `execution` is the duration of the run itself.
    pub fn finish(mut self, execution: Duration) {
        self.answer(0, execution, "", "");
    }

    /// Fails the batch: `InvalidInput` or `ModelFailed` (which every other kind becomes), `message` for clients
    /// (its first 2 KiB), `detail` for the log (its last 14 KiB).
    pub fn fail(mut self, kind: ErrorKind, message: &str, detail: &str) {
        let outcome = if kind == ErrorKind::InvalidInput { 1 } else { 2 };
        self.answer(outcome, Duration::ZERO, message, detail);
    }

    fn answer(&mut self, outcome: u32, execution: Duration, message: &str, detail: &str) {
        self.answered = true;
        // Before DONE: `next` may be called right after.
        self.shared.busy.store(false, Ordering::Release);
        let Ok(arena) = self.shared.arena() else { return };
        let place = &arena.layout.slots[self.taken.slot];
        let memory = &arena.mapping;
        let nanos = u64::try_from(execution.as_nanos()).unwrap_or(u64::MAX);
        memory.u64(place.head + head::EXECUTION).store(nanos, Ordering::Relaxed);
        memory.u64(place.head + head::ENDED).store(crate::moment::nanos(), Ordering::Relaxed);
        memory.u32(place.head + head::OUTCOME).store(outcome, Ordering::Relaxed);
        if outcome != 0 {
            let texts = [
                (head::MESSAGE_LEN, 0, cut(message, MESSAGE_MAX)),
                (head::DETAIL_LEN, MESSAGE_MAX, cut_front(detail, DETAIL_MAX)),
            ];
            for (field, offset, text) in texts {
                memory.u32(place.head + field).store(text.len() as u32, Ordering::Relaxed);
                memory.write(place.text + offset, text.as_bytes());
            }
        }
        self.done(arena);
    }

    fn done(&self, arena: &Arena) {
        self.shared.done(arena, self.taken);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if !self.answered {
            self.answer(2, Duration::ZERO, "the worker dropped the batch without an answer", "");
        }
    }
}

fn free(segment: u32, mapping: &Arc<Mapping>) -> Free {
    Free { segment, mapping: mapping.clone(), at: 0, end: mapping.bytes() }
}

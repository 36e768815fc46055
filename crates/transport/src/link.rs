//! The gateway's end of the control socket, and the segments passed over it.
//!
//! Reads requests for memory, hands on messages and segments to one worker. Knows nothing of batches but the
//! generation in each slot.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::unix::AsyncFd;

use crate::frames::GatewayFrame;
use crate::memory::{Mapping, sealed_file};
use crate::socket;

/// Segment sizes are multiples of this, in bytes.
const SEGMENT_STEP: usize = 64 << 10;

/// Number of batches after which an unused input segment is released.
const UNUSED_MAX: u32 = 256;

/// One worker's control socket.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) socket: AsyncFd<OwnedFd>,
    /// Maximum total size of one slot's segments, in bytes.
    slot_max: usize,
    arena_max: usize,
    state: Mutex<LinkState>,
}

#[derive(Debug, Default)]
struct LinkState {
    /// Messages sent after the arena.
    sent: u64,
    next_id: u32,
    /// Whether a message could not be sent: the worker does not read, or is gone.
    broken: bool,
    slots: [SlotSegments; 2],
}

#[derive(Debug, Default)]
struct SlotSegments {
    /// The generation of the slot's batch; `None` if there is none.
    generation: Option<u32>,
    input: Option<Segment>,
    unused: u32,
    outputs: Vec<Segment>,
    /// Total output size of an earlier batch, if it took several segments: the next one is as large.
    outputs_bytes: usize,
}

/// Memory besides the arena.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) id: u32,
    pub(crate) mapping: Arc<Mapping>,
}

impl Link {
    pub(crate) fn new(socket: AsyncFd<OwnedFd>, arena_bytes: usize, arena_max: usize) -> Link {
        let slot_max = arena_max.saturating_sub(arena_bytes) / 2;
        Link { socket, slot_max, arena_max, state: Mutex::default() }
    }

    /// Maximum total size of one slot's segments, in bytes.
    pub(crate) fn slot_max(&self) -> usize {
        self.slot_max
    }

    /// Sends a message. False: the worker is lost.
    pub(crate) fn send(&self, frame: &GatewayFrame) -> bool {
        self.lock().send(&self.socket, frame, &[])
    }

    /// Records that a slot was opened. Returns how many messages the worker must read before the batch.
    pub(crate) fn opened(&self, slot: usize, generation: u32) -> u64 {
        let mut state = self.lock();
        state.slots[slot].generation = Some(generation);
        state.sent
    }

    /// Records that a slot is free again.
    pub(crate) fn freed(&self, slot: usize, used_segment: bool) {
        let mut state = self.lock();
        let segments = &mut state.slots[slot];
        segments.generation = None;
        segments.unused = if used_segment { 0 } else { segments.unused.saturating_add(1) };
        if segments.unused >= UNUSED_MAX
            && let Some(segment) = segments.input.take()
        {
            state.send(&self.socket, &GatewayFrame::Drop { id: segment.id }, &[]);
        }
        state.join_outputs(&self.socket, slot);
    }

    /// Records that the worker may write the slot's outputs again, for the next response of the batch. Returns how
    /// many messages it must read before.
    pub(crate) fn refilled(&self, slot: usize) -> u64 {
        let mut state = self.lock();
        state.join_outputs(&self.socket, slot);
        state.sent
    }

    /// The slot's input segment, of at least `bytes` bytes. The slot must be free. `Ok(None)`: the limit is
    /// exceeded.
    pub(crate) fn input_segment(&self, slot: usize, bytes: usize) -> io::Result<Option<Segment>> {
        let mut state = self.lock();
        if state.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let segments = &mut state.slots[slot];
        if let Some(segment) = segments.input.as_ref().filter(|segment| segment.mapping.bytes() >= bytes) {
            return Ok(Some(segment.clone()));
        }
        if bytes > self.slot_max {
            return Ok(None);
        }
        // Output segments of earlier batches must not exclude this one.
        let mut dropped: Vec<Segment> = segments.input.take().into_iter().collect();
        let held: usize = segments.outputs.iter().map(|segment| segment.mapping.bytes()).sum();
        if held + bytes > self.slot_max {
            dropped.append(&mut segments.outputs);
        }
        for segment in dropped {
            state.send(&self.socket, &GatewayFrame::Drop { id: segment.id }, &[]);
        }
        let held: usize = state.slots[slot].outputs.iter().map(|segment| segment.mapping.bytes()).sum();
        let segment = state.share(&self.socket, slot, grown(bytes, self.slot_max - held), false)?;
        state.slots[slot].input = Some(segment.clone());
        Ok(Some(segment))
    }

    /// Handles a worker's request for more memory for outputs.
    pub(crate) fn room_wanted(&self, slot: usize, generation: u32, bytes: usize) -> io::Result<()> {
        let mut state = self.lock();
        let segments = &state.slots[slot];
        if segments.generation != Some(generation) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "room was asked for a batch that is not there",
            ));
        }
        let held: usize =
            segments.input.iter().chain(&segments.outputs).map(|segment| segment.mapping.bytes()).sum();
        let left = self.slot_max.saturating_sub(held);
        if bytes > left {
            let sent = state.send(
                &self.socket,
                &GatewayFrame::NoRoom { slot, arena_max_bytes: self.arena_max },
                &[],
            );
            return if sent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) };
        }
        let wanted = bytes.max(segments.outputs_bytes.min(left));
        let segment = state.share(&self.socket, slot, grown(wanted, left), true)?;
        state.slots[slot].outputs.push(segment);
        Ok(())
    }

    /// The segments in which outputs of a slot may be.
    pub(crate) fn output_segments(&self, slot: usize) -> Vec<Segment> {
        self.lock().slots[slot].outputs.clone()
    }

    fn lock(&self) -> MutexGuard<'_, LinkState> {
        // Nothing panics while it is held; and if it did, every field would still be valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinkState {
    fn send(&mut self, socket: &AsyncFd<OwnedFd>, frame: &GatewayFrame, fds: &[BorrowedFd<'_>]) -> bool {
        // Messages are rare and the socket buffers dozens: it is full only if the worker does not read.
        if !self.broken && socket::send(socket.get_ref(), frame, fds).is_err() {
            self.broken = true;
        }
        self.sent += 1;
        !self.broken
    }

    /// Replaces several output segments by one the next time.
    fn join_outputs(&mut self, socket: &AsyncFd<OwnedFd>, slot: usize) {
        let segments = &mut self.slots[slot];
        if segments.outputs.len() > 1 {
            segments.outputs_bytes = segments.outputs.iter().map(|segment| segment.mapping.bytes()).sum();
            for segment in std::mem::take(&mut segments.outputs) {
                self.send(socket, &GatewayFrame::Drop { id: segment.id }, &[]);
            }
        }
    }

    fn share(
        &mut self,
        socket: &AsyncFd<OwnedFd>,
        slot: usize,
        bytes: usize,
        outputs: bool,
    ) -> io::Result<Segment> {
        let file = sealed_file("inferd-segment", bytes)?;
        let mapping = Arc::new(Mapping::new(&file, bytes)?);
        self.next_id += 1;
        let segment = Segment { id: self.next_id, mapping };
        let frame = GatewayFrame::Segment { slot, id: segment.id, bytes, outputs };
        if self.send(socket, &frame, &[file.as_fd()]) {
            Ok(segment)
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
}

/// A quarter more than requested, so that slightly larger batches need no further segment; at most `limit`.
fn grown(bytes: usize, limit: usize) -> usize {
    let wanted = bytes.saturating_add(bytes / 4);
    wanted.checked_next_multiple_of(SEGMENT_STEP).unwrap_or(wanted).min(limit)
}

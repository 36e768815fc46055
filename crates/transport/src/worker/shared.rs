//! State shared by the worker's threads: the arena, the segments, the gateway's requests.
//!
//! Reads slots and control messages, hands on taken batches. Knows nothing of tensors.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use inferd_types::{Error, ErrorKind, Result};

use crate::doorbell;
use crate::frames::WorkerFrame;
use crate::layout::{GATEWAY_WAITING, Layout, WORKER_SLEEPING, head};
use crate::memory::Mapping;
use crate::slots::Waiting;
use crate::socket;
use crate::word::{State, Word};

/// The memory from the gateway.
#[derive(Debug)]
pub(super) struct Arena {
    pub(super) mapping: Arc<Mapping>,
    pub(super) layout: Layout,
    pub(super) doorbell: OwnedFd,
}

/// A segment from the gateway.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) slot: usize,
    pub(super) outputs: bool,
    pub(super) mapping: Arc<Mapping>,
}

/// What has arrived on the socket.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) segments: HashMap<u32, Segment>,
    /// The answer to the last request for memory: a segment, or the limit that it exceeds.
    pub(super) room: Option<Result<u32, usize>>,
    /// Why a message was invalid.
    pub(super) problem: Option<String>,
}

/// A batch that was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) slot: usize,
    pub(super) word: Word,
}

type Stop = Box<dyn Fn() + Send>;

pub(super) struct Shared {
    pub(super) socket: OwnedFd,
    pub(super) arena: OnceLock<Arena>,
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    /// Messages read after the arena.
    read: AtomicU64,
    pub(super) closing: AtomicBool,
    pub(super) stop: Mutex<Option<Stop>>,
    /// The batch that was taken when the previous one was finished.
    ahead: Mutex<Option<Taken>>,
    /// Whether a batch is being run.
    pub(super) busy: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("arena", &self.arena).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(socket: OwnedFd) -> Shared {
        Shared {
            socket,
            arena: OnceLock::new(),
            inbox: Mutex::default(),
            arrived: Condvar::new(),
            read: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            stop: Mutex::new(None),
            ahead: Mutex::new(None),
            busy: AtomicBool::new(false),
        }
    }

    /// The arena; set once the model is loaded.
    pub(super) fn arena(&self) -> Result<&Arena> {
        self.arena
            .get()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the worker has no arena yet; call loaded first"))
    }

    /// Applies a change, counts a message if `counted`, and notifies waiting threads.
    pub(super) fn arrive(&self, counted: bool, change: impl FnOnce(&mut Inbox)) {
        let mut inbox = self.inbox();
        change(&mut inbox);
        if counted {
            self.read.fetch_add(1, Ordering::Release);
        }
        // Under the lock: otherwise a thread could check, then miss this, then sleep.
        self.arrived.notify_all();
    }

    /// Waits until `ready` returns a value.
    pub(super) fn wait_for<T>(&self, mut ready: impl FnMut(&mut Inbox) -> Option<T>) -> Result<T> {
        let mut inbox = self.inbox();
        loop {
            if let Some(problem) = &inbox.problem {
                return Err(Error::new(ErrorKind::Internal, problem.clone()));
            }
            if let Some(found) = ready(&mut inbox) {
                return Ok(found);
            }
            inbox = self.arrived.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until the messages that the gateway sent before it opened a batch are read.
    pub(super) fn catch_up(&self, messages: u64) -> Result<()> {
        if self.read.load(Ordering::Acquire) >= messages {
            return Ok(());
        }
        self.wait_for(|_| (self.read.load(Ordering::Acquire) >= messages).then_some(()))
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send(&self, frame: &WorkerFrame) -> Result<()> {
        socket::send(&self.socket, frame, &[]).map_err(|error| {
            Error::new(ErrorKind::Internal, "sending to the gateway failed").with_detail(error.to_string())
        })
    }

    /// Wakes the thread that waits for batches.
    pub(super) fn wake(&self) {
        if let Some(arena) = self.arena.get() {
            doorbell::wake(arena.mapping.u32(WORKER_SLEEPING));
        }
    }

    /// Takes the oldest open batch; waits for one. `None`: the gateway asked the worker to exit.
    pub(super) fn next(&self) -> Result<Option<Taken>> {
        let arena = self.arena()?;
        if let Some(taken) = self.ahead().take() {
            return Ok(Some(taken));
        }
        loop {
            if let Some(taken) = take(arena) {
                ring(arena, Waiting::TakenOrDone);
                return Ok(Some(taken));
            }
            let closing = || self.closing.load(Ordering::Acquire);
            if closing() {
                return Ok(None);
            }
            doorbell::sleep(arena.mapping.u32(WORKER_SLEEPING), || oldest_open(arena).is_some() || closing());
        }
    }

    /// Publishes the end of a batch, and takes the next one before the gateway is woken: one ring reports both.
    pub(super) fn done(&self, arena: &Arena, taken: Taken) {
        let word = Word { state: State::Done, ..taken.word };
        let at = arena.layout.slots[taken.slot].head + head::WORD;
        // Outputs and descriptors are written before the word: a gateway that sees DONE sees them.
        arena.mapping.u64(at).store(word.pack(), Ordering::Release);
        *self.ahead() = take(arena);
        ring(arena, Waiting::Done);
    }

    /// Publishes a response and waits until it was taken. False: no further response is wanted.
    pub(super) fn respond(&self, arena: &Arena, taken: Taken) -> Result<bool> {
        let word = arena.mapping.u64(arena.layout.slots[taken.slot].head + head::WORD);
        let partial = Word { state: State::Partial, ..taken.word }.pack();
        // Outputs and descriptors are written before the word, as in `done`.
        word.store(partial, Ordering::Release);
        ring(arena, Waiting::Done);
        while word.load(Ordering::Acquire) == partial {
            doorbell::sleep(arena.mapping.u32(WORKER_SLEEPING), || word.load(Ordering::Relaxed) != partial);
        }
        match Word::unpack(word.load(Ordering::Acquire)) {
            Some(Word { state: State::Taken, .. }) => Ok(true),
            Some(Word { state: State::Stopped, .. }) => Ok(false),
            _ => {
                Err(Error::new(ErrorKind::Internal, "the gateway set an invalid slot state after a response"))
            }
        }
    }

    fn ahead(&self) -> MutexGuard<'_, Option<Taken>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The open batch that was opened first.
fn oldest_open(arena: &Arena) -> Option<Taken> {
    let open = |slot: usize| {
        let at = arena.layout.slots[slot].head + head::WORD;
        let word = Word::unpack(arena.mapping.u64(at).load(Ordering::Acquire))?;
        (word.state == State::Open).then_some(Taken { slot, word })
    };
    let (one, other) = (open(0), open(1));
    // Both may have been opened between the two loads, the first one first: it is visible after the second was
    // seen.
    match (one.or_else(|| open(0)), other) {
        (Some(one), Some(other)) => Some(if other.word.older_than(one.word) { other } else { one }),
        (one, other) => one.or(other),
    }
}

/// Takes the oldest open batch, if there is one. Appended rows and a withdrawal change the word and cause a retry,
/// so what is taken is what the gateway last published.
fn take(arena: &Arena) -> Option<Taken> {
    loop {
        let Taken { slot, word } = oldest_open(arena)?;
        let at = arena.layout.slots[slot].head + head::WORD;
        let taken = Word { state: State::Taken, ..word };
        let swap = arena.mapping.u64(at).compare_exchange(
            word.pack(),
            taken.pack(),
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        if swap.is_ok() {
            return Some(Taken { slot, word: taken });
        }
    }
}

/// Rings the gateway if it sleeps and waits for `event`.
fn ring(arena: &Arena, event: Waiting) {
    let waiting = arena.mapping.u32(GATEWAY_WAITING);
    // Pairs with the gateway's fence between its announcement and its last check of the slots.
    fence(Ordering::SeqCst);
    if waiting.load(Ordering::Relaxed) >= event as u32 && waiting.swap(0, Ordering::Relaxed) != 0 {
        doorbell::ring(&arena.doorbell);
    }
}

//! One live replica as the model's task sees it: the batches that it holds, and what it is for.
//!
//! Reads what was staged and how far the replica is, hands back what has run, what was running and what was not begun. Knows nothing of the scheduler, nor of what becomes of requests.

use inferd_types::{BatchId, ReplicaId, RequestId, Time};
use smallvec::SmallVec;

use crate::generation::state::ReplicaState;
use crate::replica::kind::{Done, Place, Polled, Replica};
use crate::replica::slot::SlotKey;

/// What a replica is for at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Its first inference is under way.
    Warming,
    /// The scheduler gives it batches.
    Serving,
    /// Its run takes far longer than usual. It gets no new batches, and serves again after this time once it is done.
    Stalled(Time),
    /// It gets no new batches; when it is empty it runs suspects.
    Leaving,
    /// It runs suspects.
    Quarantine,
    /// It runs what nobody sent: a measurement or a comparison.
    Profiling,
    /// It is not wanted any more: it gets no new batches, and is closed when it is empty.
    Retiring,
    /// It was asked to end, and is killed at this time.
    Closing(Time),
}

impl Role {
    pub(crate) fn state(self) -> ReplicaState {
        match self {
            Role::Warming => ReplicaState::Starting,
            Role::Serving | Role::Profiling => ReplicaState::Ready,
            Role::Stalled(_) => ReplicaState::Stalled,
            Role::Leaving | Role::Quarantine => ReplicaState::Quarantine,
            Role::Retiring | Role::Closing(_) => ReplicaState::Closing,
        }
    }
}

/// Whose batch it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The scheduler's.
    Ordinary,
    /// The quarantine's.
    Suspects,
    /// Nobody's: the first inference.
    WarmUp,
    /// Nobody's: a measurement.
    Profile,
    /// Nobody's: copies of requests that were answered.
    Comparison,
}

/// A batch that the replica holds.
#[derive(Debug)]
pub(crate) struct HeldBatch {
    pub(crate) id: BatchId,
    /// `None`: it could not be handed over because the worker is gone; its exit follows.
    pub(crate) place: Option<Place>,
    pub(crate) purpose: Purpose,
    /// In the order of their rows. Who has left stays in: the rows are in the arena.
    pub(crate) members: Vec<(RequestId, u32)>,
    pub(crate) rows: u32,
    /// How long the padded inputs are in it: as the longest when it was opened. 0 where the model has none.
    pub(crate) length: u64,
    pub(crate) staged: Time,
    pub(crate) taken: bool,
    /// A response is there, and the worker waits for it to be taken.
    pub(crate) partial: bool,
    /// Its caller has been given a response: it is never run again.
    pub(crate) emitted: bool,
    /// Nothing ran when it was handed over: what it took beyond its execution is what handing over costs.
    pub(crate) at_once: bool,
    /// When the first of its callers stops listening.
    pub(crate) timeout: Option<Time>,
    /// The batch that it is a copy of, or that is a copy of it, and where that is. Whoever loses its callers to the
    /// other has no members left.
    pub(crate) twin: Option<(ReplicaId, BatchId)>,
}

impl HeldBatch {
    /// One without members that has just been staged.
    pub(crate) fn new(id: BatchId, place: Option<Place>, purpose: Purpose, rows: u32) -> HeldBatch {
        HeldBatch {
            id,
            place,
            purpose,
            members: Vec::new(),
            rows,
            length: 0,
            staged: Time::ZERO,
            taken: false,
            partial: false,
            emitted: false,
            at_once: false,
            timeout: None,
            twin: None,
        }
    }
}

/// How a hang is being ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hang {
    /// The runtime was asked to stop; the worker is killed at this time.
    Asked(Time),
    /// The worker was killed for it.
    Killed,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ReplicaEntry<R: Replica> {
    pub(crate) id: ReplicaId,
    pub(crate) slot: SlotKey,
    pub(crate) replica: R,
    pub(crate) role: Role,
    /// In the order of staging: the first is the one that runs, or is about to.
    pub(crate) batches: SmallVec<[HeldBatch; 2]>,
    /// When the first batch is ended: a stated bound, or nobody waits for it any more.
    pub(crate) hangs_at: Time,
    /// When the first batch will have taken far longer than usual.
    pub(crate) stalls_at: Time,
    pub(crate) hang: Option<Hang>,
    /// Runs that were begun to warm it up.
    pub(crate) warmed: u32,
    /// When it became ready.
    pub(crate) ready: Time,
    /// It has answered an ordinary batch.
    pub(crate) served: bool,
    /// When its last run ended; `None` before the first.
    pub(crate) ended: Option<Time>,
}

/// What a look at a batch showed.
#[derive(Debug)]
pub(crate) enum Seen<O> {
    /// The worker began this one.
    Taken(BatchId),
    /// The worker is done with this one.
    Done(HeldBatch, Done<O>),
}

impl<R: Replica> ReplicaEntry<R> {
    pub(crate) fn new(id: ReplicaId, slot: SlotKey, replica: R, warm_by: Time) -> ReplicaEntry<R> {
        ReplicaEntry {
            id,
            slot,
            replica,
            role: Role::Warming,
            batches: SmallVec::new(),
            hangs_at: warm_by,
            stalls_at: Time::MAX,
            hang: None,
            warmed: 0,
            ready: Time::MAX,
            served: false,
            ended: None,
        }
    }

    pub(crate) fn batch_mut(&mut self, id: BatchId) -> Option<&mut HeldBatch> {
        self.batches.iter_mut().find(|batch| batch.id == id)
    }

    pub(crate) fn take_out(&mut self, id: BatchId) -> Option<HeldBatch> {
        let place = self.batches.iter().position(|batch| batch.id == id)?;
        Some(self.batches.remove(place))
    }

    /// Whether it has nothing to do, and is given what nobody waits for.
    pub(crate) fn is_idle(&self) -> bool {
        self.role == Role::Serving && self.batches.is_empty() && self.hang.is_none()
    }

    /// Whether it runs suspects, or will when it is empty.
    pub(crate) fn is_lent(&self) -> bool {
        matches!(self.role, Role::Quarantine | Role::Leaving)
    }

    /// Whether it is the quarantine's spare.
    pub(crate) fn is_spare(&self) -> bool {
        self.slot == SlotKey::Spare
    }

    /// Looks at every batch; what is new is pushed to `seen` in the order of staging.
    pub(crate) fn look(&mut self, seen: &mut Vec<Seen<R::Outputs>>) {
        let mut at = 0;
        while let Some(batch) = self.batches.get_mut(at) {
            let polled = batch.place.map(|place| self.replica.poll(place));
            batch.partial = matches!(polled, Some(Polled::Partial));
            match polled {
                Some(Polled::Taken | Polled::Partial) if !batch.taken => {
                    batch.taken = true;
                    seen.push(Seen::Taken(batch.id));
                    at += 1;
                }
                // A worker that tells of another batch than the one in the slot is broken: it gets nothing more.
                Some(Polled::Done(done)) if done.batch == batch.id => {
                    let batch = self.batches.remove(at);
                    seen.push(Seen::Done(batch, done));
                }
                _ => at += 1,
            }
        }
    }

    /// When this replica must be looked at even if nothing rings.
    pub(crate) fn due(&self) -> Time {
        let hang = match self.hang {
            Some(Hang::Asked(kill_at)) => kill_at,
            Some(Hang::Killed) => Time::MAX,
            None if self.batches.is_empty() && self.role != Role::Warming => Time::MAX,
            None => self.hangs_at,
        };
        let role = match self.role {
            Role::Closing(kill_at) => kill_at,
            Role::Serving => self.stalls_at,
            Role::Stalled(until) if self.batches.is_empty() => until,
            _ => Time::MAX,
        };
        let timeout = self.batches.iter().filter_map(|batch| batch.timeout).min();
        hang.min(role).min(timeout.unwrap_or(Time::MAX))
    }
}

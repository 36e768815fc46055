//! The replicas: the batches of each and when it is expected to be free.
//!
//! Reads what was staged, taken and finished, hands on expected times. Knows nothing of the queue.

pub(crate) mod ejection;
pub(crate) mod health;
pub(crate) mod hedging;
pub(crate) mod routing;

use std::time::Duration;

use inferd_types::{BatchId, ReplicaId, Time};

use self::health::Health;
use crate::latency::sizes::Sizes;
use crate::message::Room;

/// A batch on a replica.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) id: BatchId,
    /// Table slots of the requests that were not cancelled.
    pub(crate) requests: Vec<u32>,
    /// Staged rows and bytes, including cancelled requests.
    pub(crate) rows: u32,
    pub(crate) bytes: usize,
    pub(crate) shape: u64,
    /// Its bucket index.
    pub(crate) size: u8,
    /// The earliest deadline of a request that could still be met.
    pub(crate) limit: Time,
    /// Maximum rows that it may grow to.
    pub(crate) cap: u32,
    /// When it began to run, as far as known.
    pub(crate) started: Time,
    /// Whether the replica took it.
    pub(crate) taken: bool,
    /// Whether nothing more may be appended.
    pub(crate) closed: bool,
    /// Whether its withdrawal was requested.
    pub(crate) withdrawing: bool,
    /// When the batch before it ended, if it was staged by then.
    pub(crate) followed: Option<Time>,
    /// The batch that it is a copy of, or its copy.
    pub(crate) twin: Option<(ReplicaId, BatchId)>,
}

/// One replica with its two slots. `second` is filled only while `first` is.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) draining: bool,
    pub(crate) room: Room,
    /// Executing, or about to be taken by an idle replica.
    pub(crate) first: Option<Batch>,
    /// Staged behind `first`, open to more requests.
    pub(crate) second: Option<Batch>,
    pub(crate) health: Health,
}

impl Replica {
    pub(crate) fn new(id: ReplicaId, room: Room) -> Self {
        Replica { id, draining: false, room, first: None, second: None, health: Health::default() }
    }

    /// Whether it gets no work now.
    pub(crate) fn is_excluded(&self) -> bool {
        self.draining || self.health.is_ejected()
    }

    /// Whether a batch that is staged now runs at once.
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_excluded() && self.first.is_none()
    }

    /// Whether a second batch may be staged.
    pub(crate) fn has_room_behind(&self) -> bool {
        !self.is_excluded() && self.room.batches > 1 && self.first.is_some() && self.second.is_none()
    }

    /// The second batch, if requests may join it.
    pub(crate) fn open_batch(&self) -> Option<&Batch> {
        let open = |batch: &&Batch| batch.is_open() && !batch.closed;
        self.second.as_ref().filter(|_| !self.is_excluded() && self.room.appends).filter(open)
    }

    /// When a batch behind the running one is expected to begin, including the pause.
    pub(crate) fn next_starts(&self, now: Time, sizes: &Sizes) -> Time {
        match &self.first {
            None => now,
            Some(first) => self.ends(first, now, sizes) + sizes.pause(),
        }
    }

    /// The predicted end of the running batch `first`: now if it is overdue within the usual spread, else as long
    /// from now as it has run already. Otherwise requests would wait behind a stalled run while other replicas are
    /// idle.
    fn ends(&self, first: &Batch, now: Time, sizes: &Sizes) -> Time {
        let after = |nanos: f64| Time::from_nanos(first.started.as_nanos().saturating_add(nanos as u64));
        let usual = after(self.takes(first, sizes));
        if now <= usual {
            return usual;
        }
        let longest = after(sizes.of(first.size).latency.high(first.rows) as f64 * self.health.pace());
        if now <= longest { now } else { now + now.since(first.started) }
    }

    /// When the running batch began, and its expected duration; `None` if unknown.
    pub(crate) fn running(&self, sizes: &Sizes) -> Option<(Time, Duration)> {
        let first = self.first.as_ref().filter(|first| first.taken)?;
        let nanos = self.takes(first, sizes);
        (nanos > 0.0).then(|| (first.started, Duration::from_nanos(nanos as u64)))
    }

    /// When a batch behind all that it holds is expected to begin.
    pub(crate) fn free_at(&self, now: Time, sizes: &Sizes) -> Time {
        let next = self.next_starts(now, sizes);
        let Some(second) = &self.second else { return next };
        next + Duration::from_nanos(self.takes(second, sizes) as u64) + sizes.pause()
    }

    /// Mean execution time of `batch` on this replica, in nanoseconds; 0 while unknown.
    fn takes(&self, batch: &Batch, sizes: &Sizes) -> f64 {
        batch.mean(sizes) * self.health.pace()
    }

    pub(crate) fn batch_mut(&mut self, id: BatchId) -> Option<&mut Batch> {
        [self.first.as_mut(), self.second.as_mut()].into_iter().flatten().find(|batch| batch.id == id)
    }

    /// Removes a batch from its slot; the batch staged behind it is next, and the replica takes it at once.
    pub(crate) fn take_out(&mut self, now: Time, id: BatchId) -> Option<Batch> {
        if self.second.as_ref().is_some_and(|batch| batch.id == id) {
            return self.second.take();
        }
        let out = self.first.take_if(|batch| batch.id == id)?;
        self.first = self.second.take().map(|mut next| {
            if !next.taken {
                next.started = now;
            }
            next.closed = true;
            next
        });
        Some(out)
    }
}

impl Batch {
    /// Mean execution time in nanoseconds; 0 while unknown.
    fn mean(&self, sizes: &Sizes) -> f64 {
        sizes.of(self.size).latency.mean(self.rows).unwrap_or(0.0)
    }

    /// Whether the replica has not taken it and its withdrawal was not requested.
    pub(crate) fn is_open(&self) -> bool {
        !self.taken && !self.withdrawing
    }
}

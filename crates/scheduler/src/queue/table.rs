//! All held requests, by id.
//!
//! Reads ids, hands on small dense slots that other modules store instead of ids. Knows nothing of order.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::{Index, IndexMut};

use inferd_types::{BatchId, ReplicaId, RequestId, Tenant, Time};

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the queue.
    Queued,
    /// In a batch that a replica holds.
    Batch(ReplicaId, BatchId),
    /// With the dispatcher, after its replica was lost.
    Away,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: RequestId,
    pub(crate) arrived: Time,
    /// Its soft deadline: arrival plus objective, or the deadline of a pipeline's step; [`Time::MAX`] without one.
    pub(crate) promised: Time,
    /// The same while it has an effect: [`Time::MAX`] if it can't be met, or once it is demoted.
    pub(crate) soft: Time,
    /// The caller's hard deadline; [`Time::MAX`] without one.
    pub(crate) timeout: Time,
    /// Its order within its class.
    pub(crate) key: u64,
    pub(crate) tenant: Tenant,
    pub(crate) shape: u64,
    /// Its bucket index.
    pub(crate) size: u8,
    pub(crate) rows: u32,
    pub(crate) bytes: usize,
    /// The class that it is queued in: its own, or a better one after ageing.
    pub(crate) class: u8,
    /// How many classes it has risen by ageing.
    pub(crate) risen: u32,
    pub(crate) place: Place,
    /// Whether it was demoted behind all that can still meet their objective.
    pub(crate) demoted: bool,
    /// Whether it runs in a batch of its own, because a batch with it could not be staged.
    pub(crate) alone: bool,
    /// Whether it was admitted although its timeout looks too short, to learn whether the latency model still
    /// holds.
    pub(crate) probe: bool,
}

impl Entry {
    /// The earlier of its deadlines.
    pub(crate) fn limit(&self) -> Time {
        self.soft.min(self.timeout)
    }
}

/// Ids are small and consecutive: one multiplication spreads them well enough.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

/// A map from ids.
pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Table {
    slots: IdMap<u64, u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
}

impl Table {
    /// Number of held requests.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The slot of a held request.
    pub(crate) fn find(&self, id: RequestId) -> Option<u32> {
        self.slots.get(&id.0).copied()
    }

    /// Holds a request.
    pub(crate) fn insert(&mut self, entry: Entry) -> u32 {
        let id = entry.id.0;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot as usize] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).expect("the queue's bounds keep it far below 2^32")
            }
        };
        self.slots.insert(id, slot);
        slot
    }

    /// Releases a request. Its slot may be reused.
    pub(crate) fn release(&mut self, slot: u32) {
        let id = self.entries[slot as usize].id.0;
        if self.slots.remove(&id).is_some() {
            self.free.push(slot);
        }
    }
}

impl Index<u32> for Table {
    type Output = Entry;

    fn index(&self, slot: u32) -> &Entry {
        &self.entries[slot as usize]
    }
}

impl IndexMut<u32> for Table {
    fn index_mut(&mut self, slot: u32) -> &mut Entry {
        &mut self.entries[slot as usize]
    }
}

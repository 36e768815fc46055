//! The replicas of a model, by key: those that live, and the slots that outlive them.
//!
//! Reads what is started, lost and wanted; hands out entries by id and slots by key. The quarantine's spare has a slot of
//! its own beside the others, and is not counted among them. Knows nothing of the scheduler, nor of how a replica starts.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

use inferd_types::{ReplicaId, Time};

use crate::replica::entry::{ReplicaEntry, Role};
use crate::replica::kind::Replica;
use crate::replica::slot::{ReplicaSlot, SlotKey, SlotState};

/// See the module.
#[derive(Debug)]
pub(crate) struct Replicas<R: Replica> {
    /// Ascending by id, which increases with each start: there are few, and they are looked through at every turn.
    entries: Vec<ReplicaEntry<R>>,
    slots: BTreeMap<usize, ReplicaSlot>,
    spare: ReplicaSlot,
    last_id: u32,
}

impl<R: Replica> Replicas<R> {
    /// `count` slots, and the spare's.
    pub(crate) fn new(count: u32) -> Replicas<R> {
        let slots = (0..count.max(1) as usize).map(|key| (key, ReplicaSlot::default()));
        Replicas { entries: Vec::new(), slots: slots.collect(), spare: ReplicaSlot::default(), last_id: 0 }
    }

    /// Replicas that are wanted, the spare not counted.
    pub(crate) fn count(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Whether none lives.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, ReplicaEntry<R>> {
        self.entries.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, ReplicaEntry<R>> {
        self.entries.iter_mut()
    }

    /// The first that lives after `id` in the order of starts: for loops whose body needs all of the task.
    pub(crate) fn after(&self, id: Option<ReplicaId>) -> Option<ReplicaId> {
        let next = self.entries.partition_point(|entry| Some(entry.id) <= id);
        self.entries.get(next).map(|entry| entry.id)
    }

    /// The first that is as `wanted`.
    pub(crate) fn find(&self, wanted: impl Fn(&ReplicaEntry<R>) -> bool) -> Option<ReplicaId> {
        self.entries.iter().find(|entry| wanted(entry)).map(|entry| entry.id)
    }

    pub(crate) fn contains(&self, id: ReplicaId) -> bool {
        self.position(id).is_some()
    }

    pub(crate) fn get_mut(&mut self, id: ReplicaId) -> Option<&mut ReplicaEntry<R>> {
        let position = self.position(id)?;
        self.entries.get_mut(position)
    }

    /// Takes in what was started for the slot `key`.
    pub(crate) fn insert(&mut self, key: SlotKey, replica: R, warm_by: Time) -> ReplicaId {
        self.last_id += 1;
        let id = ReplicaId(self.last_id);
        self.entries.push(ReplicaEntry::new(id, key, replica, warm_by));
        if let Some(slot) = self.slot_mut(key) {
            slot.state = SlotState::Filled(id);
        }
        id
    }

    /// Takes out what has ended. Its slot is as it was.
    pub(crate) fn remove(&mut self, id: ReplicaId) -> Option<ReplicaEntry<R>> {
        let position = self.position(id)?;
        Some(self.entries.remove(position))
    }

    /// `None`: the slot was given up.
    pub(crate) fn slot_mut(&mut self, key: SlotKey) -> Option<&mut ReplicaSlot> {
        match key {
            SlotKey::Regular(number) => self.slots.get_mut(&number),
            SlotKey::Spare => Some(&mut self.spare),
        }
    }

    pub(crate) fn spare(&self) -> &ReplicaSlot {
        &self.spare
    }

    /// Those that were asked for, then the spare's.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (SlotKey, &ReplicaSlot)> {
        let regular = self.slots.iter().map(|(number, slot)| (SlotKey::Regular(*number), slot));
        regular.chain([(SlotKey::Spare, &self.spare)])
    }

    /// A slot whose next start is due.
    pub(crate) fn due(&self, now: Time) -> Option<SlotKey> {
        self.slots().find(|(_, slot)| slot.due() <= now).map(|(key, _)| key)
    }

    /// Those that were asked for.
    pub(crate) fn regular(&self) -> impl Iterator<Item = (SlotKey, &ReplicaSlot)> {
        self.slots.iter().map(|(number, slot)| (SlotKey::Regular(*number), slot))
    }

    /// Ends every start that is under way, and starts nothing more.
    pub(crate) fn clear_slots(&mut self) {
        self.slots.values_mut().for_each(ReplicaSlot::clear);
        self.spare.clear();
    }

    /// One slot more, with the lowest number that is free.
    pub(crate) fn add_slot(&mut self) -> SlotKey {
        let number = (0..).find(|number| !self.slots.contains_key(number)).unwrap_or_default();
        self.slots.insert(number, ReplicaSlot::default());
        SlotKey::Regular(number)
    }

    /// One slot fewer: the one whose loss costs least, of equal ones the last. What lives in it has no slot from now on.
    pub(crate) fn give_up_slot(&mut self) -> Option<ReplicaId> {
        let cost = |slot: &ReplicaSlot| match slot.state {
            SlotState::Empty | SlotState::Starting { .. } | SlotState::Waiting { .. } => 0,
            SlotState::Filled(id) => match self.position(id).map(|position| &self.entries[position]) {
                None => 1,
                Some(entry) if entry.hang.is_some() => 1,
                Some(entry) => match entry.role {
                    Role::Closing(_) | Role::Retiring | Role::Warming => 1,
                    Role::Stalled(_) => 2,
                    Role::Leaving | Role::Quarantine => 3,
                    Role::Serving | Role::Profiling => 4,
                },
            },
        };
        let number = self.slots.iter().rev().min_by_key(|(_, slot)| cost(slot)).map(|(number, _)| *number)?;
        let mut slot = self.slots.remove(&number)?;
        let filled = if let SlotState::Filled(id) = slot.state { Some(id) } else { None };
        slot.clear();
        filled
    }

    /// What logs and status call the replica of a slot: the spare comes after all others.
    pub(crate) fn number(&self, key: SlotKey) -> usize {
        match key {
            SlotKey::Regular(number) => number,
            SlotKey::Spare => self.slots.last_key_value().map_or(0, |(last, _)| last + 1),
        }
    }

    fn position(&self, id: ReplicaId) -> Option<usize> {
        self.entries.binary_search_by_key(&id, |entry| entry.id).ok()
    }
}

impl<R: Replica> Index<ReplicaId> for Replicas<R> {
    type Output = ReplicaEntry<R>;

    fn index(&self, id: ReplicaId) -> &ReplicaEntry<R> {
        let position = self.position(id).unwrap_or_else(|| panic!("replica {id} is not there"));
        &self.entries[position]
    }
}

impl<R: Replica> IndexMut<ReplicaId> for Replicas<R> {
    fn index_mut(&mut self, id: ReplicaId) -> &mut ReplicaEntry<R> {
        let position = self.position(id).unwrap_or_else(|| panic!("replica {id} is not there"));
        &mut self.entries[position]
    }
}

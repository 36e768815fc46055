//! What waits: one ordered queue for each priority class.
//!
//! Reads entries, hands them back class by class, earliest first. Knows nothing of replicas or of the latency model.

use std::collections::VecDeque;

use crate::order::{Item, Order};
use crate::table::{Entry, IdMap, Place, Table};

#[derive(Debug)]
struct Class {
    priority: u8,
    order: Order,
    /// (id, slot) in the order of arrival, to find who waits longest. Those who left are dropped when met.
    elders: VecDeque<(u64, u32)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Ascending by priority number: the class served first stands first. Classes appear when first used.
    classes: Vec<Class>,
    /// Rows that wait of each shape.
    shapes: IdMap<u64, u64>,
    rows: u64,
    demoted: u64,
    requests: usize,
    bytes: usize,
}

impl Queue {
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows of those that were demoted.
    pub(crate) fn demoted(&self) -> u64 {
        self.demoted
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests == 0
    }

    /// Rows of one shape.
    pub(crate) fn rows_of(&self, shape: u64) -> u64 {
        self.shapes.get(&shape).copied().unwrap_or(0)
    }

    /// Rows that are served before a newcomer of this class and key.
    pub(crate) fn rows_ahead(&self, priority: u8, key: u64) -> u64 {
        let mut rows = 0;
        for class in &self.classes {
            match class.priority.cmp(&priority) {
                std::cmp::Ordering::Less => rows += class.order.rows(),
                std::cmp::Ordering::Equal => rows += class.order.rows_until(key),
                std::cmp::Ordering::Greater => break,
            }
        }
        rows
    }

    /// The first in line.
    pub(crate) fn first(&self) -> Option<Item> {
        self.classes.iter().find_map(|class| class.order.first().copied())
    }

    /// All in line.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.classes.iter().flat_map(|class| class.order.iter())
    }

    /// Puts a request in line, at the place that its class and key give it.
    pub(crate) fn insert(&mut self, slot: u32, entry: &Entry) {
        let at = self.class(entry.class);
        let class = &mut self.classes[at];
        let item = Item { key: entry.key, id: entry.id.0, shape: entry.shape, slot, rows: entry.rows };
        class.order.insert(item);
        // The first class can't rise; whoever is in it when a better one appears is listed then.
        if at > 0 {
            class.remember(entry.id.0, slot);
        }
        self.rows += u64::from(entry.rows);
        self.demoted += if entry.demoted { u64::from(entry.rows) } else { 0 };
        self.requests += 1;
        self.bytes += entry.bytes;
        *self.shapes.entry(entry.shape).or_insert(0) += u64::from(entry.rows);
    }

    /// Takes a request out of the line.
    pub(crate) fn remove(&mut self, entry: &Entry) {
        let at = self.class(entry.class);
        let found = self.classes[at].order.remove(entry.key, entry.id.0);
        debug_assert!(found, "a queued request is in the order of its class");
        self.rows -= u64::from(entry.rows);
        self.demoted -= if entry.demoted { u64::from(entry.rows) } else { 0 };
        self.requests -= 1;
        self.bytes -= entry.bytes;
        if let Some(rows) = self.shapes.get_mut(&entry.shape) {
            *rows -= u64::from(entry.rows);
            if *rows == 0 && self.shapes.len() > 64 {
                self.shapes.remove(&entry.shape);
            }
        }
    }

    /// Of each class but the first, the request that waits longest, and the class above it.
    pub(crate) fn elders(&mut self, table: &Table, mut visit: impl FnMut(u32, u8)) {
        for at in 1..self.classes.len() {
            let above = self.classes[at - 1].priority;
            if let Some(slot) = self.classes[at].eldest(table) {
                visit(slot, above);
            }
        }
    }

    fn class(&mut self, priority: u8) -> usize {
        match self.classes.binary_search_by_key(&priority, |class| class.priority) {
            Ok(at) => at,
            Err(at) => {
                self.classes.insert(at, Class { priority, order: Order::default(), elders: VecDeque::new() });
                if at == 0 && self.classes.len() > 1 {
                    self.classes[1].list_elders();
                }
                at
            }
        }
    }
}

impl Class {
    fn list_elders(&mut self) {
        let mut elders: Vec<_> = self.order.iter().map(|item| (item.id, item.slot)).collect();
        elders.sort_unstable();
        self.elders = elders.into();
    }

    fn remember(&mut self, id: u64, slot: u32) {
        if self.elders.len() > 64 + 4 * self.order.len() {
            self.list_elders();
        } else if self.elders.front().is_some_and(|front| id < front.0) {
            self.elders.push_front((id, slot));
        } else {
            self.elders.push_back((id, slot));
        }
    }

    fn eldest(&mut self, table: &Table) -> Option<u32> {
        while let Some((id, slot)) = self.elders.front().copied() {
            let here = table.find(inferd_types::RequestId(id)).is_some_and(|found| {
                found == slot && table[slot].class == self.priority && table[slot].place == Place::Queued
            });
            if here {
                return Some(slot);
            }
            self.elders.pop_front();
        }
        None
    }
}

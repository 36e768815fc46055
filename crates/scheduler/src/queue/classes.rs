//! What waits: one queue for each priority class, shared by its tenants.
//!
//! Reads entries, hands them back class by class, in the order of service. Knows nothing of replicas or of the latency
//! model.

use std::cmp::Ordering;
use std::collections::VecDeque;

use inferd_types::Tenant;

use crate::queue::fair::{Fair, Held, Whose};
use crate::queue::order::Item;
use crate::queue::table::{Entry, IdMap, Place, Table};

#[derive(Debug)]
struct Class {
    priority: u8,
    fair: Fair,
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
    /// Rows that wait of each bucket, by its index.
    sizes: Vec<u64>,
    rows: u64,
    /// Of these, those that were demoted.
    demoted: u64,
    requests: usize,
    bytes: usize,
}

impl Queue {
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows of those that can still be met, as far as is known.
    pub(crate) fn prompt_rows(&self) -> u64 {
        self.rows - self.demoted
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

    /// Rows of each bucket, by its index; those that follow have none.
    pub(crate) fn by_size(&self) -> &[u64] {
        &self.sizes
    }

    /// Rows that are served before a newcomer of this class, tenant and key.
    ///
    pub(crate) fn rows_ahead(&self, priority: u8, tenant: Tenant, key: u64) -> u64 {
        let mut rows = 0;
        for class in &self.classes {
            match class.priority.cmp(&priority) {
                Ordering::Less => rows += class.fair.rows(),
                Ordering::Equal => rows += class.fair.rows_before(tenant, key),
                Ordering::Greater => break,
            }
        }
        rows
    }

    /// Where tenants share the queue: what this one has waiting in this class.
    pub(crate) fn held_by(&self, priority: u8, tenant: Tenant) -> Option<Held> {
        let found = self.classes.binary_search_by_key(&priority, |class| class.priority);
        let class = found.ok().map(|at| &self.classes[at]);
        let shared = tenant.id != 0 || class.is_some_and(|class| class.fair.is_shared());
        shared.then(|| class.map_or(Held::default(), |class| class.fair.held_by(tenant)))
    }

    /// Whether more than one tenant was seen in a class that something waits in.
    pub(crate) fn is_shared(&self) -> bool {
        self.classes.iter().any(|class| class.fair.len() > 0 && class.fair.is_shared())
    }

    /// The first in line.
    pub(crate) fn first(&self) -> Option<Item> {
        self.classes.iter().find_map(|class| class.fair.first().copied())
    }

    /// All in line.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.classes.iter().flat_map(|class| class.fair.iter())
    }

    /// Puts a request in line, at the place that its class, tenant and key give it.
    pub(crate) fn insert(&mut self, slot: u32, entry: &Entry) {
        let at = self.class(entry.class);
        let class = &mut self.classes[at];
        let item = Item { key: entry.key, id: entry.id.0, shape: entry.shape, slot, rows: entry.rows };
        class.fair.insert(entry.into(), item);
        // The first class can't rise; whoever is in it when a better one appears is listed then.
        if at > 0 {
            class.remember(entry.id.0, slot);
        }
        self.rows += u64::from(entry.rows);
        self.demoted += if entry.demoted { u64::from(entry.rows) } else { 0 };
        if self.sizes.len() <= usize::from(entry.size) {
            self.sizes.resize(usize::from(entry.size) + 1, 0);
        }
        self.sizes[usize::from(entry.size)] += u64::from(entry.rows);
        self.requests += 1;
        self.bytes += entry.bytes;
        *self.shapes.entry(entry.shape).or_insert(0) += u64::from(entry.rows);
    }

    /// Takes a request out of the line without its having been served.
    pub(crate) fn remove(&mut self, entry: &Entry) {
        self.take(entry, false);
    }

    /// Takes a request out of the line to be served.
    pub(crate) fn serve(&mut self, entry: &Entry) {
        self.take(entry, true);
    }

    fn take(&mut self, entry: &Entry, served: bool) {
        let at = self.class(entry.class);
        let class = &mut self.classes[at];
        let found = class.fair.take(entry.into(), entry.key, entry.id.0, served);
        debug_assert!(found, "a queued request is in the line of its tenant");
        self.rows -= u64::from(entry.rows);
        self.demoted -= if entry.demoted { u64::from(entry.rows) } else { 0 };
        self.sizes[usize::from(entry.size)] -= u64::from(entry.rows);
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
                self.classes.insert(at, Class::new(priority));
                if at == 0 && self.classes.len() > 1 {
                    self.classes[1].list_elders();
                }
                at
            }
        }
    }
}

impl From<&Entry> for Whose {
    fn from(entry: &Entry) -> Whose {
        let late = if entry.demoted { entry.rows } else { 0 };
        Whose { tenant: entry.tenant, bytes: entry.bytes, late }
    }
}

impl Class {
    fn new(priority: u8) -> Class {
        Class { priority, fair: Fair::default(), elders: VecDeque::new() }
    }

    fn list_elders(&mut self) {
        let mut elders: Vec<_> = self.fair.iter().map(|item| (item.id, item.slot)).collect();
        elders.sort_unstable();
        self.elders = elders.into();
    }

    fn remember(&mut self, id: u64, slot: u32) {
        if self.elders.len() > 64 + 4 * self.fair.len() {
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

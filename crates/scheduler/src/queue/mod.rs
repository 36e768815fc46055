//! The queue: one per priority class, shared by its tenants.
//!
//! Reads entries, hands them on class by class, in the order of service. Knows nothing of replicas or of the
//! latency model.

pub(crate) mod backlogs;
pub(crate) mod fair;
pub(crate) mod order;
pub(crate) mod table;
pub(crate) mod tenant;
pub(crate) mod turns;

use std::cmp::Ordering;
use std::collections::VecDeque;

use inferd_types::Tenant;

use self::fair::{Charge, FairQueue, TenantBacklog};
use self::order::Item;
use self::table::{Entry, IdMap, Place, Table};

#[derive(Debug)]
struct Class {
    priority: u8,
    fair: FairQueue,
    /// (id, slot) in the order of arrival, to find the oldest. Entries of requests that left are dropped when met.
    by_arrival: VecDeque<(u64, u32)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Ascending by priority number: the class served first is first. Created on first use.
    classes: Vec<Class>,
    /// Queued rows by shape.
    shapes: IdMap<u64, u64>,
    /// Queued rows by bucket index.
    sizes: Vec<u64>,
    rows: u64,
    /// Rows of demoted requests among them.
    demoted: u64,
    requests: usize,
    bytes: usize,
}

impl Queue {
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows of requests that were not demoted.
    pub(crate) fn undemoted_rows(&self) -> u64 {
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

    /// Rows by bucket index; further buckets have none.
    pub(crate) fn by_size(&self) -> &[u64] {
        &self.sizes
    }

    /// Rows that are served before a new request of this class, tenant and key.
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

    /// What the tenant has queued in this class, if tenants share the queue.
    pub(crate) fn held_by(&self, priority: u8, tenant: Tenant) -> Option<TenantBacklog> {
        let found = self.classes.binary_search_by_key(&priority, |class| class.priority);
        let class = found.ok().map(|at| &self.classes[at]);
        let shared = tenant.id != 0 || class.is_some_and(|class| class.fair.is_shared());
        shared.then(|| class.map_or(TenantBacklog::default(), |class| class.fair.held_by(tenant)))
    }

    /// Whether a class with queued requests has seen more than one tenant.
    pub(crate) fn is_shared(&self) -> bool {
        self.classes.iter().any(|class| class.fair.len() > 0 && class.fair.is_shared())
    }

    /// The head.
    pub(crate) fn first(&self) -> Option<Item> {
        self.classes.iter().find_map(|class| class.fair.first().copied())
    }

    /// All items, in the order of service.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.classes.iter().flat_map(|class| class.fair.iter())
    }

    /// Inserts a request at the place that its class, tenant and key determine.
    pub(crate) fn insert(&mut self, slot: u32, entry: &Entry) {
        let at = self.class(entry.class);
        let class = &mut self.classes[at];
        let item = Item { key: entry.key, id: entry.id.0, shape: entry.shape, slot, rows: entry.rows };
        class.fair.insert(entry.into(), item);
        // The first class can't rise; its requests are listed once a better class appears.
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

    /// Removes a request that was not served.
    pub(crate) fn remove(&mut self, entry: &Entry) {
        self.take(entry, false);
    }

    /// Removes a request that is served.
    pub(crate) fn serve(&mut self, entry: &Entry) {
        self.take(entry, true);
    }

    fn take(&mut self, entry: &Entry, served: bool) {
        let at = self.class(entry.class);
        let class = &mut self.classes[at];
        let found = class.fair.take(entry.into(), entry.key, entry.id.0, served);
        debug_assert!(found, "a queued request is in its tenant's queue");
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

    /// For each class but the first, visits its oldest request and the class above it.
    pub(crate) fn visit_oldest(&mut self, table: &Table, mut visit: impl FnMut(u32, u8)) {
        for at in 1..self.classes.len() {
            let above = self.classes[at - 1].priority;
            if let Some(slot) = self.classes[at].oldest(table) {
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
                    self.classes[1].list_by_arrival();
                }
                at
            }
        }
    }
}

impl From<&Entry> for Charge {
    fn from(entry: &Entry) -> Charge {
        let demoted = if entry.demoted { entry.rows } else { 0 };
        Charge { tenant: entry.tenant, bytes: entry.bytes, demoted }
    }
}

impl Class {
    fn new(priority: u8) -> Class {
        Class { priority, fair: FairQueue::default(), by_arrival: VecDeque::new() }
    }

    fn list_by_arrival(&mut self) {
        let mut by_arrival: Vec<_> = self.fair.iter().map(|item| (item.id, item.slot)).collect();
        by_arrival.sort_unstable();
        self.by_arrival = by_arrival.into();
    }

    fn remember(&mut self, id: u64, slot: u32) {
        if self.by_arrival.len() > 64 + 4 * self.fair.len() {
            self.list_by_arrival();
        } else if self.by_arrival.front().is_some_and(|front| id < front.0) {
            self.by_arrival.push_front((id, slot));
        } else {
            self.by_arrival.push_back((id, slot));
        }
    }

    fn oldest(&mut self, table: &Table) -> Option<u32> {
        while let Some((id, slot)) = self.by_arrival.front().copied() {
            let here = table.find(inferd_types::RequestId(id)).is_some_and(|found| {
                found == slot && table[slot].class == self.priority && table[slot].place == Place::Queued
            });
            if here {
                return Some(slot);
            }
            self.by_arrival.pop_front();
        }
        None
    }
}

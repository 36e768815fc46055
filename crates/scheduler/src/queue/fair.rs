//! Fair queueing of one class: each tenant has a queue ordered by deadline, and the queues take turns by weight.
//!
//! Reads items with their tenant, hands them on in the order of service. Knows nothing of deadlines or replicas.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, "Start-time Fair Queueing: A Scheduling Algorithm for Integrated
//! Services Packet Switching Networks", SIGCOMM 1996, section 2): a queue's first item has the start tag `max(v,
//! finish tag of the queue's last)`, its finish tag is `rows / weight` later, the smallest start tag is served next
//! and the virtual time `v` is that tag. Tags belong to queues, not to items, so that a later arrival with an
//! earlier deadline runs first within its queue. With a single queue, no tags are kept.

use std::collections::BTreeSet;

use inferd_types::Tenant;

use super::backlogs::Backlogs;
use super::order::{Item, Order};
use super::table::IdMap;
use super::tenant::{ROW, TenantQueue, tag};
use super::turns::{Iter, Turns};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct FairQueue {
    /// In order of first arrival.
    queues: Vec<TenantQueue>,
    by_tenant: IdMap<u32, u32>,
    /// (start tag, index) of the queues that are not empty; kept from the second queue on.
    turns: BTreeSet<(u64, u32)>,
    /// Their lengths in rows.
    backlogs: Backlogs,
    /// The virtual time.
    clock: u64,
    /// The greatest finish tag.
    latest: u64,
    rows: u64,
    len: usize,
}

/// The tenant of an item, and what it adds to the tenant's totals.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Charge {
    pub(crate) tenant: Tenant,
    pub(crate) bytes: usize,
    /// Its rows if it was demoted, else 0.
    pub(crate) demoted: u32,
}

/// What a tenant has queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TenantBacklog {
    pub(crate) rows: u64,
    pub(crate) bytes: usize,
}

impl FairQueue {
    /// Rows of all items.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Number of items.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether more than one tenant was ever seen.
    pub(crate) fn is_shared(&self) -> bool {
        self.queues.len() > 1
    }

    /// What `tenant` has queued.
    pub(crate) fn held_by(&self, tenant: Tenant) -> TenantBacklog {
        let queue = self.find(tenant).map(|at| &self.queues[at as usize]);
        queue.map_or(TenantBacklog::default(), |queue| TenantBacklog {
            rows: queue.order.rows(),
            bytes: queue.bytes,
        })
    }

    /// The item that is served next.
    pub(crate) fn first(&self) -> Option<&Item> {
        let queue = match self.turns.first() {
            Some((_, queue)) => self.queues.get(*queue as usize),
            None => self.queues.first(),
        };
        queue.and_then(|queue| queue.order.first())
    }

    /// All items, in the order in which they would be served without further arrivals.
    pub(crate) fn iter(&self) -> Iter<'_> {
        match self.queues.as_slice() {
            [] => Iter::None,
            [queue] => Iter::One(queue.order.iter()),
            queues => Iter::Several(Turns::new(queues, &self.turns)),
        }
    }

    /// Rows that are served before a new request of `tenant` with `key`: the tenant's own that are due before it,
    /// and the other tenants' shares in that time.
    ///
    /// The tenant's demoted requests are ordered behind it but will run: admission that ignored them would soon
    /// find the queue full of them.
    pub(crate) fn rows_before(&self, tenant: Tenant, key: u64) -> u64 {
        let queue = self.find(tenant).map(|at| &self.queues[at as usize]);
        let (own, demoted) = queue.map_or((0, 0), |queue| (queue.order.rows_until(key), queue.demoted));
        if !self.is_shared() {
            return own + demoted;
        }
        let start = queue.map_or(self.clock, |queue| queue.start.max(self.clock));
        let wait = start + tag(own + demoted, tenant.weight) - self.clock;
        let mine = queue.filter(|queue| !queue.order.is_empty());
        own + demoted
            + self.backlogs.served(wait, ROW, mine.map(|queue| (queue.order.rows(), queue.tenant.weight)))
    }

    /// Inserts an item into its tenant's queue.
    pub(crate) fn insert(&mut self, charge: Charge, item: Item) {
        let at = self.queue_of(charge.tenant);
        self.leave(at);
        let clock = self.clock;
        let queue = &mut self.queues[at as usize];
        if queue.order.is_empty() {
            queue.start = queue.start.max(clock);
        }
        queue.tenant.weight = charge.tenant.weight.clamp(1, 1 << ROW);
        queue.bytes += charge.bytes;
        queue.demoted += u64::from(charge.demoted);
        self.rows += u64::from(item.rows);
        self.len += 1;
        queue.order.insert(item);
        self.join(at);
    }

    /// Removes an item; if `served`, it is charged to its tenant. `false` if it is not there.
    pub(crate) fn take(&mut self, charge: Charge, key: u64, id: u64, served: bool) -> bool {
        let Some(at) = self.find(charge.tenant) else { return false };
        self.leave(at);
        let shared = self.is_shared();
        let queue = &mut self.queues[at as usize];
        let taken = queue.order.remove(key, id);
        if let Some(rows) = taken {
            queue.bytes -= charge.bytes;
            queue.demoted -= u64::from(charge.demoted);
            self.rows -= u64::from(rows);
            self.len -= 1;
            if served && shared {
                self.clock = self.clock.max(queue.start);
                queue.start += tag(u64::from(rows), queue.tenant.weight);
                self.latest = self.latest.max(queue.start);
            }
        }
        self.join(at);
        if self.len == 0 {
            // A tenant that was served much while the others' queues were empty is not charged for it.
            self.clock = self.latest;
        }
        taken.is_some()
    }

    /// Removes a queue from the turns before it changes.
    fn leave(&mut self, at: u32) {
        let queue = &self.queues[at as usize];
        if self.queues.len() > 1 && !queue.order.is_empty() {
            self.turns.remove(&(queue.start, at));
            self.backlogs.remove(queue.order.rows(), queue.tenant.weight);
        }
    }

    fn join(&mut self, at: u32) {
        let queue = &self.queues[at as usize];
        if self.queues.len() > 1 && !queue.order.is_empty() {
            self.turns.insert((queue.start, at));
            self.backlogs.add(queue.order.rows(), queue.tenant.weight);
        }
    }

    fn find(&self, tenant: Tenant) -> Option<u32> {
        match self.queues.as_slice() {
            [] => None,
            [queue, ..] if queue.tenant.id == tenant.id => Some(0),
            _ => self.by_tenant.get(&tenant.id).copied(),
        }
    }

    fn queue_of(&mut self, tenant: Tenant) -> u32 {
        if let Some(at) = self.find(tenant) {
            return at;
        }
        let at = self.queues.len() as u32;
        let weight = tenant.weight.clamp(1, 1 << ROW);
        let queue = TenantQueue {
            tenant: Tenant { weight, ..tenant },
            order: Order::default(),
            start: self.clock,
            demoted: 0,
            bytes: 0,
        };
        self.queues.push(queue);
        self.by_tenant.insert(tenant.id, at);
        if at == 1 {
            self.join(0);
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant(id: u32) -> Tenant {
        Tenant { id, weight: 1 + id % 4 }
    }

    fn charge(id: u32) -> Charge {
        Charge { tenant: tenant(id), bytes: 1, demoted: 0 }
    }

    fn item(key: u64, id: u64, rows: u32) -> Item {
        Item { key, id, shape: 0, slot: 0, rows }
    }

    /// Serves the first item until none is left.
    fn served(fair: &mut FairQueue, of: &[(u32, u64, u32)]) -> Vec<u64> {
        let mut ids = Vec::new();
        while let Some(first) = fair.first().copied() {
            assert!(fair.take(charge(of[first.id as usize].0), first.key, first.id, true));
            ids.push(first.id);
        }
        ids
    }

    proptest! {
        #[test]
        fn the_predicted_order_is_the_order_of_service(
            of in prop::collection::vec((0u32..6, 0u64..50, 1u32..5), 1..200),
            before in 0usize..40,
        ) {
            let mut fair = FairQueue::default();
            for (id, (of, key, rows)) in of.iter().enumerate() {
                fair.insert(charge(*of), item(*key, id as u64, *rows));
            }
            for _ in 0..before.min(of.len()) {
                let first = *fair.first().expect("more are in it");
                fair.take(charge(of[first.id as usize].0), first.key, first.id, true);
            }
            let rows: u32 = fair.iter().map(|item| item.rows).sum();
            prop_assert_eq!(u64::from(rows), fair.rows());
            let predicted: Vec<_> = fair.iter().map(|item| item.id).collect();
            prop_assert_eq!(predicted, served(&mut fair, &of));
            prop_assert_eq!((fair.len(), fair.rows(), fair.held_by(tenant(0))), (0, 0, TenantBacklog::default()));
        }

        /// Theorem 1 of the paper: service by weight of tenants whose queues are never empty differs by at most one
        /// request of each.
        #[test]
        fn tenants_that_always_wait_get_their_shares(rows in prop::collection::vec(1u32..9, 400)) {
            let mut fair = FairQueue::default();
            let of: Vec<_> = rows.iter().enumerate().map(|(id, rows)| (id as u32 % 4, id as u64, *rows)).collect();
            for (id, (of, key, rows)) in of.iter().enumerate() {
                fair.insert(charge(*of), item(*key, id as u64, *rows));
            }
            let mut got = [0.0f64; 4];
            for _ in 0..100 {
                let first = *fair.first().expect("a quarter is served");
                let of_whom = of[first.id as usize].0;
                fair.take(charge(of_whom), first.key, first.id, true);
                got[of_whom as usize] += f64::from(first.rows) / f64::from(tenant(of_whom).weight);
                for (one, other) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
                    let most = 8.0 / f64::from(tenant(one).weight) + 8.0 / f64::from(tenant(other).weight);
                    prop_assert!((got[one as usize] - got[other as usize]).abs() <= most, "{got:?}");
                }
            }
        }

        #[test]
        fn rows_before_is_never_less_than_the_rows_served_before(
            of in prop::collection::vec((0u32..6, 0u64..50, 1u32..2), 1..200),
            new in (0u32..7, 0u64..60),
        ) {
            let mut fair = FairQueue::default();
            for (id, (of, key, rows)) in of.iter().enumerate() {
                fair.insert(charge(*of), item(*key, id as u64, *rows));
            }
            let before = fair.rows_before(tenant(new.0), new.1);
            fair.insert(charge(new.0), item(new.1, of.len() as u64, 1));
            let place = fair.iter().position(|item| item.id == of.len() as u64).expect("just put in") as u64;
            // One turn of each other tenant may have the same tag.
            prop_assert!(place <= before + 6, "{place} instead of {before}");
            prop_assert!(before <= 2 * place + 6, "{place} instead of {before}");
        }
    }

    #[test]
    fn a_request_behind_the_long_backlog_of_another_tenant_is_next() {
        let mut fair = FairQueue::default();
        (0..1000).for_each(|id| fair.insert(charge(0), item(id, id, 1)));
        assert_eq!(fair.rows_before(tenant(4), 5000), 0);
        assert_eq!(fair.rows_before(tenant(0), 5000), 1000);
        fair.insert(charge(4), item(5000, 1000, 1));
        assert!(fair.iter().take(2).any(|item| item.id == 1000));
        assert_eq!(fair.held_by(tenant(4)), TenantBacklog { rows: 1, bytes: 1 });
    }

    #[test]
    fn a_tenant_is_not_charged_for_service_while_the_other_queues_were_empty() {
        let mut fair = FairQueue::default();
        for id in 0..100 {
            fair.insert(charge(4), item(id, id, 1));
            fair.insert(charge(8), item(id, 1000 + id, 1));
            if id > 0 {
                assert!(fair.take(charge(8), id - 1, 999 + id, true));
            }
        }
        while let Some(first) = fair.first().copied() {
            fair.take(charge(if first.id < 1000 { 4 } else { 8 }), first.key, first.id, true);
        }
        fair.insert(charge(8), item(0, 0, 1));
        fair.insert(charge(4), item(1, 1, 1));
        fair.insert(charge(8), item(2, 2, 1));
        assert_eq!(fair.iter().map(|item| item.id).take(2).sum::<u64>(), 1);
    }
}

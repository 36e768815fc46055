//! One class shared by its tenants: each has a line of its own, ordered by deadline, and the lines take turns by
//! weight.
//!
//! Reads items with their tenant, hands them back in the order of service. Knows nothing of deadlines or replicas.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, "Start-time Fair Queueing: A Scheduling Algorithm for Integrated
//! Services Packet Switching Networks", SIGCOMM 1996, section 2): a line's first item has the start tag
//! `max(v, finish tag of the line's last)`, its finish tag lies `rows / weight` after that, the smallest start tag is
//! served next and the virtual time `v` is that tag. Tags belong to lines, not to items, so that who comes later but
//! is due earlier runs first inside its line. While there is one line only, no tag is kept at all.

use std::collections::BTreeSet;

use inferd_types::Tenant;

use crate::queue::line::{Line, ROW, tag};
use crate::queue::octaves::Octaves;
use crate::queue::order::{Item, Order};
use crate::queue::table::IdMap;
use crate::queue::turns::{Iter, Turns};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Fair {
    /// Tenants appear when they first come.
    lines: Vec<Line>,
    by_tenant: IdMap<u32, u32>,
    /// (start tag, line) of the lines that are not empty; kept from the second line on.
    turns: BTreeSet<(u64, u32)>,
    /// How much waits in them.
    backlogs: Octaves,
    /// The virtual time.
    clock: u64,
    /// The greatest finish tag.
    latest: u64,
    rows: u64,
    len: usize,
}

/// Whose an item is, and what else counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Whose {
    pub(crate) tenant: Tenant,
    pub(crate) bytes: usize,
    /// Its rows if it was demoted, else none.
    pub(crate) late: u32,
}

/// What a tenant has waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) rows: u64,
    pub(crate) bytes: usize,
}

impl Fair {
    /// Rows of all items.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Items in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether more than one tenant was ever seen.
    pub(crate) fn is_shared(&self) -> bool {
        self.lines.len() > 1
    }

    /// What `tenant` has waiting.
    pub(crate) fn held_by(&self, tenant: Tenant) -> Held {
        let line = self.find(tenant).map(|at| &self.lines[at as usize]);
        line.map_or(Held::default(), |line| Held { rows: line.order.rows(), bytes: line.bytes })
    }

    /// Whoever is served next.
    pub(crate) fn first(&self) -> Option<&Item> {
        let line = match self.turns.first() {
            Some((_, line)) => self.lines.get(*line as usize),
            None => self.lines.first(),
        };
        line.and_then(|line| line.order.first())
    }

    /// All, in the order in which they would be served if nobody came any more.
    pub(crate) fn iter(&self) -> Iter<'_> {
        match self.lines.as_slice() {
            [] => Iter::None,
            [line] => Iter::One(line.order.iter()),
            lines => Iter::Several(Turns::new(lines, &self.turns)),
        }
    }

    /// Rows that are served before a newcomer of `tenant` with `key`: its own that are due before it, and of the
    /// others' no more than their shares of that time.
    ///
    /// Its demoted stand behind it, but they will be run: whoever counted on their never running would soon find the
    /// line full of them.
    pub(crate) fn rows_before(&self, tenant: Tenant, key: u64) -> u64 {
        let line = self.find(tenant).map(|at| &self.lines[at as usize]);
        let (own, late) = line.map_or((0, 0), |line| (line.order.rows_until(key), line.late));
        if !self.is_shared() {
            return own + late;
        }
        let start = line.map_or(self.clock, |line| line.start.max(self.clock));
        let wait = start + tag(own + late, tenant.weight) - self.clock;
        let mine = line.filter(|line| !line.order.is_empty());
        own + late + self.backlogs.served(wait, ROW, mine.map(|line| (line.order.rows(), line.tenant.weight)))
    }

    /// Puts an item in its tenant's line.
    pub(crate) fn insert(&mut self, whose: Whose, item: Item) {
        let at = self.line(whose.tenant);
        self.leave(at);
        let clock = self.clock;
        let line = &mut self.lines[at as usize];
        if line.order.is_empty() {
            line.start = line.start.max(clock);
        }
        line.tenant.weight = whose.tenant.weight.clamp(1, 1 << ROW);
        line.bytes += whose.bytes;
        line.late += u64::from(whose.late);
        self.rows += u64::from(item.rows);
        self.len += 1;
        line.order.insert(item);
        self.join(at);
    }

    /// Takes an item out; if to be `served`, its tenant's next turn comes after the others'. `false` where it is not
    /// there.
    pub(crate) fn take(&mut self, whose: Whose, key: u64, id: u64, served: bool) -> bool {
        let Some(at) = self.find(whose.tenant) else { return false };
        self.leave(at);
        let shared = self.is_shared();
        let line = &mut self.lines[at as usize];
        let taken = line.order.remove(key, id);
        if let Some(rows) = taken {
            line.bytes -= whose.bytes;
            line.late -= u64::from(whose.late);
            self.rows -= u64::from(rows);
            self.len -= 1;
            if served && shared {
                self.clock = self.clock.max(line.start);
                line.start += tag(u64::from(rows), line.tenant.weight);
                self.latest = self.latest.max(line.start);
            }
        }
        self.join(at);
        if self.len == 0 {
            // Who was served much while others had nothing waiting owes nobody anything.
            self.clock = self.latest;
        }
        taken.is_some()
    }

    /// Takes a line out of the turns, for a change.
    fn leave(&mut self, at: u32) {
        let line = &self.lines[at as usize];
        if self.lines.len() > 1 && !line.order.is_empty() {
            self.turns.remove(&(line.start, at));
            self.backlogs.remove(line.order.rows(), line.tenant.weight);
        }
    }

    fn join(&mut self, at: u32) {
        let line = &self.lines[at as usize];
        if self.lines.len() > 1 && !line.order.is_empty() {
            self.turns.insert((line.start, at));
            self.backlogs.add(line.order.rows(), line.tenant.weight);
        }
    }

    fn find(&self, tenant: Tenant) -> Option<u32> {
        match self.lines.as_slice() {
            [] => None,
            [line, ..] if line.tenant.id == tenant.id => Some(0),
            _ => self.by_tenant.get(&tenant.id).copied(),
        }
    }

    fn line(&mut self, tenant: Tenant) -> u32 {
        if let Some(at) = self.find(tenant) {
            return at;
        }
        let at = self.lines.len() as u32;
        let weight = tenant.weight.clamp(1, 1 << ROW);
        let line = Line {
            tenant: Tenant { weight, ..tenant },
            order: Order::default(),
            start: self.clock,
            late: 0,
            bytes: 0,
        };
        self.lines.push(line);
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

    fn whose(id: u32) -> Whose {
        Whose { tenant: tenant(id), bytes: 1, late: 0 }
    }

    fn item(key: u64, id: u64, rows: u32) -> Item {
        Item { key, id, shape: 0, slot: 0, rows }
    }

    /// Serves whoever is first until nobody is left.
    fn served(fair: &mut Fair, of: &[(u32, u64, u32)]) -> Vec<u64> {
        let mut ids = Vec::new();
        while let Some(first) = fair.first().copied() {
            assert!(fair.take(whose(of[first.id as usize].0), first.key, first.id, true));
            ids.push(first.id);
        }
        ids
    }

    proptest! {
        #[test]
        fn the_order_that_is_foretold_is_the_order_of_service(
            of in prop::collection::vec((0u32..6, 0u64..50, 1u32..5), 1..200),
            before in 0usize..40,
        ) {
            let mut fair = Fair::default();
            for (id, (of, key, rows)) in of.iter().enumerate() {
                fair.insert(whose(*of), item(*key, id as u64, *rows));
            }
            for _ in 0..before.min(of.len()) {
                let first = *fair.first().expect("more are in it");
                fair.take(whose(of[first.id as usize].0), first.key, first.id, true);
            }
            let rows: u32 = fair.iter().map(|item| item.rows).sum();
            prop_assert_eq!(u64::from(rows), fair.rows());
            let foretold: Vec<_> = fair.iter().map(|item| item.id).collect();
            prop_assert_eq!(foretold, served(&mut fair, &of));
            prop_assert_eq!((fair.len(), fair.rows(), fair.held_by(tenant(0))), (0, 0, Held::default()));
        }

        /// Theorem 1 of the paper: between tenants that always have something waiting, what they got by weight
        /// differs by no more than one request of each.
        #[test]
        fn tenants_that_always_wait_get_their_shares(rows in prop::collection::vec(1u32..9, 400)) {
            let mut fair = Fair::default();
            let of: Vec<_> = rows.iter().enumerate().map(|(id, rows)| (id as u32 % 4, id as u64, *rows)).collect();
            for (id, (of, key, rows)) in of.iter().enumerate() {
                fair.insert(whose(*of), item(*key, id as u64, *rows));
            }
            let mut got = [0.0f64; 4];
            for _ in 0..100 {
                let first = *fair.first().expect("a quarter is served");
                let of_whom = of[first.id as usize].0;
                fair.take(whose(of_whom), first.key, first.id, true);
                got[of_whom as usize] += f64::from(first.rows) / f64::from(tenant(of_whom).weight);
                for (one, other) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
                    let most = 8.0 / f64::from(tenant(one).weight) + 8.0 / f64::from(tenant(other).weight);
                    prop_assert!((got[one as usize] - got[other as usize]).abs() <= most, "{got:?}");
                }
            }
        }

        #[test]
        fn nobody_is_told_of_fewer_rows_before_it_than_are_served_before_it(
            of in prop::collection::vec((0u32..6, 0u64..50, 1u32..2), 1..200),
            newcomer in (0u32..7, 0u64..60),
        ) {
            let mut fair = Fair::default();
            for (id, (of, key, rows)) in of.iter().enumerate() {
                fair.insert(whose(*of), item(*key, id as u64, *rows));
            }
            let told = fair.rows_before(tenant(newcomer.0), newcomer.1);
            fair.insert(whose(newcomer.0), item(newcomer.1, of.len() as u64, 1));
            let place = fair.iter().position(|item| item.id == of.len() as u64).expect("just put in") as u64;
            // A turn of each other tenant may come at the same tag.
            prop_assert!(place <= told + 6, "{place} instead of {told}");
            prop_assert!(told <= 2 * place + 6, "{place} instead of {told}");
        }
    }

    #[test]
    fn who_comes_into_a_long_backlog_of_another_is_next() {
        let mut fair = Fair::default();
        (0..1000).for_each(|id| fair.insert(whose(0), item(id, id, 1)));
        assert_eq!(fair.rows_before(tenant(4), 5000), 0);
        assert_eq!(fair.rows_before(tenant(0), 5000), 1000);
        fair.insert(whose(4), item(5000, 1000, 1));
        assert!(fair.iter().take(2).any(|item| item.id == 1000));
        assert_eq!(fair.held_by(tenant(4)), Held { rows: 1, bytes: 1 });
    }

    #[test]
    fn a_tenant_owes_nothing_for_what_it_got_while_nobody_else_waited() {
        let mut fair = Fair::default();
        for id in 0..100 {
            fair.insert(whose(4), item(id, id, 1));
            fair.insert(whose(8), item(id, 1000 + id, 1));
            if id > 0 {
                assert!(fair.take(whose(8), id - 1, 999 + id, true));
            }
        }
        while let Some(first) = fair.first().copied() {
            fair.take(whose(if first.id < 1000 { 4 } else { 8 }), first.key, first.id, true);
        }
        fair.insert(whose(8), item(0, 0, 1));
        fair.insert(whose(4), item(1, 1, 1));
        fair.insert(whose(8), item(2, 2, 1));
        assert_eq!(fair.iter().map(|item| item.id).take(2).sum::<u64>(), 1);
    }
}

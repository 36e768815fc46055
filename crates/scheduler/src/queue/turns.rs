//! The order in which the queues of a class would be served without further arrivals.
//!
//! Reads the queues and their tags, hands on items. Changes nothing.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, btree_set};
use std::iter::Peekable;

use super::order::{self, Item};
use super::tenant::{TenantQueue, tag};

/// Items in the order of service.
pub(crate) enum Iter<'a> {
    None,
    One(order::Iter<'a>),
    Several(Turns<'a>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Item;

    fn next(&mut self) -> Option<&'a Item> {
        match self {
            Iter::None => None,
            Iter::One(queue) => queue.next(),
            Iter::Several(turns) => turns.next(),
        }
    }
}

/// Simulates the turns. A queue is read at its first turn, so that a few items cost a few steps, however many
/// queues there are.
pub(crate) struct Turns<'a> {
    queues: &'a [TenantQueue],
    fresh: Peekable<btree_set::Iter<'a, (u64, u32)>>,
    /// (tag, queue, place) of the queues that had a turn.
    begun: BinaryHeap<Reverse<(u64, u32, usize)>>,
    places: Vec<order::Iter<'a>>,
}

impl<'a> Turns<'a> {
    /// `order` has the (start tag, queue) of those that are not empty.
    pub(crate) fn new(queues: &'a [TenantQueue], order: &'a BTreeSet<(u64, u32)>) -> Self {
        Turns { queues, fresh: order.iter().peekable(), begun: BinaryHeap::new(), places: Vec::new() }
    }
}

impl<'a> Iterator for Turns<'a> {
    type Item = &'a Item;

    fn next(&mut self) -> Option<&'a Item> {
        loop {
            let begun = self.begun.peek().map(|Reverse((start, queue, _))| (*start, *queue));
            let first = self.fresh.next_if(|fresh| begun.is_none_or(|begun| **fresh < begun));
            let (start, queue, place) = match first {
                Some((start, queue)) => {
                    self.places.push(self.queues[*queue as usize].order.iter());
                    (*start, *queue, self.places.len() - 1)
                }
                None => self.begun.pop()?.0,
            };
            // A queue that has ended takes no further part.
            if let Some(item) = self.places[place].next() {
                let weight = self.queues[queue as usize].tenant.weight;
                let after = start + tag(u64::from(item.rows), weight);
                self.begun.push(Reverse((after, queue, place)));
                return Some(item);
            }
        }
    }
}

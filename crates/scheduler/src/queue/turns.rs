//! The order in which the lines of a class would be served if nobody came any more.
//!
//! Reads the lines and their tags, hands back items. Changes nothing.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, btree_set};
use std::iter::Peekable;

use crate::queue::line::{Line, tag};
use crate::queue::order::{self, Item};

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
            Iter::One(line) => line.next(),
            Iter::Several(turns) => turns.next(),
        }
    }
}

/// Plays the turns out without changing anything. Lines are looked at when their first turn comes, so that a few
/// items cost a few steps, however many lines there are.
pub(crate) struct Turns<'a> {
    lines: &'a [Line],
    fresh: Peekable<btree_set::Iter<'a, (u64, u32)>>,
    /// (tag, line, place) of the lines that had a turn.
    begun: BinaryHeap<Reverse<(u64, u32, usize)>>,
    places: Vec<order::Iter<'a>>,
}

impl<'a> Turns<'a> {
    /// `order` has the (start tag, line) of those that are not empty.
    pub(crate) fn new(lines: &'a [Line], order: &'a BTreeSet<(u64, u32)>) -> Self {
        Turns { lines, fresh: order.iter().peekable(), begun: BinaryHeap::new(), places: Vec::new() }
    }
}

impl<'a> Iterator for Turns<'a> {
    type Item = &'a Item;

    fn next(&mut self) -> Option<&'a Item> {
        loop {
            let begun = self.begun.peek().map(|Reverse((start, line, _))| (*start, *line));
            let first = self.fresh.next_if(|fresh| begun.is_none_or(|begun| **fresh < begun));
            let (start, line, place) = match first {
                Some((start, line)) => {
                    self.places.push(self.lines[*line as usize].order.iter());
                    (*start, *line, self.places.len() - 1)
                }
                None => self.begun.pop()?.0,
            };
            // A line that has ended takes no further part.
            if let Some(item) = self.places[place].next() {
                let weight = self.lines[line as usize].tenant.weight;
                let after = start + tag(u64::from(item.rows), weight);
                self.begun.push(Reverse((after, line, place)));
                return Some(item);
            }
        }
    }
}

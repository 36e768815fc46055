//! Virtual time: what is to happen, in the order of its moments.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use inferd_types::Time;

#[derive(Debug)]
struct Entry<T> {
    at: Time,
    sequence: u64,
    happening: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// A clock that moves on to the next thing that happens. Of one moment, what was planned first happens first.
#[derive(Debug)]
pub struct Agenda<T> {
    /// The time now. Moved on by hand, it makes late what was due meanwhile.
    pub now: Time,
    entries: BinaryHeap<Reverse<Entry<T>>>,
    sequence: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Agenda { now: Time::ZERO, entries: BinaryHeap::new(), sequence: 0 }
    }
}

impl<T> Agenda<T> {
    /// Plans what happens `wait` from now.
    pub fn after(&mut self, wait: Duration, happening: T) {
        self.sequence += 1;
        let (at, sequence) = (self.now + wait, self.sequence);
        self.entries.push(Reverse(Entry { at, sequence, happening }));
    }

    /// What happens next; `None`: nothing any more. Time never goes back.
    #[expect(clippy::should_implement_trait, reason = "what follows is planned while it runs")]
    pub fn next(&mut self) -> Option<T> {
        let Reverse(entry) = self.entries.pop()?;
        self.now = self.now.max(entry.at);
        Some(entry.happening)
    }

    /// Whether something more happens in this moment.
    pub fn has_more_now(&self) -> bool {
        self.entries.peek().is_some_and(|Reverse(next)| next.at <= self.now)
    }
}

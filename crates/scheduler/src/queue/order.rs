//! A sorted queue that also knows how many rows are before any place in it.
//!
//! Reads items with a key, hands them on in the order of (key, id). Knows nothing of deadlines or classes.
//!
//! Two levels: a list of chunks of at most [`CHUNK`] items, each with the sum of its rows. Appending at the end and
//! taking from the front, by far the most frequent operations, touch one chunk; anywhere else costs a binary search
//! and a short move. A balanced tree was the alternative: more steps and more cache misses.

use std::collections::{VecDeque, vec_deque};
use std::iter::Flatten;

/// Maximum items per chunk: a move within it stays in the first-level cache.
const CHUNK: usize = 128;
/// Emptied chunks kept for reuse: few, since each tenant of each class has an order.
const SPARE: usize = 2;

/// What ordering and batch forming need of a queued request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    /// Smallest first.
    pub(crate) key: u64,
    /// Breaks ties.
    pub(crate) id: u64,
    /// Which requests it may share a batch with.
    pub(crate) shape: u64,
    /// The slot of its entry in the table.
    pub(crate) slot: u32,
    /// Its rows.
    pub(crate) rows: u32,
}

impl Item {
    pub(crate) fn rank(&self) -> (u64, u64) {
        (self.key, self.id)
    }
}

/// Items, smallest first.
pub(crate) type Iter<'a> = Flatten<vec_deque::Iter<'a, VecDeque<Item>>>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Order {
    chunks: VecDeque<VecDeque<Item>>,
    /// Rows of each chunk; separate from the chunks so that summing reads little memory.
    sums: VecDeque<u64>,
    spare: Vec<VecDeque<Item>>,
    rows: u64,
    len: usize,
}

impl Order {
    /// Whether it has no items.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rows of all items.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// The smallest item.
    pub(crate) fn first(&self) -> Option<&Item> {
        self.chunks.front().and_then(VecDeque::front)
    }

    /// All items, smallest first.
    pub(crate) fn iter(&self) -> Iter<'_> {
        self.chunks.iter().flatten()
    }

    /// Rows of the items whose key is at most `key`.
    pub(crate) fn rows_until(&self, key: u64) -> u64 {
        let at = self.chunks.partition_point(|chunk| chunk.back().is_some_and(|last| last.key <= key));
        if at == self.chunks.len() {
            return self.rows;
        }
        // Sums from the nearer end.
        let whole: u64 = if at <= self.sums.len() / 2 {
            self.sums.range(..at).sum()
        } else {
            self.rows - self.sums.range(at..).sum::<u64>()
        };
        let part = &self.chunks[at];
        let within = part.partition_point(|item| item.key <= key);
        whole + part.range(..within).map(|item| u64::from(item.rows)).sum::<u64>()
    }

    /// Inserts an item in order. (key, id) must be new.
    pub(crate) fn insert(&mut self, item: Item) {
        self.rows += u64::from(item.rows);
        self.len += 1;
        let rank = item.rank();
        let count = self.chunks.len();
        let last = self.chunks.back().and_then(VecDeque::back);
        if last.is_none_or(|last| last.rank() < rank) {
            if self.chunks.back().is_none_or(|chunk| chunk.len() >= CHUNK) {
                let chunk = self.fresh();
                self.chunks.push_back(chunk);
                self.sums.push_back(0);
            }
            let end = self.chunks.len() - 1;
            self.chunks[end].push_back(item);
            self.sums[end] += u64::from(item.rows);
            return;
        }
        let at = self.chunk_of(rank).min(count - 1);
        let place = self.chunks[at].partition_point(|other| other.rank() < rank);
        self.chunks[at].insert(place, item);
        self.sums[at] += u64::from(item.rows);
        if self.chunks[at].len() > CHUNK {
            self.split(at);
        }
    }

    /// Removes an item and returns its rows; `None` if it is not there.
    pub(crate) fn remove(&mut self, key: u64, id: u64) -> Option<u32> {
        let rank = (key, id);
        let at = if self.first().is_some_and(|first| first.rank() == rank) { 0 } else { self.chunk_of(rank) };
        let chunk = self.chunks.get_mut(at)?;
        let place = chunk.partition_point(|other| other.rank() < rank);
        if chunk.get(place).is_none_or(|item| item.rank() != rank) {
            return None;
        }
        let rows = chunk.remove(place)?.rows;
        self.sums[at] -= u64::from(rows);
        self.rows -= u64::from(rows);
        self.len -= 1;
        if self.chunks[at].is_empty() {
            self.sums.remove(at);
            if let Some(chunk) = self.chunks.remove(at)
                && self.spare.len() < SPARE
            {
                self.spare.push(chunk);
            }
        }
        Some(rows)
    }

    /// The first chunk whose last item is not before `rank`.
    fn chunk_of(&self, rank: (u64, u64)) -> usize {
        self.chunks.partition_point(|chunk| chunk.back().is_some_and(|last| last.rank() < rank))
    }

    fn split(&mut self, at: usize) {
        let mut upper = self.fresh();
        upper.extend(self.chunks[at].drain(CHUNK / 2..));
        let rows: u64 = upper.iter().map(|item| u64::from(item.rows)).sum();
        self.sums[at] -= rows;
        self.chunks.insert(at + 1, upper);
        self.sums.insert(at + 1, rows);
    }

    fn fresh(&mut self) -> VecDeque<Item> {
        self.spare.pop().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_behaves_as_a_sorted_list_does(steps in prop::collection::vec((0u64..40, 0u32..4, any::<bool>()), 1..1500)) {
            let mut order = Order::default();
            let mut model: Vec<(u64, u64, u32)> = Vec::new();
            for (id, (key, rows, insert)) in steps.into_iter().enumerate() {
                if insert || model.is_empty() {
                    order.insert(Item { key, id: id as u64, shape: 0, slot: 0, rows });
                    model.push((key, id as u64, rows));
                    model.sort_unstable();
                } else {
                    let (key, id, rows) = model.remove(key as usize % model.len());
                    prop_assert_eq!(order.remove(key, id), Some(rows));
                    prop_assert_eq!(order.remove(key, id), None);
                }
                prop_assert_eq!(order.iter().count(), model.len());
                prop_assert_eq!(order.is_empty(), model.is_empty());
                prop_assert_eq!(order.first().map(Item::rank), model.first().map(|item| (item.0, item.1)));
                let until: u64 = model.iter().filter(|item| item.0 <= key).map(|item| u64::from(item.2)).sum();
                prop_assert_eq!(order.rows_until(key), until);
            }
            let ranks: Vec<_> = order.iter().map(Item::rank).collect();
            prop_assert_eq!(ranks, model.iter().map(|item| (item.0, item.1)).collect::<Vec<_>>());
            prop_assert_eq!(order.rows(), model.iter().map(|item| u64::from(item.2)).sum::<u64>());
        }
    }
}

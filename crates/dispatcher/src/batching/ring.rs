//! Requests that were answered alone and wait to be run together.
//!
//! Reads answered requests, hands back groups of them that may share a run. Bounded in number and bytes: the oldest go.
//! Knows nothing of what became of earlier groups.

use std::collections::VecDeque;

use crate::batching::trial::AnsweredRequest;

/// Most requests that are kept: a few groups of every size.
const REQUESTS_MAX: usize = 64;
/// Most bytes of inputs and answers that are kept.
const BYTES_MAX: usize = 16 << 20;
/// Rows of the largest group that is aimed at: a row whose answer depends on others shows that beside a few.
const GROUP_ROWS: u32 = 8;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    kept: VecDeque<AnsweredRequest>,
    bytes: usize,
    groups: u32,
}

impl Ring {
    /// Keeps `one`, and hands back a group of its shape once there are enough. Equal requests are kept once: beside its
    /// like a row shows nothing. No group has more than `rows_max` rows.
    pub(crate) fn keep(&mut self, one: AnsweredRequest, rows_max: u32) -> Option<Vec<AnsweredRequest>> {
        let known = |other: &AnsweredRequest| other.shape == one.shape && other.inputs == one.inputs;
        if one.rows == 0 || one.rows >= rows_max || one.bytes() > BYTES_MAX || self.kept.iter().any(known) {
            return None;
        }
        let shape = one.shape;
        self.bytes += one.bytes();
        self.kept.push_back(one);
        while self.kept.len() > REQUESTS_MAX || self.bytes > BYTES_MAX {
            self.bytes -= self.kept.pop_front().map_or(0, |oldest| oldest.bytes());
        }
        self.group(shape, rows_max)
    }

    /// Two rows, then three and so on, and again from two; every other group is in the opposite order.
    fn group(&mut self, shape: inferd_scheduler::ShapeKey, rows_max: u32) -> Option<Vec<AnsweredRequest>> {
        let aim = 2 + self.groups % (GROUP_ROWS.min(rows_max) - 1).max(1);
        let (mut places, mut rows) = (Vec::new(), 0);
        for (place, one) in self.kept.iter().enumerate() {
            // One request of many rows shows nothing.
            let wanted = places.len() < 2 || rows < aim;
            if wanted && one.shape == shape && rows + one.rows <= rows_max {
                places.push(place);
                rows += one.rows;
            }
        }
        if places.len() < 2 || rows < aim {
            return None;
        }
        let mut group: Vec<AnsweredRequest> =
            places.iter().rev().filter_map(|place| self.kept.remove(*place)).collect();
        if self.groups.is_multiple_of(2) {
            group.reverse();
        }
        self.bytes -= group.iter().map(AnsweredRequest::bytes).sum::<usize>();
        self.groups += 1;
        Some(group)
    }

    pub(crate) fn clear(&mut self) {
        *self = Ring { groups: self.groups, ..Ring::default() };
    }
}

#[cfg(test)]
mod tests {
    use inferd_scheduler::ShapeKey;
    use inferd_types::{DataType, Tensor};
    use smallvec::smallvec;

    use super::*;

    fn kept(value: u32, rows: u32, shape: u64, bytes: usize) -> AnsweredRequest {
        let mut data = value.to_le_bytes().to_vec();
        data.resize(bytes, 0);
        let tensor = Tensor::new(DataType::Uint8, smallvec![bytes as u64], data.into()).unwrap();
        AnsweredRequest {
            inputs: smallvec![tensor],
            rows,
            length: 0,
            shape: ShapeKey(shape),
            answer: smallvec![],
        }
    }

    fn values(group: &[AnsweredRequest]) -> Vec<u8> {
        group.iter().map(|one| one.inputs[0].data[0]).collect()
    }

    #[test]
    fn groups_grow_and_change_their_order() {
        let (mut ring, mut groups) = (Ring::default(), Vec::new());
        for value in 0..9 {
            groups.extend(ring.keep(kept(value, 1, 0, 4), 32).map(|group| values(&group)));
        }
        assert_eq!(groups, [vec![0, 1], vec![4, 3, 2], vec![5, 6, 7, 8]]);
    }

    #[test]
    fn only_unlike_rows_of_one_shape_meet_and_no_group_is_larger_than_a_batch() {
        let mut ring = Ring::default();
        assert!(ring.keep(kept(1, 1, 0, 4), 4).is_none());
        assert!(ring.keep(kept(1, 1, 0, 4), 4).is_none(), "the same row again");
        assert!(ring.keep(kept(2, 1, 7, 4), 4).is_none(), "another shape");
        assert!(ring.keep(kept(3, 4, 0, 4), 4).is_none(), "with anything else it is more than a batch");
        assert_eq!(values(&ring.keep(kept(4, 3, 0, 4), 4).unwrap()), [1, 4]);
        assert!(ring.keep(kept(5, 3, 0, 4), 4).is_none());
        assert!(ring.keep(kept(6, 2, 0, 4), 4).is_none(), "five rows");
        assert_eq!(values(&ring.keep(kept(7, 1, 0, 4), 4).unwrap()), [7, 5]);
    }

    #[test]
    fn what_is_kept_is_bounded_in_number_and_bytes() {
        let mut ring = Ring::default();
        for value in 0..200 {
            assert!(ring.keep(kept(value, 1, u64::from(value), 4), 32).is_none());
        }
        assert_eq!((ring.kept.len(), ring.bytes), (REQUESTS_MAX, 4 * REQUESTS_MAX));
        assert!(ring.keep(kept(1, 1, 1, BYTES_MAX + 1), 32).is_none());
        assert_eq!(ring.kept.len(), REQUESTS_MAX);
        ring.keep(kept(1, 1, 1, BYTES_MAX - 8), 32);
        assert_eq!((ring.kept.len(), ring.bytes), (3, BYTES_MAX));
        ring.clear();
        assert_eq!((ring.kept.len(), ring.bytes), (0, 0));
    }
}

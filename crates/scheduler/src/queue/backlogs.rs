//! How many rows of many backlogs are served within a time, without a loop over them.
//!
//! Reads the rows and weight of each backlog as they change, hands on a sum. Knows nothing of tenants.
//!
//! Backlogs of about equal duration (within a factor of two, by rows over weight) are counted together. For a given
//! time, those that end before it count fully and those that end after it count by weight; only in the one group
//! that the time falls into is the sum inexact, by at most a factor of two.

/// Groups by powers of two.
const GROUPS: usize = 48;
/// The shortest backlog that is distinguished from none is `2^-LOWEST` rows over weight.
const LOWEST: u32 = 16;

#[derive(Clone, Copy, Debug, Default)]
struct Group {
    rows: u64,
    weight: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Backlogs {
    groups: [Group; GROUPS],
    /// Bit set of the groups that are not empty.
    used: u64,
}

impl Default for Backlogs {
    fn default() -> Self {
        Backlogs { groups: [Group::default(); GROUPS], used: 0 }
    }
}

impl Backlogs {
    /// Adds a backlog.
    pub(crate) fn add(&mut self, rows: u64, weight: u32) {
        let at = group(rows, weight);
        self.groups[at].rows += rows;
        self.groups[at].weight += u64::from(weight);
        self.used |= 1 << at;
    }

    /// Removes a backlog that was added with the same numbers.
    pub(crate) fn remove(&mut self, rows: u64, weight: u32) {
        let at = group(rows, weight);
        self.groups[at].rows -= rows;
        self.groups[at].weight -= u64::from(weight);
        if self.groups[at].weight == 0 {
            self.used &= !(1 << at);
        }
    }

    /// The rows served in the time in which a backlog of weight 1 is served `wait / 2^unit` rows; `but` is
    /// excluded.
    pub(crate) fn served(&self, wait: u64, unit: u32, but: Option<(u64, u32)>) -> u64 {
        let without = but.map(|(rows, weight)| (group(rows, weight), rows, u64::from(weight)));
        let (mut left, mut sum) = (self.used, 0);
        while left != 0 {
            let at = left.trailing_zeros() as usize;
            left &= left - 1;
            let Group { mut rows, mut weight } = self.groups[at];
            if let Some((_, mine, of)) = without.filter(|without| without.0 == at) {
                (rows, weight) = (rows - mine, weight - of);
            }
            let share = (u128::from(wait) * u128::from(weight)) >> unit;
            sum += rows.min(u64::try_from(share).unwrap_or(u64::MAX));
        }
        sum
    }
}

fn group(rows: u64, weight: u32) -> usize {
    let length = (rows << LOWEST) / u64::from(weight.max(1));
    (length.max(1).ilog2() as usize).min(GROUPS - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_sum_is_never_less_than_the_truth_and_at_most_twice_of_it(
            backlogs in prop::collection::vec((1u64..5000, 1u32..20), 1..60),
            wait in 0u64..6000,
        ) {
            let mut sum = Backlogs::default();
            backlogs.iter().for_each(|(rows, weight)| sum.add(*rows, *weight));
            let truth = |backlogs: &[(u64, u32)]| -> u64 {
                backlogs.iter().map(|(rows, weight)| *rows.min(&(wait * u64::from(*weight)))).sum()
            };
            let found = sum.served(wait << 16, 16, None);
            prop_assert!(found >= truth(&backlogs) && found <= 2 * truth(&backlogs), "{found}");
            let found = sum.served(wait << 16, 16, Some(backlogs[0]));
            prop_assert!(found >= truth(&backlogs[1..]) && found <= 2 * truth(&backlogs[1..]), "{found}");
            backlogs.iter().for_each(|(rows, weight)| sum.remove(*rows, *weight));
            prop_assert_eq!(sum.served(u64::MAX, 16, None), 0);
        }
    }
}

//! How much of many backlogs is served within a time, without looking at each of them.
//!
//! Reads the rows and weight of each backlog as they change, hands back a sum. Knows nothing of whose they are.
//!
//! Backlogs that take about as long (within a factor of two, by rows over weight) are counted together. Asked for a
//! time, those that end before it count whole and those that end after it count by weight; only in the one group that
//! the time falls into is the answer not exact, and there it is at most twice the truth.

/// Groups by powers of two.
const GROUPS: usize = 48;
/// The shortest backlog that is told apart from none is `2^-LOWEST` rows over weight.
const LOWEST: u32 = 16;

#[derive(Clone, Copy, Debug, Default)]
struct Group {
    rows: u64,
    weight: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Octaves {
    groups: [Group; GROUPS],
    /// Which groups hold something, as bits.
    used: u64,
}

impl Default for Octaves {
    fn default() -> Self {
        Octaves { groups: [Group::default(); GROUPS], used: 0 }
    }
}

impl Octaves {
    /// Counts a backlog.
    pub(crate) fn add(&mut self, rows: u64, weight: u32) {
        let at = group(rows, weight);
        self.groups[at].rows += rows;
        self.groups[at].weight += u64::from(weight);
        self.used |= 1 << at;
    }

    /// Takes one off that was added with the same numbers.
    pub(crate) fn remove(&mut self, rows: u64, weight: u32) {
        let at = group(rows, weight);
        self.groups[at].rows -= rows;
        self.groups[at].weight -= u64::from(weight);
        if self.groups[at].weight == 0 {
            self.used &= !(1 << at);
        }
    }

    /// The rows served in a time in which a backlog of weight 1 is served `wait / 2^unit` rows; `but` is left out.
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
            let mut octaves = Octaves::default();
            backlogs.iter().for_each(|(rows, weight)| octaves.add(*rows, *weight));
            let truth = |backlogs: &[(u64, u32)]| -> u64 {
                backlogs.iter().map(|(rows, weight)| *rows.min(&(wait * u64::from(*weight)))).sum()
            };
            let found = octaves.served(wait << 16, 16, None);
            prop_assert!(found >= truth(&backlogs) && found <= 2 * truth(&backlogs), "{found}");
            let found = octaves.served(wait << 16, 16, Some(backlogs[0]));
            prop_assert!(found >= truth(&backlogs[1..]) && found <= 2 * truth(&backlogs[1..]), "{found}");
            backlogs.iter().for_each(|(rows, weight)| octaves.remove(*rows, *weight));
            prop_assert_eq!(octaves.served(u64::MAX, 16, None), 0);
        }
    }
}

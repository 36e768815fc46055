//! Chooses the replica of a batch.
//!
//! Reads when each is expected to finish, hands on one. Forms no batch.

use inferd_types::Time;

use super::Replica;
use crate::scheduler::Scheduler;

/// From this many replicas on, the better of two random ones is taken instead of the best: nearly as good, and a
/// replica that looks free but is not attracts no crowd (Mitzenmacher, "The power of two choices", 2001).
const MANY: usize = 8;

impl Scheduler {
    /// The replica that runs the next batch at once, if any can.
    pub(crate) fn idle_replica(&mut self, now: Time) -> Option<usize> {
        if self.idle_replicas() == 0 {
            return None;
        }
        self.route(now, Replica::is_idle)
    }

    /// Of the replicas for which `fits` is true, the one that is free first.
    pub(crate) fn route(&mut self, now: Time, fits: impl Fn(&Replica) -> bool) -> Option<usize> {
        let count = self.replicas.len();
        if count >= MANY {
            let drawn = [self.draw(count), self.draw(count)];
            let best = self.first_done(now, drawn.into_iter().filter(|at| fits(&self.replicas[*at])));
            if best.is_some() {
                return best;
            }
        }
        self.first_done(now, (0..count).filter(|at| fits(&self.replicas[*at])))
    }

    fn first_done(&self, now: Time, candidates: impl Iterator<Item = usize>) -> Option<usize> {
        let done = |replica: &Replica| (replica.next_starts(now, &self.sizes), replica.health.pace());
        candidates
            .map(|at| (done(&self.replicas[at]), at))
            .reduce(|one, other| if other.0 < one.0 { other } else { one })
            .map(|best| best.1)
    }

    /// A random number below `end` (SplitMix64).
    fn draw(&mut self, end: usize) -> usize {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}

//! How a replica does beside the others: how much slower it is, and whether it is left out for a while (outlier
//! detection as Envoy does it, by failures in a row, and by a pace far behind that of the rest).
//!
//! Reads how its runs ended, hands back its pace. Knows nothing of the other replicas but the mean of the middle one.
//!
//! The latency model is that of the replica in the middle; a replica's pace is relative to it. Without this, a few slow
//! replicas would show as a wide spread of all, and batches would be planned small for everyone.

use std::time::Duration;

use inferd_types::Time;

/// Failed runs in a row that put a replica out, if hardly any of another's fail: what fails everywhere is the requests'
/// fault or the model's, and whoever sends bad requests must not be able to put replicas out.
pub(crate) const FAILURES: u32 = 5;
pub(crate) const FAILING_ELSEWHERE: f64 = 0.05;
/// How much one run moves the share of those that fail.
const FAILING_STEP: f64 = 0.1;
/// A replica that takes so many times what the others take is out. Below it is only given less: whoever would be done
/// first is given work first.
pub(crate) const SLOW: f64 = 3.0;
/// A pace nearer to what is usual than this, or its inverse, is chance.
const NOTABLE: f64 = 1.25;
/// Runs before a pace is believed.
pub(crate) const RUNS: u32 = 8;
/// Runs that a replica is given to show that it is well again.
const TRIAL: u32 = 2;
/// How much one run moves the pace.
const STEP: f64 = 0.15;
/// One run counts as at most so many times the usual: a stall is no slow replica.
const STALL: f64 = 4.0;
/// How long a replica is out the first time. The second time it is twice as long, and so on.
const OUT: Duration = Duration::from_secs(5);
const OUT_MAX: Duration = Duration::from_secs(60);
/// Who was well for so long begins anew.
const FORGIVEN: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Health {
    /// Moving mean of what runs took, relative to what the latency model expected.
    pub(crate) mean: f64,
    /// The same, relative to that of the replica in the middle; exactly 1 where it may be chance.
    pub(crate) pace: f64,
    pub(crate) runs: u32,
    /// In a row.
    pub(crate) failures: u32,
    /// The share of runs that failed lately.
    pub(crate) failing: f64,
    ejections: u32,
    /// Until when it is left out.
    pub(crate) out: Option<Time>,
    back: Time,
}

impl Default for Health {
    fn default() -> Self {
        Health {
            mean: 1.0,
            pace: 1.0,
            runs: 0,
            failures: 0,
            failing: 0.0,
            ejections: 0,
            out: None,
            back: Time::ZERO,
        }
    }
}

impl Health {
    pub(crate) fn is_out(&self) -> bool {
        self.out.is_some()
    }

    /// How many times as long as the replica in the middle it takes.
    pub(crate) fn pace(&self) -> f64 {
        self.pace
    }

    pub(crate) fn compare(&mut self, middle: f64) {
        let pace = self.mean / middle;
        let chance = self.runs < RUNS || (1.0 / NOTABLE..NOTABLE).contains(&pace);
        self.pace = if chance { 1.0 } else { pace };
    }

    /// A run went well and took `relative` times what was expected of it.
    pub(crate) fn ran(&mut self, relative: f64) {
        self.failures = 0;
        self.failing *= 1.0 - FAILING_STEP;
        let first = self.runs == 0 || (self.ejections > 0 && self.runs == RUNS - TRIAL);
        let step = if first { 1.0 } else { STEP.max(1.0 / f64::from(self.runs + 1)) };
        self.mean += step * (relative.min(STALL) - self.mean);
        self.runs = self.runs.saturating_add(1);
    }

    pub(crate) fn failed(&mut self) {
        self.failures += 1;
        self.failing += FAILING_STEP * (1.0 - self.failing);
    }

    pub(crate) fn eject(&mut self, now: Time) {
        if now.since(self.back) > FORGIVEN {
            self.ejections = 0;
        }
        self.ejections += 1;
        self.out = Some(now + (OUT * self.ejections).min(OUT_MAX));
    }

    /// It is given work again, on trial: one failure or a few slow runs put it out again.
    pub(crate) fn readmit(&mut self, now: Time) {
        self.out = None;
        self.back = now;
        self.runs = RUNS - TRIAL;
        self.failures = FAILURES - 1;
    }
}

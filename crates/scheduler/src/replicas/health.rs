//! A replica's health relative to the others: its pace, and whether it is ejected (Envoy's outlier detection, by
//! consecutive failures and by pace).
//!
//! Reads results and relative durations of runs, hands on pace and ejection. Stages nothing.
//!
//! The latency model is that of the median replica; a replica's pace is relative to it. Otherwise a few slow
//! replicas would show as a wide spread of all, and all batches would be planned small.

use std::time::Duration;

use inferd_types::Time;

/// Consecutive failures that eject a replica, if another hardly fails: failures everywhere are the requests' fault
/// or the model's, and clients that send bad requests must not be able to eject replicas.
pub(crate) const FAILURES: u32 = 5;
/// Weight of one run in the failure rate.
const FAILING_STEP: f64 = 0.1;
/// A pace between this and its inverse is taken for chance.
const NOTABLE: f64 = 1.25;
/// Runs before a pace is used.
pub(crate) const RUNS: u32 = 8;
/// Runs that a readmitted replica has to prove itself.
const TRIAL: u32 = 2;
/// Weight of one run in the pace.
const STEP: f64 = 0.15;
/// A run counts as at most this many times the usual: a stall is no slow replica.
const STALL: f64 = 4.0;
/// Duration of the first ejection. It doubles each time.
const EJECTION: Duration = Duration::from_secs(5);
const EJECTION_MAX: Duration = Duration::from_secs(60);
/// Time without an ejection after which the duration starts over.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Health {
    /// Moving mean of execution times relative to the latency model's.
    pub(crate) mean: f64,
    /// The same, relative to the median replica; exactly 1 if it may be chance.
    pace: f64,
    pub(crate) runs: u32,
    /// Consecutive failures.
    pub(crate) failures: u32,
    /// Moving average of the failure rate.
    pub(crate) failing: f64,
    ejections: u32,
    /// When the ejection ends.
    pub(crate) ejected_until: Option<Time>,
    readmitted: Time,
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
            ejected_until: None,
            readmitted: Time::ZERO,
        }
    }
}

impl Health {
    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected_until.is_some()
    }

    /// Its execution time relative to the median replica.
    pub(crate) fn pace(&self) -> f64 {
        self.pace
    }

    pub(crate) fn compare(&mut self, median: f64) {
        let pace = self.mean / median;
        let chance = self.runs < RUNS || (1.0 / NOTABLE..NOTABLE).contains(&pace);
        self.pace = if chance { 1.0 } else { pace };
    }

    /// Records a successful run of `relative` times the expected duration.
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
        if now.since(self.readmitted) > FORGIVEN_AFTER {
            self.ejections = 0;
        }
        self.ejections += 1;
        self.ejected_until = Some(now + (EJECTION * self.ejections).min(EJECTION_MAX));
    }

    /// Readmits it on trial: one failure or a few slow runs eject it again.
    pub(crate) fn readmit(&mut self, now: Time) {
        self.ejected_until = None;
        self.readmitted = now;
        self.runs = RUNS - TRIAL;
        self.failures = FAILURES - 1;
    }
}

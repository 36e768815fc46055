//! How a replica does beside the others: how much slower it is, and whether it is left out for a while (outlier
//! detection as Envoy does it, by failures in a row, and by a pace far behind that of the rest).
//!
//! Reads how runs ended and what they took relative to what was expected, hands back paces and who is out. Stages
//! nothing.
//!
//! The latency model is that of the replica in the middle; a replica's pace is relative to it. Without this, a few slow
//! replicas would show as a wide spread of all, and batches would be planned small for everyone.

use std::time::Duration;

use inferd_types::{ReplicaId, Time};

use crate::message::Action;
use crate::scheduler::Scheduler;

/// Failed runs in a row that put a replica out, if another's last run went well: what fails everywhere is the
/// requests' fault or the model's.
const FAILURES: u32 = 5;
/// A replica that takes so many times what the others take is out. Below it is only given less: whoever would be done
/// first is given work first.
const SLOW: f64 = 3.0;
/// A pace nearer to what is usual than this, or its inverse, is chance.
const NOTABLE: f64 = 1.25;
/// Runs before a pace is believed.
const RUNS: u32 = 8;
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
    mean: f64,
    /// The same, relative to that of the replica in the middle; exactly 1 where it may be chance.
    pace: f64,
    runs: u32,
    /// In a row.
    failures: u32,
    ejections: u32,
    /// Until when it is left out.
    out: Option<Time>,
    back: Time,
}

impl Default for Health {
    fn default() -> Self {
        Health { mean: 1.0, pace: 1.0, runs: 0, failures: 0, ejections: 0, out: None, back: Time::ZERO }
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

    fn compare(&mut self, middle: f64) {
        let pace = self.mean / middle;
        let chance = self.runs < RUNS || (1.0 / NOTABLE..NOTABLE).contains(&pace);
        self.pace = if chance { 1.0 } else { pace };
    }

    /// A run went well and took `relative` times what was expected of it.
    pub(crate) fn ran(&mut self, relative: f64) {
        self.failures = 0;
        let first = self.runs == 0 || (self.ejections > 0 && self.runs == RUNS - TRIAL);
        let step = if first { 1.0 } else { STEP.max(1.0 / f64::from(self.runs + 1)) };
        self.mean += step * (relative.min(STALL) - self.mean);
        self.runs = self.runs.saturating_add(1);
    }

    pub(crate) fn failed(&mut self) {
        self.failures += 1;
    }

    fn eject(&mut self, now: Time) {
        if now.since(self.back) > FORGIVEN {
            self.ejections = 0;
        }
        self.ejections += 1;
        self.out = Some(now + (OUT * self.ejections).min(OUT_MAX));
    }

    /// It is given work again, on trial: one failure or a few slow runs put it out again.
    fn readmit(&mut self, now: Time) {
        self.out = None;
        self.back = now;
        self.runs = RUNS - TRIAL;
        self.failures = FAILURES - 1;
    }
}

impl Scheduler {
    /// Leaves `id` out if it does far worse than the others, but at most every third replica, and never the last.
    pub(crate) fn judge(&mut self, now: Time, id: ReplicaId, actions: &mut Vec<Action>) {
        if !self.config.ejection || !self.is_outlier(id) {
            return;
        }
        let out = self.replicas.iter().filter(|replica| replica.health.is_out()).count();
        if out >= (self.replicas.len() / 3).max(1) {
            return;
        }
        let Some(replica) = self.replica_mut(id) else { return };
        replica.health.eject(now);
        if let Some(open) = replica.second.as_mut().filter(|open| open.is_open()) {
            open.withdrawing = true;
            actions.push(Action::Withdraw { replica: id, batch: open.id });
        }
        self.count.ejections += 1;
    }

    fn is_outlier(&self, id: ReplicaId) -> bool {
        let Some(health) = self.replicas.iter().find(|replica| replica.id == id).map(|own| &own.health)
        else {
            return false;
        };
        let others = || {
            self.replicas.iter().filter(|other| other.id != id && !other.is_out()).map(|other| &other.health)
        };
        if health.is_out() {
            return false;
        }
        if health.failures >= FAILURES {
            return others().any(|other| other.failures == 0 && other.runs > 0);
        }
        health.runs >= RUNS && others().any(|other| other.runs >= RUNS) && health.pace > SLOW
    }

    /// Compares all with the one in the middle; of two, with the quicker.
    fn compare(&mut self) {
        let known = self.replicas.iter().filter(|replica| replica.health.runs >= RUNS);
        let mut means: Vec<f64> = known.map(|replica| replica.health.mean).collect();
        means.sort_by(f64::total_cmp);
        let middle = means.get(means.len().saturating_sub(1) / 2).copied().unwrap_or(1.0);
        self.replicas.iter_mut().for_each(|replica| replica.health.compare(middle));
    }

    /// Gives those work again whose time is over; all of them, where nobody else is left.
    pub(crate) fn readmit(&mut self, now: Time) {
        let nobody = self.replicas.iter().all(|replica| replica.is_out());
        for replica in &mut self.replicas {
            if replica.health.out.is_some_and(|until| nobody || until <= now) {
                replica.health.readmit(now);
            }
        }
    }

    /// When the next one is given work again.
    pub(crate) fn next_back(&self) -> Option<Time> {
        self.replicas.iter().filter_map(|replica| replica.health.out).min()
    }

    /// Takes note of how a run ended: what it took relative to what was expected of the replica in the middle, or
    /// `None` where it failed. Hands back the replica's pace.
    pub(crate) fn watch_health(
        &mut self,
        now: Time,
        id: ReplicaId,
        relative: Option<f64>,
        actions: &mut Vec<Action>,
    ) -> f64 {
        if self.replicas.len() < 2 {
            return 1.0;
        }
        let Some(replica) = self.replica_mut(id) else { return 1.0 };
        match relative {
            Some(relative) => replica.health.ran(relative),
            None => replica.health.failed(),
        }
        self.until_compared = match self.until_compared {
            0 => {
                self.compare();
                // Once in a while each is enough of many.
                self.replicas.len() as u32 / 2
            }
            more => more - 1,
        };
        self.judge(now, id, actions);
        self.replicas.iter().find(|replica| replica.id == id).map_or(1.0, |replica| replica.health.pace)
    }

    /// How many times as long as in the middle a batch takes on average, where those that work is shared among each
    /// do as much as they can.
    pub(crate) fn mean_pace(&self) -> f64 {
        let (count, rate) = self
            .servers()
            .fold((0.0, 0.0), |(count, rate), server| (count + 1.0, rate + 1.0 / server.health.pace));
        if rate > 0.0 { count / rate } else { 1.0 }
    }
}

//! Outlier detection: ejects replicas that fail or are slow, and readmits them.
//!
//! Reads results and durations of runs, hands on paces and withdrawals. Stages nothing.

use inferd_types::{ReplicaId, Time};

use super::health::{FAILURES, Health, RUNS};
use crate::message::Action;
use crate::scheduler::Scheduler;

/// A failing replica is ejected only if the failure rate of another is below this.
const FAILING_ELSEWHERE: f64 = 0.05;
/// A replica of this pace is ejected. Below it, it only gets less work, as batches go to the replica that finishes
/// first.
const SLOW: f64 = 3.0;

impl Scheduler {
    /// Ejects `id` if it does far worse than the others, but at most a third of the replicas, and never the last.
    pub(crate) fn judge(&mut self, now: Time, id: ReplicaId, actions: &mut Vec<Action>) {
        if !self.config.ejection || !self.is_outlier(id) {
            return;
        }
        let ejected = self.replicas.iter().filter(|replica| replica.health.is_ejected()).count();
        if ejected >= (self.replicas.len() / 3).max(1) {
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
            self.replicas
                .iter()
                .filter(|other| other.id != id && !other.is_excluded())
                .map(|other| &other.health)
        };
        if health.is_ejected() {
            return false;
        }
        if health.failures >= FAILURES {
            return others().any(|other| other.runs > 0 && other.failing < FAILING_ELSEWHERE);
        }
        health.runs >= RUNS && others().any(|other| other.runs >= RUNS) && health.pace() > SLOW
    }

    /// Compares all with the median replica; of two, with the faster.
    fn compare(&mut self) {
        let known = self.replicas.iter().filter(|replica| replica.health.runs >= RUNS);
        let mut means: Vec<f64> = known.map(|replica| replica.health.mean).collect();
        means.sort_by(f64::total_cmp);
        let median = means.get(means.len().saturating_sub(1) / 2).copied().unwrap_or(1.0);
        self.replicas.iter_mut().for_each(|replica| replica.health.compare(median));
    }

    /// Readmits replicas whose ejection has ended; all of them, if no other is left.
    pub(crate) fn readmit(&mut self, now: Time) {
        let none_left = self.replicas.iter().all(|replica| replica.is_excluded());
        for replica in &mut self.replicas {
            if replica.health.ejected_until.is_some_and(|until| none_left || until <= now) {
                replica.health.readmit(now);
            }
        }
    }

    /// When the next replica is readmitted.
    pub(crate) fn next_readmission(&self) -> Option<Time> {
        self.replicas.iter().filter_map(|replica| replica.health.ejected_until).min()
    }

    /// Records the end of a run: its execution time relative to the expectation for the median replica, or `None`
    /// if it failed. Returns the replica's pace.
    pub(crate) fn watch_health(
        &mut self,
        now: Time,
        id: ReplicaId,
        relative: Option<f64>,
        actions: &mut Vec<Action>,
    ) -> f64 {
        let alone = self.replicas.len() < 2;
        let Some(replica) = self.replica_mut(id) else { return 1.0 };
        if alone {
            // A single replica is compared with none, not even with earlier ones.
            replica.health = Health::default();
            return 1.0;
        }
        match relative {
            Some(relative) => replica.health.ran(relative),
            None => replica.health.failed(),
        }
        self.until_compared = match self.until_compared {
            0 => {
                self.compare();
                // With many replicas, comparing occasionally is enough.
                self.replicas.len() as u32 / 2
            }
            more => more - 1,
        };
        self.judge(now, id, actions);
        self.replicas.iter().find(|replica| replica.id == id).map_or(1.0, |replica| replica.health.pace())
    }

    /// The mean pace over the replicas that share the work, if each works at capacity.
    pub(crate) fn mean_pace(&self) -> f64 {
        let (count, rate) = self
            .servers()
            .fold((0.0, 0.0), |(count, rate), server| (count + 1.0, rate + 1.0 / server.health.pace()));
        if rate > 0.0 { count / rate } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Config, Event, Room};

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn two() -> Scheduler {
        let mut scheduler = Scheduler::new(Config::default());
        for id in 0..2 {
            scheduler.on_event(
                Time::ZERO,
                Event::ReplicaReady(ReplicaId(id), Room::default()),
                &mut Vec::new(),
            );
        }
        scheduler
    }

    fn ran(scheduler: &mut Scheduler, now: Time, id: u32, relative: Option<f64>) -> f64 {
        scheduler.watch_health(now, ReplicaId(id), relative, &mut Vec::new())
    }

    fn ejected(scheduler: &Scheduler) -> Vec<bool> {
        scheduler.replicas.iter().map(|replica| replica.health.is_ejected()).collect()
    }

    #[test]
    fn a_replica_that_only_fails_is_ejected_for_ever_longer_and_tried_in_between() {
        let mut scheduler = two();
        ran(&mut scheduler, at(1), 0, Some(1.0));
        (0..5).for_each(|_| _ = ran(&mut scheduler, at(2), 1, None));
        assert_eq!(ejected(&scheduler), [false, true]);
        scheduler.readmit(at(5001));
        assert_eq!(ejected(&scheduler), [false, true]);
        scheduler.readmit(at(5002));
        assert_eq!(ejected(&scheduler), [false, false]);
        ran(&mut scheduler, at(5003), 1, None);
        scheduler.readmit(at(15_002));
        assert_eq!(ejected(&scheduler), [false, true], "ten seconds the second time");
        scheduler.readmit(at(15_003));
        assert_eq!(ejected(&scheduler), [false, false]);
    }

    #[test]
    fn bad_requests_eject_no_replica() {
        let mut scheduler = two();
        for round in 0..200 {
            // One in four fails on both; occasionally five in a row on one of them.
            let streak = round % 40 < 5;
            ran(&mut scheduler, at(round), 0, (!streak).then_some(1.0));
            ran(&mut scheduler, at(round), 1, (round % 4 > 0).then_some(1.0));
            assert_eq!(ejected(&scheduler), [false, false], "round {round}");
        }
    }

    #[test]
    fn the_last_replica_is_never_ejected_and_a_single_one_is_compared_with_none() {
        let mut scheduler = two();
        (0..40).for_each(|_| {
            _ = (ran(&mut scheduler, at(1), 0, Some(1.0)), ran(&mut scheduler, at(1), 1, Some(4.0)))
        });
        assert_eq!(ejected(&scheduler), [false, true]);
        scheduler.on_event(at(2), Event::ReplicaLost(ReplicaId(0)), &mut Vec::new());
        scheduler.readmit(at(2));
        assert_eq!(ejected(&scheduler), [false]);
        assert_eq!(ran(&mut scheduler, at(3), 1, Some(4.0)), 1.0);
    }
}

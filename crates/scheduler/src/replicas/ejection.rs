//! Which replicas are left out for a while, and when they are given work again.
//!
//! Reads how runs ended, hands back paces and withdrawals. Stages nothing.

use inferd_types::{ReplicaId, Time};

use crate::message::Action;
use crate::replicas::health::{FAILURES, Health, RUNS};
use crate::scheduler::Scheduler;

/// A replica that fails is left out only where one of the others fails less often than this.
const FAILING_ELSEWHERE: f64 = 0.05;
/// A replica that takes so many times what the others take is out. Below it is only given less: whoever would be done
/// first is given work first.
const SLOW: f64 = 3.0;

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
            return others().any(|other| other.runs > 0 && other.failing < FAILING_ELSEWHERE);
        }
        health.runs >= RUNS && others().any(|other| other.runs >= RUNS) && health.pace() > SLOW
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
        let alone = self.replicas.len() < 2;
        let Some(replica) = self.replica_mut(id) else { return 1.0 };
        if alone {
            // Nobody to be compared with, not even those who have gone.
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
                // Once in a while each is enough of many.
                self.replicas.len() as u32 / 2
            }
            more => more - 1,
        };
        self.judge(now, id, actions);
        self.replicas.iter().find(|replica| replica.id == id).map_or(1.0, |replica| replica.health.pace())
    }

    /// How many times as long as in the middle a batch takes on average, where those that work is shared among each
    /// do as much as they can.
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

    fn out(scheduler: &Scheduler) -> Vec<bool> {
        scheduler.replicas.iter().map(|replica| replica.health.is_out()).collect()
    }

    #[test]
    fn one_that_only_fails_is_left_out_for_ever_longer_and_tried_in_between() {
        let mut scheduler = two();
        ran(&mut scheduler, at(1), 0, Some(1.0));
        (0..5).for_each(|_| _ = ran(&mut scheduler, at(2), 1, None));
        assert_eq!(out(&scheduler), [false, true]);
        scheduler.readmit(at(5001));
        assert_eq!(out(&scheduler), [false, true]);
        scheduler.readmit(at(5002));
        assert_eq!(out(&scheduler), [false, false]);
        ran(&mut scheduler, at(5003), 1, None);
        scheduler.readmit(at(15_002));
        assert_eq!(out(&scheduler), [false, true], "ten seconds the second time");
        scheduler.readmit(at(15_003));
        assert_eq!(out(&scheduler), [false, false]);
    }

    #[test]
    fn bad_requests_put_nobody_out() {
        let mut scheduler = two();
        for round in 0..200 {
            // One in four fails, on both; now and then five in a row on one of them.
            let streak = round % 40 < 5;
            ran(&mut scheduler, at(round), 0, (!streak).then_some(1.0));
            ran(&mut scheduler, at(round), 1, (round % 4 > 0).then_some(1.0));
            assert_eq!(out(&scheduler), [false, false], "round {round}");
        }
    }

    #[test]
    fn the_last_one_is_never_left_out_and_whoever_remains_is_compared_with_nobody() {
        let mut scheduler = two();
        (0..40).for_each(|_| {
            _ = (ran(&mut scheduler, at(1), 0, Some(1.0)), ran(&mut scheduler, at(1), 1, Some(4.0)))
        });
        assert_eq!(out(&scheduler), [false, true]);
        scheduler.on_event(at(2), Event::ReplicaLost(ReplicaId(0)), &mut Vec::new());
        scheduler.readmit(at(2));
        assert_eq!(out(&scheduler), [false]);
        assert_eq!(ran(&mut scheduler, at(3), 1, Some(4.0)), 1.0);
    }
}

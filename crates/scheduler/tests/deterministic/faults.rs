//! Injects faults: replicas that die, drain or become slow, cancellations, clock jumps.
//!
//! Reads the scenario's rates; each fault schedules the next of its kind while requests arrive. Checks nothing.

use std::time::Duration;

use inferd_scheduler::{Event, Room};
use inferd_types::{ReplicaId, RequestId};

use crate::ledger::Fate;
use crate::scenario::log_uniform;
use crate::world::{Happening, World};

impl World {
    /// The first fault of each kind.
    pub(crate) fn plan_faults(&mut self) {
        let faults = &self.scenario.faults;
        let firsts = [
            (faults.losses, Happening::Lose),
            (faults.cancellations, Happening::Cancel),
            (faults.drains, Happening::Drain),
            (faults.batching_changes, Happening::ToggleBatching),
            (faults.jumps, Happening::Jump),
            (faults.speed_changes, Happening::ChangeSpeed),
        ];
        firsts.into_iter().for_each(|(mean, happening)| self.plan(mean, happening));
    }

    fn plan(&mut self, mean: Duration, happening: Happening) {
        if !mean.is_zero() && self.running() {
            let wait = self.scenario.random.exponential(mean) + Duration::from_nanos(1);
            self.after(wait, happening);
        }
    }

    /// Any present replica.
    fn any_replica(&mut self) -> Option<ReplicaId> {
        let count = self.replicas.len();
        let at = self.scenario.random.below(count.max(1) as u64) as usize;
        self.replicas.keys().nth(at).copied()
    }

    /// Ends a replica; innocent requests return at once, all suspects but one later; a new replica starts.
    pub(crate) fn lose(&mut self) {
        self.plan(self.scenario.faults.losses, Happening::Lose);
        let Some(id) = self.any_replica() else { return };
        let lost = self.replicas.remove(&id).expect("just found");
        self.reports.push_back(Event::ReplicaLost(id));
        let (mut innocent, mut suspects) = (Vec::new(), Vec::new());
        for batch in lost.slots.into_iter().chain(lost.done) {
            for request in batch.requests {
                if self.ledger.lost_its_last((id, batch.id), request) {
                    self.ledger.away(request);
                    if batch.taken { suspects.push(request) } else { innocent.push(request) }
                }
            }
        }
        self.reports.push_back(Event::Returned { requests: innocent });
        if let Some(condemned) = suspects.pop() {
            self.ledger.end(self.now(), condemned, Fate::Failed);
            self.call_again(condemned);
            self.reports.push_back(Event::Removed(condemned));
        }
        let later = Duration::from_micros(self.scenario.random.below(5000));
        self.after(later, Happening::GiveBack(suspects));
        self.after(Duration::from_millis(3), Happening::Start);
    }

    /// Returns requests that were not cancelled.
    pub(crate) fn give_back(&mut self, mut requests: Vec<RequestId>) {
        requests.retain(|request| self.ledger.get(*request).fate == Fate::Away);
        self.reports.push_back(Event::Returned { requests });
    }

    /// Cancels a recent request.
    pub(crate) fn cancel(&mut self) {
        self.plan(self.scenario.faults.cancellations, Happening::Cancel);
        let back = 1 + self.scenario.random.below(64);
        let Some(id) = (self.ledger.len() as u64).checked_sub(back) else { return };
        let request = RequestId(id);
        if self.ledger.waits(request) {
            self.ledger.end(self.now(), request, Fate::Cancelled);
            self.call_again(request);
        }
        // For requests that have ended it has no effect.
        self.reports.push_back(Event::Cancelled(request));
    }

    /// Drains a replica for a while.
    pub(crate) fn drain(&mut self) {
        self.plan(self.scenario.faults.drains, Happening::Drain);
        let Some(id) = self.any_replica() else { return };
        self.replicas.get_mut(&id).expect("just found").draining = true;
        self.reports.push_back(Event::DrainReplica(id));
        let pause = self.scenario.between * (1 + self.scenario.random.below(500)) as u32;
        self.after(pause, Happening::Ready(id));
    }

    /// Turns batching of several requests off, or on again.
    pub(crate) fn toggle_batching(&mut self) {
        self.plan(self.scenario.faults.batching_changes, Happening::ToggleBatching);
        if self.scenario.config.batched {
            let mut actions = Vec::new();
            let batching = !self.scheduler.is_batching();
            self.scheduler.set_batching(batching, &mut actions);
            self.carry_out(actions);
        }
    }

    /// Ends a drain, unless the replica was lost meanwhile.
    pub(crate) fn ready(&mut self, id: ReplicaId) {
        if let Some(replica) = self.replicas.get_mut(&id) {
            replica.draining = false;
            self.reports.push_back(Event::ReplicaReady(id, Room::default()));
        }
    }

    /// Suspends the machine: time passes and nothing happens.
    pub(crate) fn jump(&mut self) {
        self.plan(self.scenario.faults.jumps, Happening::Jump);
        let stopped =
            log_uniform(&mut self.scenario.random, Duration::from_millis(1), Duration::from_secs(30));
        self.agenda.now = self.now() + stopped;
    }

    /// Slows a replica down, or restores its speed.
    pub(crate) fn change_speed(&mut self) {
        self.plan(self.scenario.faults.speed_changes, Happening::ChangeSpeed);
        let Some(id) = self.any_replica() else { return };
        let slow = 2.0 + 18.0 * self.scenario.random.unit();
        let replica = self.replicas.get_mut(&id).expect("just found");
        replica.slowness = if replica.slowness > 1.0 { 1.0 } else { slow };
    }
}

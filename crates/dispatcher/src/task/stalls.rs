//! What happens while a run takes far longer than usual, or goes on though nobody waits for it.
//!
//! Reads the clock and what the scheduler learned; takes replicas out of service and lends them back, and starts the
//! spare one meanwhile. What was learned ends nothing: a run that is late may be honest work, whose time depends on its
//! input. Only a stated bound ends it (`faults`), or that everyone who waited has gone.

use std::time::Duration;

use inferd_scheduler::Event;
use inferd_types::Time;

use super::Task;
use crate::replica::{Purpose, Replica, Role};
use crate::worker::{Launcher, Worker};

/// How long a run goes on at least once nobody waits for it: a worker costs more to start again than most runs take.
pub(super) const ABANDONED_GRACE: Duration = Duration::from_secs(10);

impl<L: Launcher> Task<L> {
    pub(super) fn any_stalled(&self) -> bool {
        self.replicas.iter().any(|replica| matches!(replica.role, Role::Stalled(_)))
    }

    /// Takes a replica out of service whose run is far longer than usual: nothing new goes there, and what it has not
    /// taken returns to the queue.
    pub(super) fn stall(&mut self, place: usize, now: Time) {
        let replica = &mut self.replicas[place];
        if replica.role != Role::Serving || replica.stalls_at > now {
            return;
        }
        let taken = replica.batches.first().is_some_and(|batch| batch.taken);
        let usual = now.since(replica.batches.first().map_or(now, |batch| batch.staged));
        // A worker that takes nothing is tried again after as long: nothing else tells when it is back.
        let until = if taken { Time::ZERO } else { now + usual };
        replica.role = Role::Stalled(until);
        replica.stalls_at = Time::MAX;
        let (id, index, pid) = (replica.id, replica.index, replica.worker.pid());
        let settings = &self.shared.settings;
        tracing::warn!(
            model = %settings.name, version = settings.version, replica = index, pid, taken,
            "a run takes far longer than usual; its replica gets no other until it is done, and a spare one is started"
        );
        self.changed = true;
        self.event(Event::DrainReplica(id));
    }

    /// Lends stalled replicas back that are done, and has the spare serve in their place as long as there are any.
    pub(super) fn tend_stalled(&mut self, now: Time) {
        let done = |replica: &Replica<L::Worker>| match replica.role {
            Role::Stalled(until) => replica.batches.is_empty() && until <= now,
            _ => false,
        };
        while let Some(place) = self.replicas.iter().position(done) {
            self.serve(place);
        }
        if self.any_stalled() {
            self.start_spare();
            return;
        }
        let idle_spare =
            |replica: &Replica<L::Worker>| self.is_spare(replica.index) && replica.role == Role::Serving;
        if let Some(place) = self.replicas.iter().position(idle_spare) {
            // Closed once it is empty, as after a quarantine.
            self.replicas[place].role = Role::Leaving;
            self.changed = true;
            let id = self.replicas[place].id;
            self.event(Event::DrainReplica(id));
        }
    }

    /// Sets an end to running batches that nobody waits for any more.
    pub(super) fn watch_abandoned(&mut self) {
        let now = self.clock.now();
        for replica in &mut self.replicas {
            let Some(first) = replica.batches.first().filter(|batch| batch.taken) else { continue };
            let sent = matches!(first.purpose, Purpose::Ordinary | Purpose::Suspects);
            if !sent || first.members.iter().any(|(id, _)| self.flights.is_awaited(*id)) {
                continue;
            }
            let usual = self.scheduler.stall_limit(first.rows.max(1)).unwrap_or_default();
            replica.hangs_at = replica.hangs_at.min(now + usual.max(ABANDONED_GRACE));
        }
    }
}

//! What happens while a run takes far longer than usual, or goes on though nobody waits for it.
//!
//! Reads the clock and what the scheduler learned; takes replicas out of service and lends them back, and starts the
//! spare one meanwhile. What was learned ends nothing: a run that is late may be honest work, whose time depends on its
//! input. Only a stated bound ends it (`faults`), or that everyone who waited has gone.

use std::time::Duration;

use inferd_scheduler::Event;
use inferd_types::{ReplicaId, Time};

use crate::replica::entry::{Purpose, ReplicaEntry, Role};
use crate::replica::kind::{Launcher, Replica};
use crate::task::Task;

/// How long a run goes on at least once nobody waits for it: a worker costs more to start again than most runs take.
pub(super) const ABANDONED_GRACE: Duration = Duration::from_secs(10);

impl<L: Launcher> Task<L> {
    pub(super) fn any_stalled(&self) -> bool {
        self.replicas.iter().any(|entry| matches!(entry.role, Role::Stalled(_)))
    }

    /// Takes a replica out of service whose run is far longer than usual: nothing new goes there, and what it has not
    /// taken returns to the queue.
    pub(super) fn stall(&mut self, replica: ReplicaId, now: Time) {
        let entry = &mut self.replicas[replica];
        if entry.role != Role::Serving || entry.stalls_at > now {
            return;
        }
        let taken = entry.batches.first().is_some_and(|batch| batch.taken);
        let usual = now.since(entry.batches.first().map_or(now, |batch| batch.staged));
        // One that takes nothing is tried again after as long: nothing else tells when it is back.
        let until = if taken { Time::ZERO } else { now + usual };
        entry.role = Role::Stalled(until);
        entry.stalls_at = Time::MAX;
        let (key, pid) = (entry.slot, entry.replica.pid());
        let settings = &self.published.settings;
        tracing::warn!(
            model = %settings.name, version = settings.version, replica = self.replicas.number(key), pid, taken,
            "a run takes far longer than usual; its replica gets no other until it is done, and a spare one is started"
        );
        self.changed = true;
        self.event(Event::DrainReplica(replica));
    }

    /// Lends stalled replicas back that are done, and has the spare serve in their place as long as there are any.
    pub(super) fn tend_stalled(&mut self, now: Time) {
        let done = |entry: &ReplicaEntry<L::Replica>| match entry.role {
            Role::Stalled(until) => entry.batches.is_empty() && until <= now,
            _ => false,
        };
        while let Some(replica) = self.replicas.find(done) {
            self.serve(replica);
        }
        if self.any_stalled() {
            self.start_spare();
            return;
        }
        if let Some(spare) = self.replicas.find(|entry| entry.is_spare() && entry.role == Role::Serving) {
            // Closed once it is empty, as after a quarantine.
            self.replicas[spare].role = Role::Leaving;
            self.changed = true;
            self.event(Event::DrainReplica(spare));
        }
    }

    /// Sets an end to running batches that nobody waits for any more.
    pub(super) fn watch_abandoned(&mut self) {
        let now = self.clock.now();
        for entry in self.replicas.iter_mut() {
            let Some(first) = entry.batches.first().filter(|batch| batch.taken) else { continue };
            let sent = matches!(first.purpose, Purpose::Ordinary | Purpose::Suspects);
            if !sent || first.members.iter().any(|(id, _)| self.in_flight.is_awaited(*id)) {
                continue;
            }
            let usual = self.scheduler.stall_limit(first.rows.max(1)).unwrap_or_default();
            entry.hangs_at = entry.hangs_at.min(now + usual.max(ABANDONED_GRACE));
        }
    }
}

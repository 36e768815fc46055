//! Changing the number of replicas while they serve.
//!
//! Reads the number that is wanted, starts replicas or lets them go. What a replica that goes has not begun returns to the
//! queue; what it runs ends. Knows nothing of why a number is wanted.

use inferd_scheduler::Event;
use inferd_types::{Error, ErrorKind, ReplicaId, Result, Time};

use crate::generation::published::draining;
use crate::replica::entry::{ReplicaEntry, Role};
use crate::replica::kind::Launcher;
use crate::task::Task;
use crate::task::phase::Phase;

/// As many as the settings let a model begin with.
const REPLICAS_MAX: u32 = 256;

impl<L: Launcher> Task<L> {
    /// Has `wanted` replicas from now on. Returns when that is decided; their states tell when it has come to pass.
    ///
    /// # Errors
    /// `InvalidInput` where the model can't have so many, `Draining` where it is being stopped. Nothing has changed then.
    pub(super) fn scale(&mut self, wanted: u32) -> Result<()> {
        let settings = &self.published.settings;
        let (name, version) = (&settings.name, settings.version);
        if matches!(self.phase, Phase::Draining(_) | Phase::Stopping(_)) {
            return Err(draining(name));
        }
        if wanted == 0 {
            return Err(invalid(format!(
                "model '{name}' can't be scaled to 0 replicas: nothing would start one again; scale it to 1, or unload it"
            )));
        }
        if wanted > REPLICAS_MAX {
            return Err(invalid(format!(
                "model '{name}' can't be scaled to {wanted} replicas; scale it to {REPLICAS_MAX} at most"
            )));
        }
        self.intake.check_replicas(wanted)?;
        let before = self.replicas.count();
        if wanted == before {
            return Ok(());
        }
        tracing::info!(model = %name, version, before, wanted, "the number of replicas changes");
        self.scheduler.set_running_max(settings.machine.running_max(wanted));
        self.published.set_replicas_wanted(wanted);
        while self.replicas.count() > wanted {
            if let Some(replica) = self.replicas.give_up_slot() {
                self.retire(replica);
            }
        }
        let added: Vec<_> = (self.replicas.count()..wanted).map(|_| self.replicas.add_slot()).collect();
        for key in added {
            self.start(key);
        }
        self.changed = true;
        self.undecided = true;
        // What was waited for may have been the replica that is not wanted any more.
        self.end_loading();
        Ok(())
    }

    /// Gives the replica nothing new; it is closed when what it runs has ended.
    fn retire(&mut self, replica: ReplicaId) {
        let now = self.clock.now();
        let entry = &mut self.replicas[replica];
        match entry.role {
            Role::Closing(_) | Role::Retiring => {}
            // Nobody waits for what it runs.
            Role::Warming => self.close(replica, now),
            Role::Serving | Role::Stalled(_) | Role::Leaving | Role::Quarantine | Role::Profiling => {
                entry.role = Role::Retiring;
                self.event(Event::DrainReplica(replica));
            }
        }
    }

    /// Closes replicas that are not wanted any more and have nothing left to do.
    pub(super) fn tend_retired(&mut self, now: Time) {
        let done =
            |entry: &ReplicaEntry<L::Replica>| entry.role == Role::Retiring && entry.batches.is_empty();
        while let Some(replica) = self.replicas.find(done) {
            self.close(replica, now);
        }
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

//! Draining and stopping a model.
//!
//! Reads commands, hands the end to those who gave them once nothing of the replicas is left.
//! Knows nothing of how a replica ends.

use std::time::Duration;

use inferd_scheduler::Event;
use inferd_types::{Error, ReplicaId, Time};
use tokio::sync::oneshot;

use crate::generation::published::draining;
use crate::generation::state::ModelState;
use crate::replica::entry::Role;
use crate::replica::kind::{Launcher, Replica};
use crate::task::Task;
use crate::task::phase::{EndListeners, Phase};

/// Between asking a replica to end and killing it: it has nothing left to do.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

impl<L: Launcher> Task<L> {
    /// A replica did not start the first time: the model is not loaded, and nothing of it stays.
    pub(super) fn give_up_loading(&mut self, error: Error) {
        let mut listeners = EndListeners::default();
        if let Phase::Loading(loaded) = std::mem::replace(&mut self.phase, Phase::Serving) {
            listeners.load = Some((loaded, error));
        }
        self.kill_all(listeners);
    }

    pub(super) fn end_if_drained(&mut self, now: Time) {
        if matches!(self.phase, Phase::Draining(_)) && self.in_flight.is_empty() {
            self.close_all(now);
        }
    }

    pub(super) fn begin_drain(&mut self, done: oneshot::Sender<()>) {
        match &mut self.phase {
            Phase::Draining(waiting) => waiting.push(done),
            Phase::Stopping(listeners) => listeners.drains.push(done),
            Phase::Loading(_) => {
                let phase = std::mem::replace(&mut self.phase, Phase::Serving);
                let mut listeners = EndListeners { drains: vec![done], ..EndListeners::default() };
                if let Phase::Loading(loaded) = phase {
                    listeners.load = Some((loaded, draining(&self.published.settings.name)));
                }
                self.kill_all(listeners);
            }
            Phase::Serving => {
                self.published.set_state(ModelState::Draining);
                self.phase = Phase::Draining(vec![done]);
            }
        }
        self.undecided = true;
    }

    /// Answers what is left with an error and kills every replica.
    pub(super) fn stop(&mut self, done: oneshot::Sender<usize>) {
        let mut listeners = match std::mem::replace(&mut self.phase, Phase::Serving) {
            Phase::Loading(loaded) => EndListeners {
                load: Some((loaded, draining(&self.published.settings.name))),
                ..EndListeners::default()
            },
            Phase::Draining(drains) => EndListeners { drains, ..EndListeners::default() },
            Phase::Stopping(listeners) => listeners,
            Phase::Serving => EndListeners::default(),
        };
        listeners.stops.push(done);
        self.kill_all(listeners);
    }

    fn kill_all(&mut self, mut listeners: EndListeners) {
        self.published.set_state(ModelState::Draining);
        self.quarantine.give_up();
        listeners.unanswered += self.in_flight.len();
        for id in self.in_flight.ids() {
            if let Some(pending) = self.in_flight.remove(id) {
                self.event(Event::Cancelled(id));
                self.fail(pending, draining(&self.published.settings.name));
            }
        }
        self.replicas.clear_slots();
        for entry in self.replicas.iter_mut() {
            entry.role = Role::Closing(Time::MAX);
            entry.replica.kill();
        }
        self.phase = Phase::Stopping(listeners);
        self.changed = true;
    }

    /// All is answered: every replica ends.
    fn close_all(&mut self, now: Time) {
        self.replicas.clear_slots();
        let mut last = None;
        while let Some(replica) = self.replicas.after(last) {
            self.close(replica, now);
            last = Some(replica);
        }
        if let Phase::Draining(drains) = std::mem::replace(&mut self.phase, Phase::Serving) {
            self.phase = Phase::Stopping(EndListeners { drains, ..EndListeners::default() });
        }
    }

    pub(super) fn close(&mut self, replica: ReplicaId, now: Time) {
        let entry = &mut self.replicas[replica];
        entry.role = Role::Closing(now + CLOSE_GRACE);
        entry.replica.close();
        let key = entry.slot;
        if let Some(slot) = self.replicas.slot_mut(key).filter(|slot| slot.holds(replica)) {
            slot.clear();
        }
        self.changed = true;
        self.event(Event::DrainReplica(replica));
    }

    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping(_))
    }

    /// Whether nothing of the replicas is left after the model was stopped. Those who wait for it learn it.
    pub(super) fn is_over(&mut self) -> bool {
        if !self.replicas.is_empty() {
            return false;
        }
        let Phase::Stopping(listeners) = &mut self.phase else { return false };
        let listeners = std::mem::take(listeners);
        self.publish();
        listeners.notify();
        true
    }
}

//! Draining and stopping a model, and the phases of its life that lead there.
//!
//! Reads commands, hands farewells to whoever gave them once every process has been reaped.

use std::time::Duration;

use inferd_scheduler::Event;
use inferd_types::{Error, Result, Time};
use tokio::sync::oneshot;

use super::Task;
use super::lifecycle::Seat;
use crate::replica::Role;
use crate::shared::{ModelState, draining};
use crate::worker::{Launcher, Worker};

/// Between asking a worker to end and killing it: it has nothing left to do.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// Where the model is in its life.
#[derive(Debug)]
pub(super) enum Phase {
    /// Replicas start for the first time; whoever loads waits for this.
    Loading(oneshot::Sender<Result<()>>),
    Serving,
    /// Nothing is admitted; these wait until all is answered and ended.
    Draining(Vec<oneshot::Sender<()>>),
    /// Processes end, then the task.
    Stopping(Farewell),
}

/// Who is told when everything has ended.
#[derive(Debug, Default)]
pub(super) struct Farewell {
    load: Option<(oneshot::Sender<Result<()>>, Error)>,
    drains: Vec<oneshot::Sender<()>>,
    stops: Vec<oneshot::Sender<usize>>,
    unanswered: usize,
}

impl<L: Launcher> Task<L> {
    /// A replica did not start the first time: the model is not loaded, and nothing of it stays.
    pub(super) fn give_up_loading(&mut self, error: Error) {
        let mut farewell = Farewell::default();
        if let Phase::Loading(loaded) = std::mem::replace(&mut self.phase, Phase::Serving) {
            farewell.load = Some((loaded, error));
        }
        self.kill_all(farewell);
    }

    pub(super) fn end_if_drained(&mut self, now: Time) {
        if matches!(self.phase, Phase::Draining(_)) && self.flights.is_empty() {
            self.close_all(now);
        }
    }

    pub(super) fn begin_drain(&mut self, done: oneshot::Sender<()>) {
        match &mut self.phase {
            Phase::Draining(waiting) => waiting.push(done),
            Phase::Stopping(farewell) => farewell.drains.push(done),
            Phase::Loading(_) => {
                let phase = std::mem::replace(&mut self.phase, Phase::Serving);
                let mut farewell = Farewell { drains: vec![done], ..Farewell::default() };
                if let Phase::Loading(loaded) = phase {
                    farewell.load = Some((loaded, draining(&self.shared.settings.name)));
                }
                self.kill_all(farewell);
            }
            Phase::Serving => {
                self.shared.set_state(ModelState::Draining);
                self.phase = Phase::Draining(vec![done]);
            }
        }
        self.undecided = true;
    }

    /// Answers what is left with an error and kills every worker.
    pub(super) fn stop(&mut self, done: oneshot::Sender<usize>) {
        let mut farewell = match std::mem::replace(&mut self.phase, Phase::Serving) {
            Phase::Loading(loaded) => {
                Farewell { load: Some((loaded, draining(&self.shared.settings.name))), ..Farewell::default() }
            }
            Phase::Draining(drains) => Farewell { drains, ..Farewell::default() },
            Phase::Stopping(farewell) => farewell,
            Phase::Serving => Farewell::default(),
        };
        farewell.stops.push(done);
        self.kill_all(farewell);
    }

    fn kill_all(&mut self, mut farewell: Farewell) {
        self.shared.set_state(ModelState::Draining);
        self.quarantine.give_up();
        farewell.unanswered += self.flights.len();
        for id in self.flights.ids() {
            if let Some(flight) = self.flights.remove(id) {
                self.event(Event::Cancelled(id));
                self.fail(flight, draining(&self.shared.settings.name));
            }
        }
        self.seats.iter_mut().for_each(Seat::clear);
        for replica in &mut self.replicas {
            replica.role = Role::Closing(Time::MAX);
            replica.worker.kill();
        }
        self.phase = Phase::Stopping(farewell);
        self.changed = true;
    }

    /// All is answered: every worker ends.
    fn close_all(&mut self, now: Time) {
        self.seats.iter_mut().for_each(Seat::clear);
        for place in 0..self.replicas.len() {
            self.close(place, now);
        }
        if let Phase::Draining(drains) = std::mem::replace(&mut self.phase, Phase::Serving) {
            self.phase = Phase::Stopping(Farewell { drains, ..Farewell::default() });
        }
    }

    pub(super) fn close(&mut self, place: usize, now: Time) {
        let replica = &mut self.replicas[place];
        replica.role = Role::Closing(now + CLOSE_GRACE);
        replica.worker.close();
        let (id, index) = (replica.id, replica.index);
        if self.seats[index].holds(id) {
            self.seats[index].clear();
        }
        self.changed = true;
        self.event(Event::DrainReplica(id));
    }

    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping(_))
    }

    /// Says farewell once every process has been reaped.
    pub(super) fn is_over(&mut self) -> bool {
        if !self.replicas.is_empty() {
            return false;
        }
        let Phase::Stopping(farewell) = &mut self.phase else { return false };
        let Farewell { load, drains, stops, unanswered } = std::mem::take(farewell);
        self.publish();
        if let Some((loaded, error)) = load {
            let _gone = loaded.send(Err(error));
        }
        for done in drains {
            let _gone = done.send(());
        }
        for done in stops {
            let _gone = done.send(unanswered);
        }
        true
    }
}

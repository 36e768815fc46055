//! What happens when a worker dies or hangs, or a caller's time runs out while its request runs.
//!
//! Reads ends of processes and the clock, hands innocent requests back to the scheduler and suspects to the
//! quarantine.

use std::time::Duration;

use inferd_scheduler::Event;
use inferd_transport::Exit;
use inferd_types::{Error, ErrorKind, ReplicaId, RequestId, Time};

use super::Task;
use super::results::timed_out;
use crate::observer::LossReason;
use crate::quarantine::{Cause, Suspect};
use crate::replica::{Batch, Hang, Purpose, Replica, Role};
use crate::samples;
use crate::shared::ReplicaState;
use crate::worker::{Launcher, Worker};

/// Between asking a runtime to stop and killing its worker.
const TERMINATE_GRACE: Duration = Duration::from_millis(500);
/// A replica that lived this long has proved that its model runs.
const PROVEN_AFTER: Duration = Duration::from_secs(10);

impl<L: Launcher> Task<L> {
    /// Everything that is due by the clock.
    pub(super) fn tend(&mut self) {
        let now = self.clock.now();
        for place in 0..self.replicas.len() {
            if self.replicas[place].due() <= now {
                self.end_hang(place, now);
                self.stall(place, now);
                self.expire(place, now);
            }
        }
        self.tend_stalled(now);
        // Before the suspects: they may want the seat of the spare, which is free again when its wait is over.
        self.tend_seats(now);
        self.tend_suspects(now);
        self.tend_lifecycle(now);
    }

    fn end_hang(&mut self, place: usize, now: Time) {
        let replica = &mut self.replicas[place];
        let running = !replica.batches.is_empty();
        let (index, pid) = (replica.index, replica.worker.pid());
        let kill = match (replica.role, replica.hang) {
            (Role::Closing(kill_at), _) if kill_at <= now => {
                replica.role = Role::Closing(Time::MAX);
                true
            }
            (Role::Closing(_), _) | (_, Some(Hang::Killed)) => false,
            (_, Some(Hang::Asked(kill_at))) => kill_at <= now,
            (Role::Warming, None) => replica.hangs_at <= now,
            (_, None) if running && replica.hangs_at <= now => {
                replica.hang = Some(Hang::Asked(now + TERMINATE_GRACE));
                replica.worker.terminate_run();
                let settings = &self.shared.settings;
                tracing::warn!(
                    model = %settings.name, version = settings.version, replica = index, pid,
                    "a run goes on past execution_max_s, or after everyone who waited for it has gone; it is asked to stop"
                );
                false
            }
            (_, None) => false,
        };
        if kill {
            replica.hang = Some(Hang::Killed);
            replica.worker.kill();
        }
    }

    /// Answers those in running batches whose time has passed. Queued and staged ones are the scheduler's.
    fn expire(&mut self, place: usize, now: Time) {
        let mut late = Vec::new();
        for batch in &mut self.replicas[place].batches {
            if batch.timeout.is_none_or(|timeout| timeout > now) {
                continue;
            }
            batch.timeout = None;
            for (id, _) in &batch.members {
                let Some(timeout) = self.flights.get(*id).and_then(|flight| flight.timeout) else { continue };
                if timeout > now {
                    batch.timeout = Some(batch.timeout.map_or(timeout, |first| first.min(timeout)));
                } else if batch.taken || batch.purpose == Purpose::Suspects {
                    late.push(*id);
                }
            }
        }
        if late.is_empty() {
            return;
        }
        for id in late {
            if let Some(flight) = self.flights.remove(id) {
                self.fail(flight, timed_out());
                self.event(Event::Cancelled(id));
                self.tell_gone(id);
            }
        }
        self.watch_abandoned();
    }

    /// Lets the model know, where it wants to, that nobody waits for the rows of a request that runs.
    pub(super) fn tell_gone(&mut self, id: RequestId) {
        let Some(input) = self.shared.interior().and_then(|interior| interior.cancelled()) else { return };
        for replica in &mut self.replicas {
            for batch in &replica.batches {
                let mut first = 0;
                for (member, rows) in &batch.members {
                    if *member == id
                        && let Some(slot) = batch.slot
                    {
                        replica.worker.mark(slot, input, first, *rows);
                    }
                    first += rows;
                }
            }
        }
    }

    /// Answers those who can't go on without a replica that has ended.
    fn fail_at_home(&mut self, lost: ReplicaId) {
        for id in self.flights.at_home(lost) {
            self.event(Event::Removed(id));
            if let Some(flight) = self.flights.remove(id) {
                let error = self.lost_home();
                self.fail(flight, error);
            }
        }
    }

    pub(super) fn lost_home(&self) -> Error {
        Error::new(
            ErrorKind::WorkerLost,
            format!(
                "the sequence was lost: the worker of model '{}' that remembered it has ended; begin it again with \
                 sequence_start",
                self.shared.settings.name
            ),
        )
    }

    /// A process has ended and is reaped: its memory is ours alone now.
    pub(super) fn exited(&mut self, id: ReplicaId, exit: Exit) {
        let Some(place) = self.place(id) else { return };
        // What it finished before it died is finished.
        self.look_at(place);
        let replica = self.replicas.remove(place);
        self.changed = true;
        self.event(Event::ReplicaLost(id));
        let expected = matches!(replica.role, Role::Closing(_)) || self.is_stopping();
        let hung = replica.hang == Some(Hang::Killed);
        let cause = if hung { Cause::Hang } else { Cause::Death };
        if !expected {
            self.tell_of_loss(&replica, exit, hung);
        }
        self.fail_at_home(id);
        let mut by_suspects = false;
        for batch in replica.batches {
            by_suspects |= batch.purpose == Purpose::Suspects;
            self.orphan(batch, cause);
        }
        if self.seats[replica.index].holds(id) {
            let now = self.clock.now();
            if replica.role == Role::Warming {
                let error = loading_ended(hung, exit, self.shared.settings.load_max_s.0);
                let error = samples::failed(&self.samples, replica.warmed.saturating_sub(1), &error);
                self.start_failed(replica.index, error);
            } else {
                let seat = &mut self.seats[replica.index];
                if replica.served || now.since(replica.ready) >= PROVEN_AFTER {
                    seat.backoff.succeeded();
                }
                // Deaths in quarantine have a bound of their own, the kill budget, and callers who wait.
                let wait = if by_suspects { Duration::ZERO } else { seat.backoff.failed() };
                seat.wait_until(now + wait);
            }
        }
    }

    /// Deals with a batch whose worker has ended.
    fn orphan(&mut self, mut batch: Batch, cause: Cause) {
        if self.part(&mut batch).is_some() {
            // A copy of it still runs, with its callers.
            return;
        }
        if batch.purpose == Purpose::Suspects {
            // Whoever has been told something runs no more, and the quarantine passes over who does not listen.
            self.end_stream(&batch);
        }
        match (batch.purpose, batch.taken) {
            (Purpose::Ordinary, false) => {
                let requests = self.flights.waiting(batch.members.iter().map(|(id, _)| *id));
                self.event(Event::Returned { requests });
            }
            (Purpose::Ordinary, true) => self.suspect(batch, cause),
            (Purpose::Suspects, false) => self.quarantine.returned(),
            (Purpose::Suspects, true) => self.suspects_died(cause),
            (Purpose::Profile, _) => self.profiler = None,
            (Purpose::Comparison, _) => self.comparison_lost(),
            (Purpose::WarmUp, _) => {}
        }
    }

    /// A batch was running when its worker ended, or had to be ended.
    pub(super) fn suspect(&mut self, batch: Batch, cause: Cause) {
        if batch.members.is_empty() {
            // A copy whose callers have their answer.
            return;
        }
        let alone = batch.members.len() == 1;
        for (id, _) in &batch.members {
            self.event(Event::Removed(*id));
        }
        if self.end_stream(&batch) {
            return;
        }
        if !self.shared.settings.retry_on_worker_loss {
            let error = match cause {
                Cause::Hang if alone => self.hung_alone(),
                _ => Error::new(
                    ErrorKind::WorkerLost,
                    "the worker that ran the request ended; it may have had effects, so it was not run again \
                     (retry_on_worker_loss is false)",
                ),
            };
            self.fail_all(batch, &error);
            return;
        }
        let suspects: Vec<Suspect> = batch
            .members
            .iter()
            .filter(|(id, _)| self.flights.get(*id).is_some())
            .map(|(request, rows)| Suspect { request: *request, rows: *rows })
            .collect();
        if suspects.is_empty() {
            // Everyone has gone, which is why it was ended.
            return;
        }
        let now = self.clock.now();
        let mut verdicts = Vec::new();
        self.quarantine.suspect(now, suspects, alone, cause, &mut verdicts);
        self.pronounce(verdicts);
    }

    /// What is told to a request that ran alone past the stated limit.
    pub(super) fn hung_alone(&self) -> Error {
        let limit = self.shared.settings.execution_max_s.map_or(Duration::ZERO, |limit| limit.0);
        Error::new(
            ErrorKind::DeadlineMissed,
            format!(
                "the request ran longer than execution_max_s = {limit:?} and was ended; raise it if that is honest work"
            ),
        )
    }

    fn tell_of_loss(&self, replica: &Replica<L::Worker>, exit: Exit, hung: bool) {
        let reason = match exit {
            _ if hung => LossReason::Hang,
            Exit::Signal(_) => LossReason::Signal,
            Exit::Status(_) | Exit::Unknown => LossReason::Exit,
        };
        self.shared.observer.worker_lost(reason);
        self.shared.events.worker_lost(replica.index, replica.worker.pid(), reason);
        let settings = &self.shared.settings;
        tracing::warn!(
            model = %settings.name,
            version = settings.version,
            replica = replica.index,
            pid = replica.worker.pid(),
            reason = reason.label(),
            exit = ?exit,
            state = ReplicaState::label(replica.role.state()),
            running = replica.batches.first().filter(|batch| batch.taken).map_or(0, |batch| batch.members.len()),
            "a worker was lost"
        );
    }
}

fn loading_ended(hung: bool, exit: Exit, load_max: Duration) -> Error {
    if hung {
        return too_slow(load_max);
    }
    let how = match exit {
        Exit::Status(status) => format!("with status {status}"),
        Exit::Signal(signal) => format!("by signal {signal}"),
        Exit::Unknown => "for an unknown reason".to_owned(),
    };
    Error::new(
        ErrorKind::ModelFailed,
        format!(
            "the worker ended {how} during its first inference; its log says more (warmup: false skips it)"
        ),
    )
}

pub(super) fn too_slow(load_max: Duration) -> Error {
    Error::new(
        ErrorKind::ModelFailed,
        format!("loading and warm-up took longer than {load_max:?}; raise load_max_s"),
    )
}

//! What happens when a replica dies or hangs, or a caller's time runs out while its request runs.
//!
//! Reads ends of replicas and the clock, hands innocent requests back to the scheduler and suspects to the quarantine.
//! Sets when a lost replica may start again; `lifecycle` starts it.

use std::time::Duration;

use inferd_scheduler::Event;
use inferd_types::{Error, ReplicaId, RequestId, Time};

use crate::generation::state::ReplicaState;
use crate::observe::observer::LossReason;
use crate::replica::entry::{Hang, HeldBatch, Purpose, ReplicaEntry, Role};
use crate::replica::kind::{Ended, Launcher, Replica};
use crate::replica::quarantine::{Cause, Suspect};
use crate::task::Task;
use crate::task::errors::{
    hung_alone, load_ended, lost_and_not_run_again, lost_too_often, sequence_lost, timed_out,
};
use crate::warmup::samples;

/// Between asking a runtime to stop and killing its worker.
const TERMINATE_GRACE: Duration = Duration::from_millis(500);
/// A replica that lived this long has proved that its model runs.
const PROVEN_AFTER: Duration = Duration::from_secs(10);
/// Replicas that may be lost under a request although its loss is no evidence against it, before it is given up.
const LOSSES_MAX: u8 = 3;

impl<L: Launcher> Task<L> {
    /// Everything that is due by the clock.
    pub(super) fn tend(&mut self) {
        let now = self.clock.now();
        let mut last = None;
        while let Some(replica) = self.replicas.after(last) {
            last = Some(replica);
            if self.replicas[replica].due() <= now {
                self.end_hang(replica, now);
                self.stall(replica, now);
                self.expire(replica, now);
            }
        }
        self.tend_retired(now);
        self.tend_stalled(now);
        // Before the suspects: they may want the slot of the spare, which is free again when its wait is over.
        self.tend_slots(now);
        self.tend_suspects(now);
        self.tend_lifecycle(now);
    }

    fn end_hang(&mut self, replica: ReplicaId, now: Time) {
        let entry = &mut self.replicas[replica];
        let running = !entry.batches.is_empty();
        let (key, pid) = (entry.slot, entry.replica.pid());
        let kill = match (entry.role, entry.hang) {
            (Role::Closing(kill_at), _) if kill_at <= now => {
                entry.role = Role::Closing(Time::MAX);
                true
            }
            (Role::Closing(_), _) | (_, Some(Hang::Killed)) => false,
            (_, Some(Hang::Asked(kill_at))) => kill_at <= now,
            (Role::Warming, None) => entry.hangs_at <= now,
            (_, None) if running && entry.hangs_at <= now => {
                entry.hang = Some(Hang::Asked(now + TERMINATE_GRACE));
                entry.replica.stop_run();
                let settings = &self.published.settings;
                tracing::warn!(
                    model = %settings.name, version = settings.version, replica = self.replicas.number(key), pid,
                    "a run goes on past execution_max_s, or after everyone who waited for it has gone; it is asked to stop"
                );
                false
            }
            (_, None) => false,
        };
        if kill {
            let entry = &mut self.replicas[replica];
            entry.hang = Some(Hang::Killed);
            entry.replica.kill();
        }
    }

    /// Answers those in running batches whose time has passed. Queued and staged ones are the scheduler's.
    fn expire(&mut self, replica: ReplicaId, now: Time) {
        let mut late = Vec::new();
        for batch in &mut self.replicas[replica].batches {
            if batch.timeout.is_none_or(|timeout| timeout > now) {
                continue;
            }
            batch.timeout = None;
            for (id, _) in &batch.members {
                let Some(timeout) = self.in_flight.get(*id).and_then(|pending| pending.timeout) else {
                    continue;
                };
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
            if let Some(pending) = self.in_flight.remove(id) {
                self.fail(pending, timed_out());
                self.event(Event::Cancelled(id));
                self.mark_cancelled(id);
            }
        }
        self.watch_abandoned();
    }

    /// Lets the model know, where it wants to, that nobody waits for the rows of a request that runs.
    pub(super) fn mark_cancelled(&mut self, id: RequestId) {
        let Some(input) = self.intake.implicit().and_then(|implicit| implicit.cancelled()) else { return };
        for entry in self.replicas.iter_mut() {
            for batch in &entry.batches {
                let mut first = 0;
                for (member, rows) in &batch.members {
                    if *member == id
                        && let Some(place) = batch.place
                    {
                        entry.replica.mark_cancelled(place, input, first, *rows);
                    }
                    first += rows;
                }
            }
        }
    }

    /// Answers requests that can't go on without a replica that has ended.
    fn fail_at_home(&mut self, lost: ReplicaId) {
        for id in self.in_flight.at_home(lost) {
            self.event(Event::Removed(id));
            if let Some(pending) = self.in_flight.remove(id) {
                let error = self.lost_home();
                self.fail(pending, error);
            }
        }
    }

    pub(super) fn lost_home(&self) -> Error {
        sequence_lost(&self.published.settings.name)
    }

    /// A replica has ended, and nothing of it is left: what it held is the task's alone now.
    pub(super) fn ended(&mut self, id: ReplicaId, ended: &Ended) {
        if !self.replicas.contains(id) {
            return;
        }
        // What it finished before it died is finished.
        self.look_at(id);
        let Some(entry) = self.replicas.remove(id) else { return };
        self.changed = true;
        self.event(Event::ReplicaLost(id));
        let expected = matches!(entry.role, Role::Closing(_)) || self.is_stopping();
        let hung = entry.hang == Some(Hang::Killed);
        if !expected {
            self.report_loss(&entry, ended, hung);
        }
        self.fail_at_home(id);
        // A run that was ended is evidence, whatever ended with it.
        let evidence = match hung {
            true => Some(Cause::Hang),
            false => entry.replica.capabilities().loss_is_evidence.then_some(Cause::Death),
        };
        let mut by_suspects = false;
        for batch in entry.batches {
            by_suspects |= batch.purpose == Purpose::Suspects;
            self.orphan(batch, evidence);
        }
        let now = self.clock.now();
        let Some(slot) = self.replicas.slot_mut(entry.slot).filter(|slot| slot.holds(id)) else { return };
        if entry.role == Role::Warming {
            let error = load_ended(hung, ended, self.published.settings.load_max_s.0);
            let error = samples::failed(&self.samples, entry.warmed.saturating_sub(1), &error);
            return self.start_failed(entry.slot, error);
        }
        if entry.served || now.since(entry.ready) >= PROVEN_AFTER {
            slot.backoff.succeeded();
        }
        // Deaths in quarantine have a bound of their own, the kill budget, and callers who wait.
        let wait = if by_suspects { Duration::ZERO } else { slot.backoff.failed() };
        slot.wait_until(now + wait);
    }

    /// Deals with a batch whose replica has ended; `evidence`: what that says of the requests that ran, if anything.
    fn orphan(&mut self, mut batch: HeldBatch, evidence: Option<Cause>) {
        if self.part(&mut batch).is_some() {
            // A copy of it still runs, with its callers.
            return;
        }
        if batch.purpose == Purpose::Suspects {
            // A request whose caller has had a response runs no more, and the quarantine passes over it.
            self.end_stream(&batch);
        }
        match (batch.purpose, batch.taken, evidence) {
            (Purpose::Ordinary, false, _) => {
                let requests = self.in_flight.waiting(batch.members.iter().map(|(id, _)| *id));
                self.event(Event::Returned { requests });
            }
            (Purpose::Ordinary, true, Some(cause)) => self.suspect(batch, cause),
            (Purpose::Ordinary, true, None) => self.run_again(batch),
            (Purpose::Suspects, true, Some(cause)) => self.suspects_died(cause),
            (Purpose::Suspects, ..) => self.quarantine.returned(),
            (Purpose::Profile, ..) => self.profiler = None,
            (Purpose::Comparison, ..) => self.comparison_lost(),
            (Purpose::WarmUp, ..) => {}
        }
    }

    /// A batch was running when its replica was lost, which says nothing of its requests.
    fn run_again(&mut self, batch: HeldBatch) {
        let retry = self.published.settings.retry_on_worker_loss;
        if self.end_stream(&batch) {
            return batch.members.iter().for_each(|(id, _)| self.event(Event::Removed(*id)));
        }
        let mut requests = Vec::with_capacity(batch.members.len());
        for (id, _) in batch.members {
            let Some(pending) = self.in_flight.get_mut(id) else { continue };
            pending.losses += 1;
            let losses = pending.losses;
            if retry && losses < LOSSES_MAX {
                requests.push(id);
                continue;
            }
            self.event(Event::Removed(id));
            if let Some(pending) = self.in_flight.remove(id) {
                let error = if retry { lost_too_often(losses) } else { lost_and_not_run_again() };
                self.fail(pending, error);
            }
        }
        self.event(Event::Returned { requests });
    }

    /// A batch was running when its replica ended, or had to be ended.
    pub(super) fn suspect(&mut self, batch: HeldBatch, cause: Cause) {
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
        if !self.published.settings.retry_on_worker_loss {
            let error = match cause {
                Cause::Hang if alone => self.hung_alone(),
                _ => lost_and_not_run_again(),
            };
            self.fail_all(batch, &error);
            return;
        }
        let suspects: Vec<Suspect> = batch
            .members
            .iter()
            .filter(|(id, _)| self.in_flight.get(*id).is_some())
            .map(|(request, rows)| Suspect { request: *request, rows: *rows })
            .collect();
        if suspects.is_empty() {
            // Every caller has gone, which is why it was ended.
            return;
        }
        let now = self.clock.now();
        let mut verdicts = Vec::new();
        self.quarantine.suspect(now, suspects, alone, cause, &mut verdicts);
        self.pronounce(verdicts);
    }

    /// What a request gets that ran alone past the stated limit.
    pub(super) fn hung_alone(&self) -> Error {
        hung_alone(self.published.settings.execution_max_s.map_or(Duration::ZERO, |limit| limit.0))
    }

    fn report_loss(&self, entry: &ReplicaEntry<L::Replica>, ended: &Ended, hung: bool) {
        let reason = if hung { LossReason::Hang } else { ended.reason };
        self.published.observer.worker_lost(reason);
        if let Some(pid) = entry.replica.pid() {
            self.published.events.worker_lost(self.replicas.number(entry.slot), pid, reason);
        }
        let settings = &self.published.settings;
        tracing::warn!(
            model = %settings.name,
            version = settings.version,
            replica = self.replicas.number(entry.slot),
            pid = entry.replica.pid(),
            reason = reason.label(),
            exit = %ended.how,
            state = ReplicaState::label(entry.role.state()),
            running = entry.batches.first().filter(|batch| batch.taken).map_or(0, |batch| batch.members.len()),
            "a worker was lost"
        );
    }
}

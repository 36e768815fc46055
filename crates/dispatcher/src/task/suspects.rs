//! Where and when suspects run, and what the quarantine's verdicts mean for their callers.
//!
//! Reads the quarantine's wishes, hands suspects to a replica that nothing else uses meanwhile.
//! Knows nothing of how a request is found out.

use std::time::Duration;

use inferd_scheduler::Event;
use inferd_types::{Error, ErrorKind, ReplicaId, Time};

use crate::replica::entry::{HeldBatch, Purpose, ReplicaEntry, Role};
use crate::replica::kind::{Launcher, Shares};
use crate::replica::quarantine::{Cause, Fate, QuarantineVerdict};
use crate::task::Task;
use crate::task::errors::timed_out;

impl<L: Launcher> Task<L> {
    pub(super) fn suspects_due(&self) -> Time {
        let timeouts = self.quarantine.requests().filter_map(|id| self.in_flight.get(id)?.timeout);
        timeouts.min().unwrap_or(Time::MAX)
    }

    /// Lets suspects run where that is possible, and gives replicas back that are not needed for it any more.
    pub(super) fn tend_suspects(&mut self, now: Time) {
        if self.quarantine.is_idle() {
            self.end_quarantine(now);
            return;
        }
        self.expire_suspects(now);
        if self.quarantine.is_waiting() {
            self.make_room_for_suspects();
            self.run_suspects();
        }
    }

    fn expire_suspects(&mut self, now: Time) {
        if self.suspects_due() > now {
            return;
        }
        let late: Vec<_> = self.quarantine.requests().collect();
        for id in late {
            let is_late = |timeout: Time| timeout <= now;
            if self.in_flight.get(id).and_then(|pending| pending.timeout).is_some_and(is_late)
                && let Some(pending) = self.in_flight.remove(id)
            {
                self.fail(pending, timed_out());
            }
        }
    }

    /// Sees to it that a replica runs suspects soon: one that is free for it, else one of several that serve, else
    /// one that is being started, else a spare. The last one that serves is never taken.
    fn make_room_for_suspects(&mut self) {
        for entry in self.replicas.iter_mut() {
            if entry.role == Role::Leaving && entry.batches.is_empty() {
                entry.role = Role::Quarantine;
                self.changed = true;
            }
        }
        if self.replicas.iter().any(ReplicaEntry::is_lent) {
            return;
        }
        let serving = self.serving();
        if serving >= 2 {
            let candidates = self.replicas.iter_mut().filter(|entry| entry.role == Role::Serving);
            if let Some(entry) = candidates.min_by_key(|entry| entry.batches.len()) {
                entry.role = if entry.batches.is_empty() { Role::Quarantine } else { Role::Leaving };
                let id = entry.id;
                self.changed = true;
                self.event(Event::DrainReplica(id));
            }
            return;
        }
        let coming = self.coming();
        let soon = serving + coming >= 2 || (coming >= 1 && !self.quarantine.is_bisecting());
        if !soon {
            self.start_spare();
        }
    }

    fn run_suspects(&mut self) {
        let free = |entry: &ReplicaEntry<L::Replica>| {
            entry.role == Role::Quarantine && entry.batches.is_empty() && entry.hang.is_none()
        };
        let Some(replica) = self.replicas.find(free) else { return };
        let mut verdicts = Vec::new();
        let in_flight = &self.in_flight;
        let listens = |id| in_flight.is_awaited(id);
        let group = self.quarantine.next(listens, &mut verdicts);
        if let Some(group) = group {
            let ids: Vec<_> = group.iter().map(|suspect| suspect.request).collect();
            let batch = self.own_batch();
            if let Err(error) = self.stage(replica, batch, Purpose::Suspects, &ids) {
                // It fitted before: this is no state that suspects can be found out in.
                self.quarantine.passed(&mut verdicts);
                for id in ids {
                    if let Some(pending) = self.in_flight.remove(id) {
                        self.fail(pending, error.clone());
                    }
                }
            }
        }
        self.pronounce(verdicts);
    }

    /// No request is suspected any more: replicas serve again, the spare ends.
    fn end_quarantine(&mut self, now: Time) {
        let mut last = None;
        while let Some(replica) = self.replicas.after(last) {
            last = Some(replica);
            let entry = &self.replicas[replica];
            if !entry.is_lent() {
                continue;
            }
            if !entry.is_spare() {
                self.serve(replica);
            } else if entry.batches.is_empty() {
                self.close(replica, now);
            }
        }
    }

    pub(super) fn suspects_done(
        &mut self,
        replica: ReplicaId,
        now: Time,
        batch: HeldBatch,
        execution: Duration,
        result: Result<Shares, Error>,
    ) {
        let mut verdicts = Vec::new();
        match result {
            Ok(shares) => {
                self.scheduler.observe(batch.rows, execution);
                self.quarantine.passed(&mut verdicts);
                self.share_out(replica, now, batch, execution, shares);
            }
            Err(error) => {
                if !self.quarantine.failed(&mut verdicts) {
                    self.fail_all(batch, &error);
                }
            }
        }
        self.pronounce(verdicts);
    }

    /// The runtime stopped an ordinary batch that hung; its worker lives.
    pub(super) fn suspect_hung(&mut self, batch: HeldBatch) {
        self.suspect(batch, Cause::Hang);
    }

    /// The same for a batch of suspects.
    pub(super) fn suspects_hung(&mut self) {
        self.suspects_died(Cause::Hang);
    }

    pub(super) fn suspects_died(&mut self, cause: Cause) {
        let (now, mut verdicts) = (self.clock.now(), Vec::new());
        self.quarantine.died(now, cause, &mut verdicts);
        self.pronounce(verdicts);
    }

    pub(super) fn pronounce(&mut self, verdicts: Vec<QuarantineVerdict>) {
        let published = self.published.clone();
        let settings = &published.settings;
        for verdict in verdicts {
            match verdict {
                QuarantineVerdict::Answer(id, fate) => {
                    let Some(pending) = self.in_flight.remove(id) else { continue };
                    tracing::error!(
                        model = %settings.name, version = settings.version, request = id.0, rows = pending.rows,
                        fate = ?fate, "a suspect was given up"
                    );
                    let error = self.fate_error(fate);
                    self.fail(pending, error);
                }
                QuarantineVerdict::LimitRows(rows) => {
                    tracing::error!(
                        model = %settings.name, version = settings.version, batch_rows_max = rows,
                        "large batches ended workers although none of their requests does: fewer rows run together \
                         from now on; set batch_rows_max to keep it so"
                    );
                    self.scheduler.limit_batch_rows(rows);
                    self.batching.limit_rows(rows);
                    if let Some(validator) = &mut self.validator {
                        validator.limit_rows(rows);
                    }
                }
            }
        }
    }

    fn fate_error(&self, fate: Fate) -> Error {
        match fate {
            Fate::Condemned => Error::new(
                ErrorKind::ModelFailed,
                "this request ended every worker that ran it, twice with nothing else running; it is not run again: \
                 check its inputs",
            ),
            Fate::Hung => self.hung_alone(),
            Fate::BudgetSpent => Error::new(
                ErrorKind::WorkerLost,
                "the worker that ran the request ended, and too many have ended in the last minute to run it again \
                 (kills_per_minute_max); try again later",
            ),
        }
    }
}

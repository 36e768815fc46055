//! Where and when suspects run, and what the quarantine's verdicts mean for their callers.
//!
//! Reads the quarantine's wishes, hands suspects to a replica that nobody else uses meanwhile.

use std::time::Duration;

use inferd_scheduler::Event;
use inferd_types::{Error, ErrorKind, Time};

use super::Task;
use super::results::timed_out;
use crate::quarantine::{Cause, Fate, Verdict};
use crate::replica::{Batch, Purpose, Role};
use crate::worker::{Launcher, Shares};

impl<L: Launcher> Task<L> {
    pub(super) fn suspects_due(&self) -> Time {
        let timeouts = self.quarantine.requests().filter_map(|id| self.flights.get(id)?.timeout);
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
            if self.flights.get(id).and_then(|flight| flight.timeout).is_some_and(is_late)
                && let Some(flight) = self.flights.remove(id)
            {
                self.fail(flight, timed_out());
            }
        }
    }

    /// Sees to it that a replica runs suspects soon: one that is free for it, else one of several that serve, else
    /// one that is being started, else a spare. The last one that serves is never taken.
    fn make_room_for_suspects(&mut self) {
        for replica in &mut self.replicas {
            if replica.role == Role::Leaving && replica.batches.is_empty() {
                replica.role = Role::Quarantine;
                self.changed = true;
            }
        }
        if self.replicas.iter().any(|replica| matches!(replica.role, Role::Quarantine | Role::Leaving)) {
            return;
        }
        let serving = self.serving();
        if serving >= 2 {
            let candidates = self.replicas.iter_mut().filter(|replica| replica.role == Role::Serving);
            if let Some(replica) = candidates.min_by_key(|replica| replica.batches.len()) {
                replica.role = if replica.batches.is_empty() { Role::Quarantine } else { Role::Leaving };
                let id = replica.id;
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
        let free = |replica: &crate::replica::Replica<L::Worker>| {
            replica.role == Role::Quarantine && replica.batches.is_empty() && replica.hang.is_none()
        };
        let Some(place) = self.replicas.iter().position(free) else { return };
        let mut verdicts = Vec::new();
        let flights = &self.flights;
        let listens = |id| flights.is_awaited(id);
        let group = self.quarantine.next(listens, &mut verdicts);
        if let Some(group) = group {
            let ids: Vec<_> = group.iter().map(|suspect| suspect.request).collect();
            let batch = self.own_batch();
            if let Err(error) = self.stage(place, batch, Purpose::Suspects, &ids) {
                // It fitted before: this is no state that suspects can be found out in.
                self.quarantine.passed(&mut verdicts);
                for id in ids {
                    if let Some(flight) = self.flights.remove(id) {
                        self.fail(flight, error.clone());
                    }
                }
            }
        }
        self.pronounce(verdicts);
    }

    /// Nobody is suspected: replicas serve again, the spare ends.
    fn end_quarantine(&mut self, now: Time) {
        for place in 0..self.replicas.len() {
            let replica = &self.replicas[place];
            if !matches!(replica.role, Role::Quarantine | Role::Leaving) {
                continue;
            }
            if !self.is_spare(replica.index) {
                self.serve(place);
            } else if replica.batches.is_empty() {
                self.close(place, now);
            }
        }
    }

    pub(super) fn suspects_done(
        &mut self,
        place: usize,
        now: Time,
        batch: Batch,
        execution: Duration,
        result: Result<Shares, Error>,
    ) {
        let mut verdicts = Vec::new();
        match result {
            Ok(shares) => {
                self.scheduler.observe(batch.rows, execution);
                self.quarantine.passed(&mut verdicts);
                let replica = self.replicas[place].id;
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
    pub(super) fn suspect_hung(&mut self, batch: Batch) {
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

    pub(super) fn pronounce(&mut self, verdicts: Vec<Verdict>) {
        let shared = self.shared.clone();
        let settings = &shared.settings;
        for verdict in verdicts {
            match verdict {
                Verdict::Answer(id, fate) => {
                    let Some(flight) = self.flights.remove(id) else { continue };
                    tracing::error!(
                        model = %settings.name, version = settings.version, request = id.0, rows = flight.rows,
                        fate = ?fate, "a suspect was given up"
                    );
                    let error = self.fate_error(fate);
                    self.fail(flight, error);
                }
                Verdict::LimitRows(rows) => {
                    tracing::error!(
                        model = %settings.name, version = settings.version, batch_rows_max = rows,
                        "large batches ended workers although none of their requests does: fewer rows run together \
                         from now on; set batch_rows_max to keep it so"
                    );
                    self.scheduler.limit_batch_rows(rows);
                    self.company.limit_rows(rows);
                    if let Some(door) = &mut self.door {
                        door.limit_rows(rows);
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

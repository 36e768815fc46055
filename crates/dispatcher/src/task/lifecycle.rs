//! Starting, warming up and restarting replicas.
//!
//! Reads ends of starts and the clock, hands ready replicas to the scheduler. Knows nothing of why a replica ended.

use std::sync::Arc;

use inferd_scheduler::{Config, Event, Room, Scheduler};
use inferd_types::settings::{LoadedModel, Placement};
use inferd_types::{Error, ErrorKind, ReplicaId, Result, Time};

use crate::batching::cross_request::{self, CrossRequestBatching};
use crate::generation::published::Description;
use crate::generation::state::{ModelState, ReplicaState, ReplicaStatus};
use crate::intake::implicit;
use crate::observe::observer::ReplicaCounts;
use crate::replica::entry::{Purpose, ReplicaEntry, Role};
use crate::replica::kind::{Launcher, Replica};
use crate::replica::slot::{SlotKey, SlotState};
use crate::requests::validator::RequestValidator;
use crate::task::errors::load_too_slow;
use crate::task::phase::Phase;
use crate::task::{Report, Task};
use crate::warmup::profiler::Profiler;
use crate::warmup::samples;

/// Failed starts in a row, with nothing that serves, after which pending requests are failed.
const FAILURES_MAX: u32 = 3;

impl<L: Launcher> Task<L> {
    pub(super) fn start_all(&mut self) {
        let keys: Vec<_> = self.replicas.regular().map(|(key, _)| key).collect();
        for key in keys {
            self.start(key);
        }
        self.publish();
    }

    /// Does nothing where the spare is there or on its way.
    pub(super) fn start_spare(&mut self) {
        if matches!(self.replicas.spare().state, SlotState::Empty) {
            self.start(SlotKey::Spare);
        }
    }

    pub(super) fn start(&mut self, key: SlotKey) {
        self.starts += 1;
        let start = self.starts;
        let placement = Placement {
            replica: self.replicas.number(key),
            replicas: self.replicas.count(),
            is_spare: key == SlotKey::Spare,
        };
        let (future, limit, reporter) =
            (self.launcher.start(placement), self.published.settings.load_max_s.0, self.reporter.clone());
        let task = tokio::spawn(async move {
            let result = match tokio::time::timeout(limit, future).await {
                Ok(result) => result,
                Err(_) => Err(load_too_slow(limit)),
            };
            // Where the task has ended the replica is dropped, and so ended, here.
            let _ended = reporter.send(Report::Started { key, start, result }).await;
        });
        let since = self.clock.now();
        if let Some(slot) = self.replicas.slot_mut(key) {
            slot.state = SlotState::Starting { task: task.abort_handle(), start, since };
        }
        self.changed = true;
    }

    pub(super) fn started(&mut self, key: SlotKey, reported: u64, result: Result<(L::Replica, LoadedModel)>) {
        let state = self.replicas.slot_mut(key).map(|slot| &slot.state);
        let Some(SlotState::Starting { start, since, .. }) = state else { return };
        let (start, since) = (*start, *since);
        if start != reported {
            return;
        }
        let admitted = result.and_then(|(replica, loaded)| self.meet(loaded).map(|()| replica));
        let replica = match admitted {
            Ok(replica) => replica,
            Err(error) => return self.start_failed(key, error),
        };
        let ended = replica.ended();
        let warm_by = since + self.published.settings.load_max_s.0;
        let id = self.replicas.insert(key, replica, warm_by);
        let reporter = self.reporter.clone();
        tokio::spawn(async move {
            let ended = ended.await;
            let _ended = reporter.send(Report::Ended { replica: id, ended }).await;
        });
        self.changed = true;
        if !self.published.settings.warmup {
            self.ready(id);
        } else {
            let begun = self.warm(id);
            self.warm_or_ready(id, begun);
        }
    }

    /// Begins the next run that warms a replica up. False: there is none left.
    fn warm(&mut self, replica: ReplicaId) -> Result<bool> {
        let run = self.replicas[replica].warmed;
        match samples::at(&self.samples, run) {
            Some(sample) => {
                let (rows, inputs) = (sample.rows, sample.inputs.clone());
                self.stage_inputs(replica, Purpose::WarmUp, rows, &[&inputs])
                    .map_err(|error| samples::failed(&self.samples, run, &error))?;
            }
            None if run == 0 => self.stage_synthetic(replica, Purpose::WarmUp, 1)?,
            None => return Ok(false),
        }
        self.replicas[replica].warmed += 1;
        Ok(true)
    }

    fn warm_or_ready(&mut self, replica: ReplicaId, warming: Result<bool>) {
        match warming {
            Ok(true) => {}
            Ok(false) => self.ready(replica),
            Err(error) => {
                let entry = &mut self.replicas[replica];
                entry.role = Role::Closing(Time::MAX);
                entry.replica.kill();
                let key = entry.slot;
                self.start_failed(key, error);
            }
        }
    }

    /// Learns from the first worker what the model is; later ones must be the same.
    fn meet(&mut self, mut loaded: LoadedModel) -> Result<()> {
        let settings = &self.published.settings;
        loaded.signature.complete(settings)?;
        implicit::complete(&mut loaded, settings)?;
        cross_request::announce(&mut loaded, settings)?;
        match self.published.signature() {
            Some(known) if **known == loaded.signature => Ok(()),
            Some(_) => Err(Error::new(
                ErrorKind::ModelFailed,
                "the model has other inputs or outputs than when it was first loaded; unload it and load it again",
            )),
            None => {
                let batched = loaded.signature.batched();
                let validator = RequestValidator::new(&loaded.signature, settings)?;
                self.samples = samples::prepare(settings, &loaded.signature)?;
                let replicas = self.replicas.count();
                let mut config = Config::from_settings(settings, replicas, batched);
                if loaded.signature.decoupled {
                    // A copy's responses would be sent beside the first's.
                    config.hedging = None;
                }
                let profiled =
                    !loaded.signature.decoupled && settings.profiling && settings.profile.is_empty();
                if let Some(left_out) = loaded.facts.get("left_out") {
                    let (model, version) = (&settings.name, settings.version);
                    tracing::warn!(%model, version, "clients don't see {left_out}");
                }
                let sequences = settings.sequence.is_some() || loaded.sequence.is_some();
                let batching = CrossRequestBatching::new(&loaded.signature, settings, sequences);
                let client_signature = Arc::new(self.intake.open(&loaded, replicas)?);
                self.published.describe(Description {
                    signature: Arc::new(loaded.signature),
                    client_signature,
                    facts: loaded.facts,
                });
                if profiled {
                    let objective = settings.slo.map(|slo| slo.latency_s.0);
                    self.profiler = Some(Profiler::new(batched, settings.batch_rows_max, objective));
                }
                self.scheduler = Scheduler::new(config);
                self.validator = Some(validator);
                self.batching = batching;
                self.apply_batching();
                Ok(())
            }
        }
    }

    pub(super) fn warmed_up(&mut self, replica: ReplicaId, error: Option<Error>) {
        if self.replicas[replica].role != Role::Warming {
            return;
        }
        if let Some(error) = &error
            && !self.samples.is_empty()
        {
            let failed = samples::failed(&self.samples, self.replicas[replica].warmed - 1, error);
            return self.warm_or_ready(replica, Err(failed));
        }
        if let Some(error) = error {
            // The way through the worker is warm; that zeros are no input for this model is not a fault.
            let settings = &self.published.settings;
            let number = self.replicas.number(self.replicas[replica].slot);
            tracing::warn!(
                model = %settings.name, version = settings.version, replica = number, %error,
                "the model refused the warm-up input of zeros; it is served all the same (warmup: false skips it)"
            );
        }
        let begun = self.warm(replica);
        self.warm_or_ready(replica, begun);
    }

    /// A new replica is warm: it serves, or runs suspects where that is more urgent.
    fn ready(&mut self, replica: ReplicaId) {
        let now = self.clock.now();
        let entry = &mut self.replicas[replica];
        entry.ready = now;
        entry.hangs_at = Time::MAX;
        let spare = entry.is_spare();
        let free = !self.replicas.iter().any(ReplicaEntry::is_lent);
        let others_serve = self.serving() >= 1;
        let needed = free && !self.quarantine.is_idle();
        if needed && (spare || others_serve || !self.quarantine.is_bisecting()) {
            self.replicas[replica].role = Role::Quarantine;
        } else if spare && !self.any_stalled() {
            return self.close(replica, now);
        } else {
            self.serve(replica);
        }
        self.changed = true;
        match self.phase {
            Phase::Loading(_) => self.end_loading(),
            Phase::Serving => self.published.set_state(ModelState::Ready),
            _ => {}
        }
    }

    /// The model has loaded once every replica that is wanted serves.
    pub(super) fn end_loading(&mut self) {
        if !matches!(self.phase, Phase::Loading(_)) || self.serving() < self.replicas.count() as usize {
            return;
        }
        self.published.set_state(ModelState::Ready);
        self.publish();
        if let Phase::Loading(loaded) = std::mem::replace(&mut self.phase, Phase::Serving) {
            let _gone = loaded.send(Ok(()));
        }
    }

    /// The scheduler may give this replica batches (again).
    pub(super) fn serve(&mut self, replica: ReplicaId) {
        let entry = &mut self.replicas[replica];
        entry.role = Role::Serving;
        let can = entry.replica.capabilities();
        self.changed = true;
        self.event(Event::ReplicaReady(replica, Room { batches: can.batches_max, appends: can.appends }));
    }

    pub(super) fn start_failed(&mut self, key: SlotKey, error: Error) {
        let settings = &self.published.settings;
        tracing::error!(
            model = %settings.name, version = settings.version, replica = self.replicas.number(key), %error,
            detail = error.detail().unwrap_or_default(), "a worker did not start"
        );
        if matches!(self.phase, Phase::Loading(_)) {
            return self.give_up_loading(error);
        }
        let now = self.clock.now();
        let Some(slot) = self.replicas.slot_mut(key) else { return };
        let wait = slot.backoff.failed();
        let hopeless = slot.backoff.failures() >= FAILURES_MAX;
        slot.wait_until(now + wait);
        self.changed = true;
        if hopeless && self.serving() < 2 && !self.replicas.iter().any(ReplicaEntry::is_lent) {
            self.fail_suspects();
        }
        let live = |entry: &ReplicaEntry<L::Replica>| {
            let state = entry.role.state();
            matches!(state, ReplicaState::Ready | ReplicaState::Stalled | ReplicaState::Quarantine)
        };
        if self.replicas.iter().any(live) {
            return;
        }
        if matches!(self.phase, Phase::Serving) {
            self.published.set_state(ModelState::Unavailable(error.message().to_owned()));
        }
        if hopeless {
            self.fail_pending_requests();
        }
    }

    /// No replica comes that suspects could run on.
    fn fail_suspects(&mut self) {
        for id in self.quarantine.give_up() {
            if let Some(pending) = self.in_flight.remove(id) {
                let message =
                    "the worker that ran the request ended and none could be started again; try later";
                self.fail(pending, Error::new(ErrorKind::WorkerLost, message));
            }
        }
    }

    /// Nothing runs and nothing starts: a request without a timeout would wait for ever.
    fn fail_pending_requests(&mut self) {
        self.fail_suspects();
        for id in self.in_flight.ids() {
            if let Some(pending) = self.in_flight.remove(id) {
                self.event(Event::Cancelled(id));
                let message =
                    format!("model '{}' has no replica that starts; try later", self.published.settings.name);
                self.fail(pending, Error::new(ErrorKind::NotReady, message));
            }
        }
    }

    /// Starts what has waited long enough.
    pub(super) fn tend_slots(&mut self, now: Time) {
        // Looked at in each turn: nothing is allocated while nothing is due.
        while let Some(key) = self.replicas.due(now) {
            match key {
                SlotKey::Regular(_) => self.start(key),
                // The spare is started when it is wanted, not because it was there.
                SlotKey::Spare => {
                    if let Some(slot) = self.replicas.slot_mut(key) {
                        slot.clear();
                    }
                }
            }
        }
    }

    pub(super) fn tend_lifecycle(&mut self, now: Time) {
        self.end_if_drained(now);
        self.profile_if_idle(now);
        self.compare_if_idle(now);
        if self.changed {
            self.publish();
        }
    }

    pub(super) fn lifecycle_due(&self) -> Time {
        let slots = self.replicas.slots().map(|(_, slot)| slot.due()).min().unwrap_or(Time::MAX);
        slots.min(self.measuring_due()).min(self.comparing_due())
    }

    /// Replicas that the scheduler gives batches, or may at any moment.
    pub(super) fn serving(&self) -> usize {
        self.replicas.iter().filter(|entry| matches!(entry.role, Role::Serving | Role::Profiling)).count()
    }

    /// Replicas that are on their way, the spare not counted.
    pub(super) fn coming(&self) -> usize {
        let starting = self.replicas.regular().filter(|(_, slot)| slot.is_coming()).count();
        let warming = self.replicas.iter().filter(|entry| entry.role == Role::Warming && !entry.is_spare());
        starting + warming.count()
    }

    /// Shows handles and observers how the replicas are.
    pub(super) fn publish(&mut self) {
        self.changed = false;
        let (mut statuses, mut counts) = (Vec::new(), ReplicaCounts::default());
        for entry in self.replicas.iter() {
            let (index, pid) = (self.replicas.number(entry.slot), entry.replica.pid());
            statuses.push(ReplicaStatus { index, pid, state: entry.role.state() });
        }
        for (key, slot) in self.replicas.slots() {
            let state = match slot.state {
                SlotState::Starting { .. } => ReplicaState::Starting,
                SlotState::Waiting { .. } => ReplicaState::Backoff,
                SlotState::Empty | SlotState::Filled(_) => continue,
            };
            statuses.push(ReplicaStatus { index: self.replicas.number(key), pid: None, state });
        }
        for status in &statuses {
            match status.state {
                ReplicaState::Starting => counts.starting += 1,
                ReplicaState::Ready => counts.ready += 1,
                ReplicaState::Stalled => counts.stalled += 1,
                ReplicaState::Quarantine => counts.quarantine += 1,
                ReplicaState::Backoff => counts.backoff += 1,
                ReplicaState::Closing => {}
            }
        }
        statuses.sort_by_key(|status| status.index);
        let statuses = Arc::new(statuses);
        let before = self.published.replicas.swap(statuses.clone());
        self.published.events.replicas(&before, &statuses);
        self.published.observer.replicas(counts);
    }
}

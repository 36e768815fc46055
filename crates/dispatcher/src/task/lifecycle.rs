//! Starting, warming up and restarting replicas.
//!
//! Reads ends of starts and the clock, hands ready replicas to the scheduler.

use inferd_scheduler::{Config, Event, Scheduler};
use inferd_types::settings::LoadedModel;
use inferd_types::{Error, ErrorKind, ReplicaId, Result, Time};
use tokio::task::AbortHandle;

use super::ending::Phase;
use super::faults::too_slow;
use super::{Control, Task};
use crate::backoff::Backoff;
use crate::company::{self, Company};
use crate::flight::Door;
use crate::interior;
use crate::observer::ReplicaCounts;
use crate::profiler::Profiler;
use crate::replica::{Purpose, Replica, Role};
use crate::samples;
use crate::shared::{ModelState, ReplicaState, ReplicaStatus};
use crate::worker::{Launcher, Worker};

/// Failed starts in a row, with nothing that serves, after which those who wait are told.
const HOPELESS_AFTER: u32 = 3;

/// One place for a replica, which outlives its workers.
#[derive(Debug, Default)]
pub(super) struct Seat {
    state: SeatState,
    pub(super) backoff: Backoff,
}

#[derive(Debug, Default)]
enum SeatState {
    #[default]
    Empty,
    Starting {
        task: AbortHandle,
        since: Time,
    },
    Taken(ReplicaId),
    Waiting {
        until: Time,
    },
}

impl Seat {
    pub(super) fn holds(&self, id: ReplicaId) -> bool {
        matches!(self.state, SeatState::Taken(taken) if taken == id)
    }

    pub(super) fn wait_until(&mut self, until: Time) {
        self.state = SeatState::Waiting { until };
    }

    pub(super) fn clear(&mut self) {
        if let SeatState::Starting { task, .. } = &self.state {
            task.abort();
        }
        self.state = SeatState::Empty;
    }

    fn due(&self) -> Time {
        if let SeatState::Waiting { until } = self.state { until } else { Time::MAX }
    }
}

impl<L: Launcher> Task<L> {
    pub(super) fn start_all(&mut self) {
        for index in 0..self.seats.len() - 1 {
            self.start(index);
        }
        self.publish();
    }

    /// Does nothing where the spare is there or on its way.
    pub(super) fn start_spare(&mut self) {
        let spare = self.seats.len() - 1;
        if matches!(self.seats[spare].state, SeatState::Empty) {
            self.start(spare);
        }
    }

    fn start(&mut self, index: usize) {
        let (future, limit, tell) =
            (self.launcher.start(index), self.shared.settings.load_max_s.0, self.tell.clone());
        let task = tokio::spawn(async move {
            let result = match tokio::time::timeout(limit, future).await {
                Ok(result) => result,
                Err(_) => Err(too_slow(limit)),
            };
            // Where the task has ended the worker is dropped, and so ended, here.
            let _ended = tell.send(Control::Started { index, result }).await;
        });
        let since = self.clock.now();
        self.seats[index].state = SeatState::Starting { task: task.abort_handle(), since };
        self.changed = true;
    }

    pub(super) fn started(&mut self, index: usize, result: Result<(L::Worker, LoadedModel)>) {
        let SeatState::Starting { since, .. } = self.seats[index].state else { return };
        let admitted = result.and_then(|(worker, loaded)| self.meet(loaded).map(|()| worker));
        let worker = match admitted {
            Ok(worker) => worker,
            Err(error) => return self.start_failed(index, error),
        };
        self.next_replica += 1;
        let id = ReplicaId(self.next_replica);
        let (exited, tell) = (worker.exited(), self.tell.clone());
        tokio::spawn(async move {
            let exit = exited.await;
            let _ended = tell.send(Control::Exited { replica: id, exit }).await;
        });
        let warm_by = since + self.shared.settings.load_max_s.0;
        self.replicas.push(Replica::new(id, index, worker, warm_by));
        self.seats[index].state = SeatState::Taken(id);
        self.changed = true;
        let place = self.replicas.len() - 1;
        if !self.shared.settings.warmup {
            self.ready(place);
        } else {
            let begun = self.warm(place);
            self.warm_or_ready(place, begun);
        }
    }

    /// Begins the next run that warms a replica up. False: there is none left.
    fn warm(&mut self, place: usize) -> Result<bool> {
        let run = self.replicas[place].warmed;
        match samples::at(&self.samples, run) {
            Some(sample) => {
                let (rows, inputs) = (sample.rows, sample.inputs.clone());
                self.stage_inputs(place, Purpose::WarmUp, rows, &inputs)
                    .map_err(|error| samples::failed(&self.samples, run, &error))?;
            }
            None if run == 0 => self.stage_synthetic(place, Purpose::WarmUp, 1)?,
            None => return Ok(false),
        }
        self.replicas[place].warmed += 1;
        Ok(true)
    }

    fn warm_or_ready(&mut self, place: usize, warming: Result<bool>) {
        match warming {
            Ok(true) => {}
            Ok(false) => self.ready(place),
            Err(error) => {
                let index = self.replicas[place].index;
                self.replicas[place].role = Role::Closing(Time::MAX);
                self.replicas[place].worker.kill();
                self.start_failed(index, error);
            }
        }
    }

    /// Learns from the first worker what the model is; later ones must be the same.
    fn meet(&mut self, mut loaded: LoadedModel) -> Result<()> {
        let settings = &self.shared.settings;
        loaded.signature.complete(settings)?;
        interior::complete(&mut loaded, settings)?;
        company::announce(&mut loaded, settings)?;
        match self.shared.signature() {
            Some(known) if **known == loaded.signature => Ok(()),
            Some(_) => Err(Error::new(
                ErrorKind::ModelFailed,
                "the model has other inputs or outputs than when it was first loaded; unload it and load it again",
            )),
            None => {
                let batched = loaded.signature.batched();
                let door = Door::new(&loaded.signature, settings)?;
                self.samples = samples::prepare(settings, &loaded.signature)?;
                let mut config = Config::from_settings(settings, batched);
                if loaded.signature.decoupled {
                    // A copy's responses would be told beside the first's.
                    config.hedging = None;
                }
                let profiled =
                    !loaded.signature.decoupled && settings.profiling && settings.profile.is_empty();
                if let Some(left_out) = loaded.facts.get("left_out") {
                    let (model, version) = (&settings.name, settings.version);
                    tracing::warn!(%model, version, "clients don't see {left_out}");
                }
                let sequences = settings.sequence.is_some() || loaded.sequence.is_some();
                let company = Company::new(&loaded.signature, settings, sequences);
                self.shared.set_loaded(loaded)?;
                if profiled {
                    let objective = settings.slo.map(|slo| slo.latency_s.0);
                    self.profiler = Some(Profiler::new(batched, settings.batch_rows_max, objective));
                }
                self.scheduler = Scheduler::new(config);
                self.door = Some(door);
                self.company = company;
                self.apply_company();
                Ok(())
            }
        }
    }

    pub(super) fn warmed_up(&mut self, place: usize, error: Option<Error>) {
        if self.replicas[place].role != Role::Warming {
            return;
        }
        if let Some(error) = &error
            && !self.samples.is_empty()
        {
            let failed = samples::failed(&self.samples, self.replicas[place].warmed - 1, error);
            return self.warm_or_ready(place, Err(failed));
        }
        if let Some(error) = error {
            // The way through the worker is warm; that zeros are no input for this model is not a fault.
            let settings = &self.shared.settings;
            tracing::warn!(
                model = %settings.name, version = settings.version, replica = self.replicas[place].index, %error,
                "the model refused the warm-up input of zeros; it is served all the same (warmup: false skips it)"
            );
        }
        let begun = self.warm(place);
        self.warm_or_ready(place, begun);
    }

    /// A new replica is warm: it serves, or runs suspects where that is more urgent.
    fn ready(&mut self, place: usize) {
        let now = self.clock.now();
        let spare = self.is_spare(self.replicas[place].index);
        let replica = &mut self.replicas[place];
        replica.ready = now;
        replica.hangs_at = Time::MAX;
        let free = !self.replicas.iter().any(|other| matches!(other.role, Role::Quarantine | Role::Leaving));
        let others_serve = self.serving() >= 1;
        let needed = free && !self.quarantine.is_idle();
        if needed && (spare || others_serve || !self.quarantine.is_bisecting()) {
            self.replicas[place].role = Role::Quarantine;
        } else if spare && !self.any_stalled() {
            return self.close(place, now);
        } else {
            self.serve(place);
        }
        self.changed = true;
        match self.phase {
            Phase::Loading(_) if self.serving() + 1 == self.seats.len() => {
                self.shared.set_state(ModelState::Ready);
                self.publish();
                if let Phase::Loading(loaded) = std::mem::replace(&mut self.phase, Phase::Serving) {
                    let _gone = loaded.send(Ok(()));
                }
            }
            Phase::Serving => self.shared.set_state(ModelState::Ready),
            _ => {}
        }
    }

    /// The scheduler may give this replica batches (again).
    pub(super) fn serve(&mut self, place: usize) {
        self.replicas[place].role = Role::Serving;
        let id = self.replicas[place].id;
        self.changed = true;
        self.event(Event::ReplicaReady(id));
    }

    pub(super) fn start_failed(&mut self, index: usize, error: Error) {
        let settings = &self.shared.settings;
        tracing::error!(
            model = %settings.name, version = settings.version, replica = index, %error,
            detail = error.detail().unwrap_or_default(), "a worker did not start"
        );
        if matches!(self.phase, Phase::Loading(_)) {
            return self.give_up_loading(error);
        }
        let now = self.clock.now();
        let seat = &mut self.seats[index];
        let wait = seat.backoff.failed();
        let hopeless = seat.backoff.failures() >= HOPELESS_AFTER;
        seat.wait_until(now + wait);
        self.changed = true;
        let lent = |replica: &Replica<L::Worker>| matches!(replica.role, Role::Quarantine | Role::Leaving);
        if hopeless && self.serving() < 2 && !self.replicas.iter().any(lent) {
            self.let_suspects_go();
        }
        let live = |replica: &Replica<L::Worker>| {
            let state = replica.role.state();
            matches!(state, ReplicaState::Ready | ReplicaState::Stalled | ReplicaState::Quarantine)
        };
        if self.replicas.iter().any(live) {
            return;
        }
        if matches!(self.phase, Phase::Serving) {
            self.shared.set_state(ModelState::Unavailable(error.message().to_owned()));
        }
        if hopeless {
            self.tell_the_hopeless();
        }
    }

    /// No replica comes that suspects could run on.
    fn let_suspects_go(&mut self) {
        for id in self.quarantine.give_up() {
            if let Some(flight) = self.flights.remove(id) {
                let message =
                    "the worker that ran the request ended and none could be started again; try later";
                self.fail(flight, Error::new(ErrorKind::WorkerLost, message));
            }
        }
    }

    /// Nothing runs and nothing starts: whoever waits without a limit would wait for ever.
    fn tell_the_hopeless(&mut self) {
        self.let_suspects_go();
        for id in self.flights.ids() {
            if let Some(flight) = self.flights.remove(id) {
                self.event(Event::Cancelled(id));
                let message =
                    format!("model '{}' has no replica that starts; try later", self.shared.settings.name);
                self.fail(flight, Error::new(ErrorKind::NotReady, message));
            }
        }
    }

    /// Starts what has waited long enough.
    pub(super) fn tend_seats(&mut self, now: Time) {
        for index in 0..self.seats.len() {
            if self.seats[index].due() > now {
                continue;
            }
            // The spare is started when it is wanted, not because it was there.
            if self.is_spare(index) {
                self.seats[index].clear();
            } else {
                self.start(index);
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
        let seats = self.seats.iter().map(Seat::due).min().unwrap_or(Time::MAX);
        seats.min(self.measuring_due()).min(self.comparing_due())
    }

    pub(super) fn is_spare(&self, index: usize) -> bool {
        index + 1 == self.seats.len()
    }

    /// Replicas that the scheduler gives batches, or may at any moment.
    pub(super) fn serving(&self) -> usize {
        let serves = |replica: &&Replica<L::Worker>| matches!(replica.role, Role::Serving | Role::Profiling);
        self.replicas.iter().filter(serves).count()
    }

    /// Replicas that are on their way, the spare not counted.
    pub(super) fn coming(&self) -> usize {
        let seats = self.seats.iter().take(self.seats.len() - 1);
        let starting = seats
            .filter(|seat| matches!(seat.state, SeatState::Starting { .. } | SeatState::Waiting { .. }))
            .count();
        let warming =
            |replica: &&Replica<L::Worker>| replica.role == Role::Warming && !self.is_spare(replica.index);
        starting + self.replicas.iter().filter(warming).count()
    }

    /// Shows handles and observers how the replicas are.
    pub(super) fn publish(&mut self) {
        self.changed = false;
        let (mut statuses, mut counts) = (Vec::new(), ReplicaCounts::default());
        for replica in &self.replicas {
            let state = replica.role.state();
            statuses.push(ReplicaStatus { index: replica.index, pid: Some(replica.worker.pid()), state });
        }
        for (index, seat) in self.seats.iter().enumerate() {
            match seat.state {
                SeatState::Starting { .. } => {
                    statuses.push(ReplicaStatus { index, pid: None, state: ReplicaState::Starting });
                }
                SeatState::Waiting { .. } => {
                    statuses.push(ReplicaStatus { index, pid: None, state: ReplicaState::Backoff });
                }
                SeatState::Empty | SeatState::Taken(_) => {}
            }
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
        self.shared.events.replicas(&self.shared.replicas.load(), &statuses);
        self.shared.replicas.store(std::sync::Arc::new(statuses));
        self.shared.observer.replicas(counts);
    }
}

//! The task of one model version: the one owner of its scheduler, its workers and its requests in flight.
//!
//! Reads mail from handles, rings from workers and ends of processes; hands answers to callers. It turns what
//! happens into events, carries out the actions that the scheduler gives for them, and sleeps.
//! Knows nothing of how a decision is made (`scheduler`) or how bytes reach a worker (`transport`).

mod batches;
mod company;
mod ending;
mod faults;
mod lifecycle;
mod measuring;
mod results;
mod stalls;
mod streams;
mod suspects;

use std::sync::Arc;
use std::time::Duration;

use inferd_scheduler::{Action, Arrival, Config, Event, Scheduler};
use inferd_transport::Exit;
use inferd_types::settings::LoadedModel;
use inferd_types::{Clock, Error, ErrorKind, ReplicaId, RequestId, Result, Time};
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;

use self::ending::Phase;
use self::lifecycle::Seat;
use crate::alarm::Alarm;
use crate::company::Company;
use crate::effort::Effort;
use crate::explain::Overhead;
use crate::flight::{Door, Flight, Flights};
use crate::inbox::{Command, Mail, Submission};
use crate::moderation::Moderated;
use crate::profiler::Profiler;
use crate::quarantine::Quarantine;
use crate::recent::Recent;
use crate::replica::{Replica, Seen};
use crate::samples::WarmUp;
use crate::shared::Shared;
use crate::worker::{Launcher, Worker};

/// Passes over the mail before a decision falls even though more keeps coming: the reactor was given this many
/// turns, so what is there is worth a batch.
const PASSES_MAX: usize = 8;
/// Decisions in one turn; each follows from what became of the actions of the one before.
const DECISIONS_MAX: usize = 16;
/// What one model's starts and exits may have in the channel: sent by tasks that wait for room.
const CONTROL_MAX: usize = 16;

/// What the tasks that watch over processes report.
#[expect(clippy::large_enum_variant, reason = "one for each start or end of a worker: few, and moved once")]
pub(crate) enum Control<W> {
    /// A start has ended, well or not.
    Started { index: usize, result: Result<(W, LoadedModel)> },
    /// A process has ended and is reaped.
    Exited { replica: ReplicaId, exit: Exit },
}

/// Runs one model until it is stopped.
pub(crate) struct Task<L: Launcher> {
    pub(crate) shared: Arc<Shared>,
    clock: Clock,
    launcher: L,
    scheduler: Scheduler,
    door: Option<Door>,
    /// What warms a replica up, in the order of its settings.
    samples: Vec<WarmUp>,
    flights: Flights,
    replicas: Vec<Replica<L::Worker>>,
    /// One for each replica, and the spare at the end.
    seats: Vec<Seat>,
    quarantine: Quarantine,
    profiler: Option<Profiler>,
    /// Whether requests share runs, and what is compared for that.
    company: Company,
    alarm: Alarm,
    moderated: Moderated,
    effort: Effort,
    tell: mpsc::Sender<Control<L::Worker>>,
    told: mpsc::Receiver<Control<L::Worker>>,
    phase: Phase,
    /// When the scheduler wants to decide again.
    wake: Time,
    /// Something has happened since the last decision.
    undecided: bool,
    /// Replicas have changed since they were last published.
    changed: bool,
    /// When something last happened.
    active: Time,
    /// What a batch takes from its hand-over to its answer beyond the execution, lately.
    overhead: Duration,
    /// How long runs had ended before that was seen: a gateway that shares its cores with the workers waits for its turn,
    /// and as long between the arrival of a request and its admission. No execution has that in it, and every caller does.
    unseen: Recent,
    /// How long replicas paused between two runs although the next was staged: a gateway that shares their cores answers
    /// the one and reads what came meanwhile.
    pauses: Recent,
    next_replica: u32,
    next_batch: u64,
    /// Parts that requests were cut into, their firsts not counted.
    parts: u64,
    mail: Mail,
    actions: Vec<Action>,
    seen: Vec<Seen<<L::Worker as Worker>::Outputs>>,
}

impl<L: Launcher> Task<L> {
    /// A task whose workers are not yet started. `loaded` is told when all of them are warm, or that one is not.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub(crate) fn new(
        shared: Arc<Shared>,
        clock: Clock,
        launcher: L,
        moderated: Moderated,
        effort: Effort,
        loaded: oneshot::Sender<Result<()>>,
    ) -> Result<Task<L>> {
        let alarm = Alarm::new().map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                format!(
                    "no descriptor is left for the model's timer ({error}); raise the limit on open files"
                ),
            )
        })?;
        let (tell, told) = mpsc::channel(CONTROL_MAX);
        let settings = &shared.settings;
        Ok(Task {
            scheduler: Scheduler::new(Config::from_settings(settings, false)),
            seats: (0..=settings.replicas.max(1) as usize).map(|_| Seat::default()).collect(),
            quarantine: Quarantine::new(settings.kills_per_minute_max),
            clock,
            launcher,
            door: None,
            samples: Vec::new(),
            flights: Flights::default(),
            replicas: Vec::new(),
            profiler: None,
            company: Company::unknown(settings),
            alarm,
            moderated,
            effort,
            tell,
            told,
            phase: Phase::Loading(loaded),
            wake: Time::MAX,
            undecided: false,
            changed: false,
            active: clock.now(),
            overhead: Duration::ZERO,
            unseen: Recent::default(),
            pauses: Recent::default(),
            next_replica: 0,
            next_batch: 0,
            parts: 0,
            mail: Mail::default(),
            actions: Vec::new(),
            seen: Vec::new(),
            shared,
        })
    }

    /// Runs until the model is stopped and all its processes are reaped.
    pub(crate) async fn run(mut self) {
        self.start_all();
        loop {
            self.collect().await;
            self.tend();
            self.settle();
            if self.is_over() {
                return;
            }
            self.sleep().await;
        }
    }

    /// Takes in all that has happened. The reactor gets a turn between passes, so that requests that are on their
    /// way into this process share the batch; with nothing under way a pass is all that it costs.
    async fn collect(&mut self) {
        for _ in 0..PASSES_MAX {
            let mailed = self.read_mail();
            let looked = self.look();
            let told = self.read_control();
            self.carry_out();
            if !(mailed || looked || told) {
                return;
            }
            self.active = self.clock.now();
            yield_now().await;
        }
    }

    /// Decides, and carries out what was decided, until nothing follows from it any more.
    fn settle(&mut self) {
        self.carry_out();
        for _ in 0..DECISIONS_MAX {
            let now = self.clock.now();
            if !self.undecided && now < self.wake {
                break;
            }
            self.undecided = false;
            self.wake = Time::MAX;
            self.scheduler.decide(now, &mut self.actions);
            self.carry_out();
        }
        let staged: u64 =
            self.replicas.iter().flat_map(|replica| &replica.batches).map(|b| u64::from(b.rows)).sum();
        let waiting = self.flights.rows().saturating_sub(staged);
        self.shared.observer.queue_rows(usize::try_from(waiting).unwrap_or(usize::MAX));
        let (scheduler, clock) = (&self.scheduler, &self.clock);
        self.shared.publish(|| scheduler.estimate(clock.now()));
    }

    async fn sleep(&mut self) {
        for replica in self.replicas.iter().filter(|replica| !replica.batches.is_empty()) {
            replica.worker.set_waiting(true);
        }
        // What happened before the workers knew that we sleep was not rung for.
        let (looked, now, due) = (self.look(), self.clock.now(), self.due());
        if looked || self.undecided || due <= now {
            yield_now().await;
        } else {
            if due != Time::MAX {
                self.alarm.set(now, due);
            }
            self.moderated.occupied(self.scheduler.occupied(), due);
            let Task { shared, launcher, alarm, told, .. } = self;
            let news = tokio::select! {
                () = shared.inbox.arrived() => None,
                () = launcher.rung() => None,
                () = alarm.rang() => None,
                control = told.recv() => control,
            };
            if let Some(control) = news {
                self.control(control);
            }
        }
        for replica in self.replicas.iter().filter(|replica| !replica.batches.is_empty()) {
            replica.worker.set_waiting(false);
        }
    }

    fn read_mail(&mut self) -> bool {
        let mut mail = std::mem::take(&mut self.mail);
        self.shared.inbox.take(&mut mail);
        let any = !mail.is_empty();
        for submission in mail.submissions.drain(..) {
            self.arrive(submission);
        }
        for id in mail.cancelled.drain(..) {
            self.cancel(id);
        }
        // The look that follows finds what was waiting for room.
        mail.room = false;
        for command in mail.commands.drain(..) {
            self.obey(command);
        }
        self.mail = mail;
        any
    }

    fn arrive(&mut self, submission: Submission) {
        if !matches!(self.phase, Phase::Serving) {
            self.shared.observer.refused("draining");
            let error = crate::shared::draining(&self.shared.settings.name);
            // Who has gone in this moment gets nothing.
            let _gone = submission.reply.send(Err(error));
            return;
        }
        if submission.request.home.is_some_and(|home| self.place(home).is_none()) {
            let _gone = submission.reply.send(Err(self.lost_home()));
            return;
        }
        let Some(door) = &self.door else { return };
        let now = self.clock.now();
        let admitted = door.admit(now, submission);
        match admitted {
            Ok((flight, arrival)) if flight.rows == 0 => match door.nothing() {
                Some(outputs) => self.answer_without_rows(now, flight, outputs),
                None => self.admitted(flight, arrival),
            },
            Ok((flight, arrival)) if flight.rows > door.rows_max() => {
                let parts = self.flights.insert_in_parts(flight, arrival, door.rows_max(), &mut self.parts);
                self.event(Event::ArrivedInParts(parts));
            }
            Ok((flight, arrival)) => self.admitted(flight, arrival),
            Err(refused) => {
                let (flight, error) = *refused;
                self.fail(flight, error);
            }
        }
    }

    fn admitted(&mut self, flight: Flight, arrival: Arrival) {
        self.flights.insert(arrival.request, flight);
        self.event(Event::Arrived(arrival));
    }

    fn cancel(&mut self, id: RequestId) {
        for id in self.flights.cancel(id) {
            self.event(Event::Cancelled(id));
            self.tell_gone(id);
        }
        self.watch_abandoned();
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Explain(reply) => {
                let _gone = reply.send(crate::explain::explain(
                    &self.scheduler,
                    &self.shared.settings,
                    &self.company,
                    &Overhead {
                        batch: self.overhead,
                        unseen: &self.unseen,
                        pauses: &self.pauses,
                        request: self.effort.each(),
                    },
                ));
            }
            Command::Drain(done) => self.begin_drain(done),
            Command::Stop(done) => self.stop(done),
        }
    }

    fn read_control(&mut self) -> bool {
        let mut any = false;
        while let Ok(control) = self.told.try_recv() {
            self.control(control);
            any = true;
        }
        any
    }

    fn control(&mut self, control: Control<L::Worker>) {
        match control {
            Control::Started { index, result } => self.started(index, result),
            Control::Exited { replica, exit } => self.exited(replica, exit),
        }
        self.undecided = true;
    }

    fn event(&mut self, event: Event) {
        self.scheduler.on_event(self.clock.now(), event, &mut self.actions);
        self.undecided = true;
    }

    /// The next moment at which something must be done even if nothing happens.
    fn due(&self) -> Time {
        let replicas = self.replicas.iter().map(Replica::due).min().unwrap_or(Time::MAX);
        self.wake.min(replicas).min(self.suspects_due()).min(self.lifecycle_due())
    }

    fn place(&self, id: ReplicaId) -> Option<usize> {
        self.replicas.iter().position(|replica| replica.id == id)
    }
}

impl<L: Launcher> Drop for Task<L> {
    /// Also on panic: nobody may wait for a task that is gone.
    fn drop(&mut self) {
        let error = match self.phase {
            Phase::Stopping(_) => crate::shared::draining(&self.shared.settings.name),
            _ => Error::new(ErrorKind::Internal, "the model's dispatcher has failed; load the model again"),
        };
        self.shared.set_state(crate::shared::ModelState::Draining);
        for submission in self.shared.inbox.close(error.clone()).submissions {
            let _gone = submission.reply.send(Err(error.clone()));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;

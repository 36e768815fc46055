//! The task of one model version: the one owner of its scheduler, its replicas and its requests in flight.
//!
//! Reads what handles send, what replicas tell and how they end; hands answers to callers. It turns what happens into
//! events, carries out the actions that the scheduler gives for them, and sleeps.
//! Knows nothing of how a decision is made (`scheduler`) or how bytes reach a replica (`replica::kind`).

mod actions;
mod alarm;
mod comparing;
mod draining;
mod errors;
mod faults;
mod lifecycle;
pub(crate) mod moderation;
mod phase;
mod profiling;
mod results;
mod scaling;
mod stalls;
pub(crate) mod start;
mod streams;
mod suspects;

use std::sync::Arc;
use std::time::Duration;

use inferd_scheduler::{Action, Arrival, Config, Event, Scheduler};
use inferd_types::settings::LoadedModel;
use inferd_types::{Clock, Error, ErrorKind, ReplicaId, RequestId, Result, Time};
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;

use crate::batching::cross_request::CrossRequestBatching;
use crate::generation::model::Model;
use crate::generation::published::{Published, draining};
use crate::generation::state::ModelState;
use crate::intake::entry::Intake;
use crate::intake::inbox::{Command, Inbox, Received, Submission};
use crate::observe::cpu_time::CpuTime;
use crate::observe::explain::{Overhead, explain};
use crate::observe::recent::RecentDurations;
use crate::replica::entry::{ReplicaEntry, Seen};
use crate::replica::kind::{Ended, Launcher, Replica};
use crate::replica::map::Replicas;
use crate::replica::quarantine::Quarantine;
use crate::replica::slot::SlotKey;
use crate::requests::in_flight::{InFlightRequest, InFlightRequests};
use crate::requests::validator::RequestValidator;
use crate::task::alarm::Alarm;
use crate::task::moderation::Moderated;
use crate::task::phase::Phase;
use crate::warmup::profiler::Profiler;
use crate::warmup::samples::WarmUp;

/// Passes over the inbox before a decision falls even though more keeps coming: the reactor was given this many
/// turns, so what is there is worth a batch.
const PASSES_MAX: usize = 8;
/// Decisions in one turn; each follows from what became of the actions of the one before.
const DECISIONS_MAX: usize = 16;
/// What one model's starts and exits may have in the channel: sent by tasks that wait for room.
const REPORTS_MAX: usize = 16;

/// What the tasks that watch over replicas report.
#[expect(clippy::large_enum_variant, reason = "one for each start or end of a replica: few, and moved once")]
enum Report<R> {
    /// A start has ended, well or not.
    Started { key: SlotKey, start: u64, result: Result<(R, LoadedModel)> },
    /// A replica has ended, and nothing of it is left.
    Ended { replica: ReplicaId, ended: Ended },
}

/// Runs one model until it is stopped.
pub(crate) struct Task<L: Launcher> {
    published: Arc<Published>,
    intake: Arc<Intake>,
    inbox: Arc<Inbox>,
    clock: Clock,
    launcher: L,
    scheduler: Scheduler,
    validator: Option<RequestValidator>,
    /// What warms a replica up, in the order of its settings.
    samples: Vec<WarmUp>,
    in_flight: InFlightRequests,
    replicas: Replicas<L::Replica>,
    quarantine: Quarantine,
    profiler: Option<Profiler>,
    /// Whether requests share runs, and what is compared for that.
    batching: CrossRequestBatching,
    alarm: Alarm,
    moderated: Moderated,
    cpu_time: CpuTime,
    reporter: mpsc::Sender<Report<L::Replica>>,
    reports: mpsc::Receiver<Report<L::Replica>>,
    phase: Phase,
    /// When the scheduler wants to decide again.
    wake: Time,
    /// Something has happened since the last decision.
    undecided: bool,
    /// Replicas have changed since they were last published.
    changed: bool,
    /// When something last happened.
    active: Time,
    /// Moving average of what a batch takes from its hand-over to its answer beyond the execution.
    overhead: Duration,
    /// How long runs had ended before that was seen: a gateway that shares its cores with the workers waits for its turn,
    /// and as long between the arrival of a request and its admission. No execution has that in it, and every caller does.
    unseen: RecentDurations,
    /// How long replicas paused between two runs although the next was staged: a gateway that shares their cores answers
    /// the one and reads what came meanwhile.
    pauses: RecentDurations,
    starts: u64,
    next_batch: u64,
    /// Parts that requests were cut into, their firsts not counted.
    parts: u64,
    received: Received,
    actions: Vec<Action>,
    seen: Vec<Seen<<L::Replica as Replica>::Outputs>>,
}

impl<L: Launcher> Task<L> {
    /// A task whose replicas are not yet started. `loaded` is answered when all of them are warm, or one has failed.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    fn new(
        model: &Model,
        clock: Clock,
        launcher: L,
        moderated: Moderated,
        cpu_time: CpuTime,
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
        let (reporter, reports) = mpsc::channel(REPORTS_MAX);
        let settings = &model.published.settings;
        Ok(Task {
            scheduler: Scheduler::new(Config::from_settings(settings, settings.replicas, false)),
            replicas: Replicas::new(settings.replicas),
            quarantine: Quarantine::new(settings.kills_per_minute_max),
            batching: CrossRequestBatching::unknown(settings),
            clock,
            launcher,
            validator: None,
            samples: Vec::new(),
            in_flight: InFlightRequests::default(),
            profiler: None,
            alarm,
            moderated,
            cpu_time,
            reporter,
            reports,
            phase: Phase::Loading(loaded),
            wake: Time::MAX,
            undecided: false,
            changed: false,
            active: clock.now(),
            overhead: Duration::ZERO,
            unseen: RecentDurations::default(),
            pauses: RecentDurations::default(),
            starts: 0,
            next_batch: 0,
            parts: 0,
            received: Received::default(),
            actions: Vec::new(),
            seen: Vec::new(),
            published: model.published.clone(),
            inbox: model.intake.inbox().clone(),
            intake: model.intake.clone(),
        })
    }

    /// Runs until the model is stopped and nothing of its replicas is left.
    async fn run(mut self) {
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
            let received = self.drain_inbox();
            let looked = self.look();
            let reported = self.drain_reports();
            self.carry_out();
            if !(received || looked || reported) {
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
            self.replicas.iter().flat_map(|entry| &entry.batches).map(|batch| u64::from(batch.rows)).sum();
        let waiting = self.in_flight.rows().saturating_sub(staged);
        self.published.observer.queue_rows(usize::try_from(waiting).unwrap_or(usize::MAX));
        let (scheduler, clock) = (&self.scheduler, &self.clock);
        self.published.publish_estimate(|| scheduler.estimate(clock.now()));
    }

    async fn sleep(&mut self) {
        for entry in self.replicas.iter().filter(|entry| !entry.batches.is_empty()) {
            entry.replica.set_waiting(true);
        }
        // What happened before the replicas knew that the task sleeps does not wake it.
        let (looked, now, due) = (self.look(), self.clock.now(), self.due());
        if looked || self.undecided || due <= now {
            yield_now().await;
        } else {
            if due != Time::MAX {
                self.alarm.set(now, due);
            }
            self.moderated.occupied(self.scheduler.occupied(), due);
            let Task { inbox, launcher, alarm, reports, .. } = self;
            let report = tokio::select! {
                () = inbox.arrived() => None,
                () = launcher.notified() => None,
                () = alarm.rang() => None,
                report = reports.recv() => report,
            };
            if let Some(report) = report {
                self.take_in(report);
            }
        }
        for entry in self.replicas.iter().filter(|entry| !entry.batches.is_empty()) {
            entry.replica.set_waiting(false);
        }
    }

    fn drain_inbox(&mut self) -> bool {
        let mut received = std::mem::take(&mut self.received);
        self.inbox.take(&mut received);
        let any = !received.is_empty();
        for submission in received.submissions.drain(..) {
            self.arrive(submission);
        }
        for id in received.cancelled.drain(..) {
            self.cancel(id);
        }
        // The look that follows finds what was waiting for room.
        received.room = false;
        for command in received.commands.drain(..) {
            self.execute(command);
        }
        self.received = received;
        any
    }

    fn arrive(&mut self, submission: Submission) {
        if !matches!(self.phase, Phase::Serving) {
            self.published.observer.refused("draining");
            let error = draining(&self.published.settings.name);
            // A caller that has gone in this moment gets nothing.
            let _gone = submission.reply.send(Err(error));
            return;
        }
        if submission.request.home.is_some_and(|home| !self.replicas.contains(home)) {
            let _gone = submission.reply.send(Err(self.lost_home()));
            return;
        }
        let Some(validator) = &self.validator else { return };
        let now = self.clock.now();
        let admitted = validator.admit(now, submission);
        match admitted {
            Ok((pending, arrival)) if pending.rows == 0 => match validator.nothing() {
                Some(outputs) => self.answer_without_rows(now, pending, outputs),
                None => self.admitted(pending, arrival),
            },
            Ok((pending, arrival)) if pending.rows > validator.rows_max() => {
                let parts =
                    self.in_flight.insert_in_parts(pending, arrival, validator.rows_max(), &mut self.parts);
                self.event(Event::ArrivedInParts(parts));
            }
            Ok((pending, arrival)) => self.admitted(pending, arrival),
            Err(refused) => {
                let (pending, error) = *refused;
                self.fail(pending, error);
            }
        }
    }

    fn admitted(&mut self, pending: InFlightRequest, arrival: Arrival) {
        self.in_flight.insert(arrival.request, pending);
        self.event(Event::Arrived(arrival));
    }

    fn cancel(&mut self, id: RequestId) {
        for id in self.in_flight.cancel(id) {
            self.event(Event::Cancelled(id));
            self.mark_cancelled(id);
        }
        self.watch_abandoned();
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Explain(reply) => {
                let _gone = reply.send(explain(
                    &self.scheduler,
                    &self.published.settings,
                    &self.batching,
                    &Overhead {
                        batch: self.overhead,
                        unseen: &self.unseen,
                        pauses: &self.pauses,
                        request: self.cpu_time.each(),
                    },
                ));
            }
            Command::Scale(replicas, reply) => {
                let _gone = reply.send(self.scale(replicas));
            }
            Command::Drain(done) => self.begin_drain(done),
            Command::Stop(done) => self.stop(done),
        }
    }

    fn drain_reports(&mut self) -> bool {
        let mut any = false;
        while let Ok(report) = self.reports.try_recv() {
            self.take_in(report);
            any = true;
        }
        any
    }

    fn take_in(&mut self, report: Report<L::Replica>) {
        match report {
            Report::Started { key, start, result } => self.started(key, start, result),
            Report::Ended { replica, ended } => self.ended(replica, &ended),
        }
        self.undecided = true;
    }

    fn event(&mut self, event: Event) {
        self.scheduler.on_event(self.clock.now(), event, &mut self.actions);
        self.undecided = true;
    }

    /// The next moment at which something must be done even if nothing happens.
    fn due(&self) -> Time {
        let replicas = self.replicas.iter().map(ReplicaEntry::due).min().unwrap_or(Time::MAX);
        self.wake.min(replicas).min(self.suspects_due()).min(self.lifecycle_due())
    }
}

impl<L: Launcher> Drop for Task<L> {
    /// Also on panic: nobody may wait for a task that is gone.
    fn drop(&mut self) {
        let error = match self.phase {
            Phase::Stopping(_) => draining(&self.published.settings.name),
            _ => Error::new(ErrorKind::Internal, "the model's dispatcher has failed; load the model again"),
        };
        self.published.set_state(ModelState::Draining);
        for submission in self.inbox.close(error.clone()).submissions {
            let _gone = submission.reply.send(Err(error.clone()));
        }
    }
}

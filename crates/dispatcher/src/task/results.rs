//! Gives each caller what its batch brought.
//!
//! Reads finished batches from the workers, hands rows to callers and times to the scheduler and the counters.

use std::time::Duration;

use inferd_scheduler::Event;
use inferd_transport::WorkerFailure;
use inferd_types::{Error, ErrorKind, InferResponse, ReplicaId, Tensor, Time, Timing};
use smallvec::SmallVec;

use super::Task;
use crate::flight::Flight;
use crate::replica::{Batch, Hang, Purpose, Seen};
use crate::worker::{Done, Launcher, Shares, Split, Worker};

impl<L: Launcher> Task<L> {
    /// Looks at every slot in use and deals with what is new there. False: nothing is.
    pub(super) fn look(&mut self) -> bool {
        let mut any = false;
        for place in 0..self.replicas.len() {
            any |= self.look_at(place);
        }
        any
    }

    pub(super) fn look_at(&mut self, place: usize) -> bool {
        if self.replicas[place].batches.is_empty() {
            return false;
        }
        let mut seen = std::mem::take(&mut self.seen);
        self.replicas[place].look(&mut seen);
        let any = !seen.is_empty();
        for news in seen.drain(..) {
            let replica = self.replicas[place].id;
            match news {
                Seen::Taken(batch) => self.event(Event::Taken { replica, batch }),
                Seen::Done(batch, done) => self.done(place, batch, done),
            }
        }
        self.seen = seen;
        self.pass_on(place) || any
    }

    fn done(&mut self, place: usize, mut batch: Batch, done: Done<<L::Worker as Worker>::Outputs>) {
        let now = self.clock.now();
        let hang = self.replicas[place].hang.take_if(|hang| matches!(hang, Hang::Asked(_)));
        self.watch_run(place, now);
        let execution = done.execution;
        let ended = now - done.unseen;
        let before = self.replicas[place].ended.replace(ended);
        if done.outcome.is_ok() && batch.purpose == Purpose::Ordinary {
            self.unseen.record(done.unseen);
            if let Some(before) = before.filter(|_| !batch.at_once) {
                self.pauses.record((ended - execution).since(before));
            }
        }
        let replica = self.replicas[place].id;
        let (result, stopped) = match done.outcome {
            Ok(outputs) if batch.purpose == Purpose::Comparison => (self.split_copies(&outputs), false),
            Ok(outputs) => (self.split(&batch, &outputs), false),
            Err(failure) => (Err(self.model_error(place, failure)), hang.is_some()),
        };
        if let Some(other) = self.part(&mut batch) {
            // Whoever is first to have an answer has the callers; who has none leaves them to the other.
            let without = if result.is_ok() { other } else { &mut batch };
            without.members.clear();
            self.watch_abandoned();
        }
        match batch.purpose {
            Purpose::WarmUp => self.warmed_up(place, result.err()),
            Purpose::Profile => self.profiled(place, batch.rows, execution, result.is_ok()),
            Purpose::Comparison => self.compared(place, execution, result),
            Purpose::Ordinary if stopped => {
                self.event(Event::Finished { replica, batch: batch.id, execution, ok: false });
                self.suspect_hung(batch);
            }
            Purpose::Suspects if stopped => {
                self.end_stream(&batch);
                self.suspects_hung();
            }
            Purpose::Ordinary => self.ordinary_done(place, now, batch, execution, result),
            Purpose::Suspects => self.suspects_done(place, now, batch, execution, result),
        }
    }

    /// Each member's own rows, at its own length. Nobody's outputs need no splitting.
    fn split(&self, batch: &Batch, outputs: &<L::Worker as Worker>::Outputs) -> Result<Shares, Error> {
        if batch.members.is_empty() {
            return Ok(Shares::new());
        }
        let rows: Vec<u32> = batch.members.iter().map(|(_, rows)| *rows).collect();
        let mut shares = outputs.split(&rows)?;
        if shares.len() != rows.len() {
            return Err(Error::new(ErrorKind::Internal, "the outputs of a batch do not match its requests"));
        }
        if let Some(padding) = self.door.as_ref().and_then(|door| door.padding.as_ref()) {
            for ((id, _), share) in batch.members.iter().zip(&mut shares) {
                // Who has left has nothing to be cut back to.
                let Some(flight) = self.flights.get(*id) else { continue };
                padding.cut(share, batch.length, flight.length)?;
            }
        }
        Ok(shares)
    }

    fn model_error(&self, place: usize, failure: WorkerFailure) -> Error {
        let settings = &self.shared.settings;
        // Whoever is told the error logs it, with the request that it is about; those who run again are told nothing.
        tracing::debug!(
            model = %settings.name,
            version = settings.version,
            replica = self.replicas[place].index,
            kind = failure.kind.label(),
            message = %failure.message,
            detail = %failure.detail,
            "a batch failed"
        );
        Error::new(failure.kind, failure.message).with_detail(failure.detail)
    }

    fn ordinary_done(
        &mut self,
        place: usize,
        now: Time,
        batch: Batch,
        execution: Duration,
        result: Result<Shares, Error>,
    ) {
        let replica = self.replicas[place].id;
        match result {
            Ok(shares) => {
                self.replicas[place].served = true;
                let index = self.replicas[place].index;
                self.seats[index].backoff.succeeded();
                self.event(Event::Finished { replica, batch: batch.id, execution, ok: true });
                if batch.at_once {
                    let around = now.since(batch.staged).saturating_sub(execution);
                    self.overhead = (self.overhead * 15 + around) / 16;
                }
                self.share_out(replica, now, batch, execution, shares);
            }
            // One of several may be at fault: each runs once more alone, so that its neighbours don't pay for it.
            Err(_) if batch.members.len() > 1 && self.shared.settings.retry_on_worker_loss => {
                let requests = self.flights.waiting(batch.members.iter().map(|(id, _)| *id));
                self.event(Event::Withdrawn { replica, batch: batch.id, requests });
            }
            Err(error) => {
                self.event(Event::Finished { replica, batch: batch.id, execution, ok: false });
                self.fail_all(batch, &error);
            }
        }
    }

    pub(super) fn fail_all(&mut self, batch: Batch, error: &Error) {
        for (id, _) in batch.members {
            if let Some(flight) = self.flights.remove(id) {
                self.fail(flight, error.clone());
            }
        }
    }

    /// Answers every member that still listens with its share.
    pub(super) fn share_out(
        &mut self,
        replica: ReplicaId,
        now: Time,
        batch: Batch,
        execution: Duration,
        shares: Shares,
    ) {
        let started = (now - execution).max(batch.staged);
        let timing =
            Timing { staged: batch.staged, started, finished: now, execution, batch_rows: batch.rows };
        let objective = self.shared.settings.slo.map(|slo| slo.latency_s.0);
        let observer = self.shared.observer.clone();
        observer.executed(execution, batch.rows);
        let mut keeping = self.keeping(&batch, execution);
        let mut statistics = self.shared.statistics();
        statistics.executed(&timing);
        let mut late = Vec::new();
        self.effort.answered(u32::try_from(batch.members.len()).unwrap_or(u32::MAX));
        for ((id, _), outputs) in batch.members.into_iter().zip(shares) {
            let Some(flight) = self.flights.remove(id) else { continue };
            self.keep(&mut keeping, &flight, &outputs);
            if flight.timeout.is_some_and(|timeout| timeout <= now) {
                late.push(flight);
                continue;
            }
            observer.queue_wait(started.since(flight.admitted));
            let response = InferResponse { outputs, timing, replica, steps: Vec::new() };
            let Some(answered) = self.flights.finish(flight, response) else { continue };
            if objective.is_some_and(|objective| now.since(answered.admitted) > objective) {
                observer.objective_missed();
            }
            match &answered.answer {
                Ok(whole) => statistics.answered(answered.arrived, answered.rows, &whole.timing),
                Err(_) => statistics.failed(now.since(answered.arrived)),
            }
            answered.send();
        }
        drop(statistics);
        self.kept(now, keeping, execution);
        for flight in late {
            self.fail(flight, timed_out());
        }
    }

    /// Answers who asked for no rows: the model is not needed for that.
    pub(super) fn answer_without_rows(&mut self, now: Time, flight: Flight, outputs: SmallVec<[Tensor; 2]>) {
        let timing = Timing { staged: now, started: now, finished: now, ..Timing::default() };
        let response = InferResponse { outputs, timing, replica: ReplicaId(0), steps: Vec::new() };
        if let Some(answered) = self.flights.finish(flight, response) {
            self.shared.statistics().answered(answered.arrived, 0, &timing);
            answered.send();
        }
    }

    /// Answers one caller with an error; for a part of a request, the caller of the whole, whose other parts go.
    pub(super) fn fail(&mut self, flight: Flight, error: Error) {
        let (answered, parts) = self.flights.fail(flight, error);
        self.effort.answered(1);
        if let Some(answered) = answered {
            self.shared.statistics().failed(self.clock.now().since(answered.arrived));
            answered.send();
        }
        for part in parts {
            if self.flights.remove(part).is_some() {
                self.event(Event::Cancelled(part));
            }
        }
    }
}

pub(super) fn timed_out() -> Error {
    Error::new(ErrorKind::DeadlineMissed, "the timeout passed before the answer was there; allow more time")
}

//! Gives each caller what its batch brought.
//!
//! Reads finished batches from the replicas, hands rows to callers and times to the scheduler and the counters. Knows nothing of how outputs are cut into rows.

use std::time::Duration;

use inferd_scheduler::Event;
use inferd_transport::WorkerFailure;
use inferd_types::{Error, ErrorKind, InferResponse, ReplicaId, Tensor, Time, Timing};
use smallvec::SmallVec;

use crate::replica::entry::{Hang, HeldBatch, Purpose, Seen};
use crate::replica::kind::{BatchOutputs, Done, Launcher, Replica, Shares};
use crate::requests::in_flight::InFlightRequest;
use crate::task::Task;
use crate::task::errors::timed_out;

impl<L: Launcher> Task<L> {
    /// Looks at every batch that replicas hold and deals with what is new there. False: nothing is.
    pub(super) fn look(&mut self) -> bool {
        let (mut any, mut last) = (false, None);
        while let Some(replica) = self.replicas.after(last) {
            any |= self.look_at(replica);
            last = Some(replica);
        }
        any
    }

    pub(super) fn look_at(&mut self, replica: ReplicaId) -> bool {
        let entry = &mut self.replicas[replica];
        if entry.batches.is_empty() {
            return false;
        }
        let mut seen = std::mem::take(&mut self.seen);
        entry.look(&mut seen);
        let any = !seen.is_empty();
        for one in seen.drain(..) {
            match one {
                Seen::Taken(batch) => self.event(Event::Taken { replica, batch }),
                Seen::Done(batch, done) => self.done(replica, batch, done),
            }
        }
        self.seen = seen;
        self.pass_on(replica) || any
    }

    fn done(
        &mut self,
        replica: ReplicaId,
        mut batch: HeldBatch,
        done: Done<<L::Replica as Replica>::Outputs>,
    ) {
        let now = self.clock.now();
        let execution = done.execution;
        let ended = now - done.unseen;
        let entry = &mut self.replicas[replica];
        let hang = entry.hang.take_if(|hang| matches!(hang, Hang::Asked(_)));
        let before = entry.ended.replace(ended);
        self.watch_run(replica, now);
        if done.outcome.is_ok() && batch.purpose == Purpose::Ordinary {
            self.unseen.record(done.unseen);
            if let Some(before) = before.filter(|_| !batch.at_once) {
                self.pauses.record((ended - execution).since(before));
            }
        }
        let (result, stopped) = match done.outcome {
            Ok(outputs) if batch.purpose == Purpose::Comparison => (self.split_copies(&outputs), false),
            Ok(outputs) => (self.split(&batch, &outputs), false),
            Err(failure) => (Err(self.model_error(replica, failure)), hang.is_some()),
        };
        if let Some(other) = self.part(&mut batch) {
            // The copy that is first to have an answer has the callers; one that has none leaves them to the other.
            let without = if result.is_ok() { other } else { &mut batch };
            without.members.clear();
            self.watch_abandoned();
        }
        match batch.purpose {
            Purpose::WarmUp => self.warmed_up(replica, result.err()),
            Purpose::Profile => self.profiled(replica, batch.rows, execution, result.is_ok()),
            Purpose::Comparison => self.compared(replica, execution, result),
            Purpose::Ordinary if stopped => {
                self.event(Event::Finished { replica, batch: batch.id, execution, ok: false });
                self.suspect_hung(batch);
            }
            Purpose::Suspects if stopped => {
                self.end_stream(&batch);
                self.suspects_hung();
            }
            Purpose::Ordinary => self.ordinary_done(replica, now, batch, execution, result),
            Purpose::Suspects => self.suspects_done(replica, now, batch, execution, result),
        }
    }

    /// Each member's own rows, at its own length. Nobody's outputs need no splitting.
    fn split(&self, batch: &HeldBatch, outputs: &<L::Replica as Replica>::Outputs) -> Result<Shares, Error> {
        if batch.members.is_empty() {
            return Ok(Shares::new());
        }
        let rows: Vec<u32> = batch.members.iter().map(|(_, rows)| *rows).collect();
        let mut shares = outputs.split(&rows)?;
        if shares.len() != rows.len() {
            return Err(Error::new(ErrorKind::Internal, "the outputs of a batch do not match its requests"));
        }
        if let Some(padding) = self.validator.as_ref().and_then(|validator| validator.padding.as_ref()) {
            for ((id, _), share) in batch.members.iter().zip(&mut shares) {
                // One whose caller has gone has nothing to be cut back to.
                let Some(pending) = self.in_flight.get(*id) else { continue };
                padding.cut(share, batch.length, pending.length)?;
            }
        }
        Ok(shares)
    }

    fn model_error(&self, replica: ReplicaId, failure: WorkerFailure) -> Error {
        let settings = &self.published.settings;
        // The gateway logs the error with the request that gets it; requests that run again get none.
        tracing::debug!(
            model = %settings.name,
            version = settings.version,
            replica = self.replicas.number(self.replicas[replica].slot),
            kind = failure.kind.label(),
            message = %failure.message,
            detail = %failure.detail,
            "a batch failed"
        );
        Error::new(failure.kind, failure.message).with_detail(failure.detail)
    }

    fn ordinary_done(
        &mut self,
        replica: ReplicaId,
        now: Time,
        batch: HeldBatch,
        execution: Duration,
        result: Result<Shares, Error>,
    ) {
        match result {
            Ok(shares) => {
                let entry = &mut self.replicas[replica];
                entry.served = true;
                let key = entry.slot;
                if let Some(slot) = self.replicas.slot_mut(key) {
                    slot.backoff.succeeded();
                }
                self.event(Event::Finished { replica, batch: batch.id, execution, ok: true });
                if batch.at_once {
                    let around = now.since(batch.staged).saturating_sub(execution);
                    self.overhead = (self.overhead * 15 + around) / 16;
                }
                self.share_out(replica, now, batch, execution, shares);
            }
            // One of several may be at fault: each runs once more alone, so that the others don't pay for it.
            Err(_) if batch.members.len() > 1 && self.published.settings.retry_on_worker_loss => {
                let requests = self.in_flight.waiting(batch.members.iter().map(|(id, _)| *id));
                self.event(Event::Withdrawn { replica, batch: batch.id, requests });
            }
            Err(error) => {
                self.event(Event::Finished { replica, batch: batch.id, execution, ok: false });
                self.fail_all(batch, &error);
            }
        }
    }

    pub(super) fn fail_all(&mut self, batch: HeldBatch, error: &Error) {
        for (id, _) in batch.members {
            if let Some(pending) = self.in_flight.remove(id) {
                self.fail(pending, error.clone());
            }
        }
    }

    /// Answers every member that still listens with its share.
    pub(super) fn share_out(
        &mut self,
        replica: ReplicaId,
        now: Time,
        batch: HeldBatch,
        execution: Duration,
        shares: Shares,
    ) {
        let started = (now - execution).max(batch.staged);
        let timing =
            Timing { staged: batch.staged, started, finished: now, execution, batch_rows: batch.rows };
        let objective = self.published.settings.slo.map(|slo| slo.latency_s.0);
        let observer = self.published.observer.clone();
        observer.executed(execution, batch.rows);
        let mut keeping = self.keeping(&batch, execution);
        let mut statistics = self.published.statistics();
        statistics.executed(&timing);
        let mut late = Vec::new();
        self.cpu_time.answered(u32::try_from(batch.members.len()).unwrap_or(u32::MAX));
        for ((id, _), outputs) in batch.members.into_iter().zip(shares) {
            let Some(pending) = self.in_flight.remove(id) else { continue };
            self.keep(&mut keeping, &pending, &outputs);
            if pending.timeout.is_some_and(|timeout| timeout <= now) {
                late.push(pending);
                continue;
            }
            observer.queue_wait(started.since(pending.admitted));
            let response = InferResponse { outputs, timing, replica, steps: Vec::new() };
            let Some(answered) = self.in_flight.finish(pending, response) else { continue };
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
        for pending in late {
            self.fail(pending, timed_out());
        }
    }

    /// Answers a request for no rows: the model is not needed for that.
    pub(super) fn answer_without_rows(
        &mut self,
        now: Time,
        pending: InFlightRequest,
        outputs: SmallVec<[Tensor; 2]>,
    ) {
        let timing = Timing { staged: now, started: now, finished: now, ..Timing::default() };
        let response = InferResponse { outputs, timing, replica: ReplicaId(0), steps: Vec::new() };
        if let Some(answered) = self.in_flight.finish(pending, response) {
            self.published.statistics().answered(answered.arrived, 0, &timing);
            answered.send();
        }
    }

    /// Answers one caller with an error; for a part of a request, the caller of the whole, whose other parts go.
    pub(super) fn fail(&mut self, pending: InFlightRequest, error: Error) {
        let (answered, parts) = self.in_flight.fail(pending, error);
        self.cpu_time.answered(1);
        if let Some(answered) = answered {
            self.published.statistics().failed(self.clock.now().since(answered.arrived));
            answered.send();
        }
        for part in parts {
            if self.in_flight.remove(part).is_some() {
                self.event(Event::Cancelled(part));
            }
        }
    }
}

//! Carries out the scheduler's actions on the replicas.
//!
//! Reads actions, hands batches to replicas, and reports what did not come to pass. Knows nothing of why an action was chosen.

use inferd_scheduler::{Action, Event};
use inferd_transport::{AppendOutcome, StageError};
use inferd_types::{BatchId, Error, ReplicaId, RequestId, Tensor, Time};
use smallvec::SmallVec;

use crate::replica::entry::{HeldBatch, Purpose};
use crate::replica::kind::{Launcher, Place, Replica};
use crate::task::Task;
use crate::task::errors::not_staged;
use crate::task::stalls::ABANDONED_GRACE;

/// What a replica takes: each request as its inputs.
type Inputs<'a> = SmallVec<[&'a [Tensor]; 32]>;

impl<L: Launcher> Task<L> {
    /// Carries out all actions, also those that follow from failures of others.
    pub(super) fn carry_out(&mut self) {
        while !self.actions.is_empty() {
            let mut actions = std::mem::take(&mut self.actions);
            for action in actions.drain(..) {
                self.act(action);
            }
            if self.actions.is_empty() {
                // Its memory is used again.
                self.actions = actions;
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Stage { replica, batch, requests, .. } => self.stage_ordinary(replica, batch, requests),
            Action::Append { replica, batch, requests } => self.append(replica, batch, requests),
            Action::Withdraw { replica, batch } => self.withdraw(replica, batch),
            Action::Answer { request, reason, error } => {
                self.published.observer.refused(reason.label());
                if let Some(pending) = self.in_flight.remove(request) {
                    self.fail(pending, error);
                }
            }
            Action::Hedge { replica, batch, of, requests } => self.hedge(replica, batch, of, requests),
            Action::WakeAt(time) => self.wake = time,
        }
    }

    fn stage_ordinary(&mut self, replica: ReplicaId, batch: BatchId, requests: Vec<RequestId>) {
        let live = self.in_flight.waiting(requests);
        let error = if live.is_empty() || !self.replicas.contains(replica) {
            None
        } else {
            match self.stage(replica, batch, Purpose::Ordinary, &live) {
                Ok(()) => return,
                Err(error) => Some(error),
            }
        };
        let requests = match (&live[..], error) {
            // Alone it will not fit the next time either.
            ([only], Some(error)) => {
                self.event(Event::Removed(*only));
                if let Some(pending) = self.in_flight.remove(*only) {
                    self.fail(pending, error);
                }
                Vec::new()
            }
            _ => live,
        };
        self.event(Event::Withdrawn { replica, batch, requests });
    }

    /// Hands `requests` to a replica as one batch. An error says why that can never be; a replica that is gone is none,
    /// since its end follows and gives the batch back.
    pub(super) fn stage(
        &mut self,
        replica: ReplicaId,
        id: BatchId,
        purpose: Purpose,
        requests: &[RequestId],
    ) -> Result<(), Error> {
        let length = self.longest(requests);
        let padded = self.pad(requests, length);
        let mut members = Vec::with_capacity(requests.len());
        let mut inputs = Inputs::new();
        let mut timeout: Option<Time> = None;
        for (at, id) in requests.iter().enumerate() {
            let Some(pending) = self.in_flight.get(*id) else { continue };
            members.push((*id, pending.rows));
            inputs.push(padded.get(at).map_or(&pending.inputs[..], |padded| &padded[..]));
            timeout = [timeout, pending.timeout].into_iter().flatten().min();
        }
        let in_flight = &self.in_flight;
        let due = members.iter().map(|(id, _)| in_flight.get(*id)?.timeout);
        let staged = self.replicas[replica].replica.stage(id, &inputs, due);
        drop(inputs);
        let place = self.placed(staged)?;
        let rows = members.iter().fold(0u32, |rows, (_, more)| rows.saturating_add(*more));
        let batch = HeldBatch { length, timeout, members, ..HeldBatch::new(id, place, purpose, rows) };
        self.hold(replica, batch);
        Ok(())
    }

    fn placed(&self, staged: Result<Place, StageError>) -> Result<Option<Place>, Error> {
        match staged {
            Ok(place) => Ok(Some(place)),
            Err(StageError::Lost) => Ok(None),
            Err(error) => Err(not_staged(&self.published.settings.name, error)),
        }
    }

    /// Runs a copy of `of`; where that can't be, it is as if it had been taken back.
    fn hedge(
        &mut self,
        replica: ReplicaId,
        batch: BatchId,
        of: (ReplicaId, BatchId),
        requests: Vec<RequestId>,
    ) {
        let live = self.in_flight.waiting(requests);
        let possible = !live.is_empty() && self.replicas.contains(replica) && self.batch_of(of).is_some();
        if !possible || self.stage(replica, batch, Purpose::Ordinary, &live).is_err() {
            self.event(Event::Withdrawn { replica, batch, requests: Vec::new() });
            return;
        }
        for (one, other) in [(of, (replica, batch)), ((replica, batch), of)] {
            if let Some(held) = self.batch_of(one) {
                held.twin = Some(other);
            }
        }
    }

    fn batch_of(&mut self, (replica, batch): (ReplicaId, BatchId)) -> Option<&mut HeldBatch> {
        self.replicas.get_mut(replica)?.batch_mut(batch)
    }

    /// The other of a pair, where it is still held; they are no pair from now on.
    pub(super) fn part(&mut self, batch: &mut HeldBatch) -> Option<&mut HeldBatch> {
        let other = self.batch_of(batch.twin.take()?)?;
        other.twin = None;
        Some(other)
    }

    /// How long the longest padded inputs of `requests` are.
    fn longest(&self, requests: &[RequestId]) -> u64 {
        let lengths = requests.iter().filter_map(|id| Some(self.in_flight.get(*id)?.length));
        lengths.max().unwrap_or(0)
    }

    /// The inputs of each of `requests` at `length`; nothing where the model pads none.
    fn pad(&self, requests: &[RequestId], length: u64) -> Vec<SmallVec<[Tensor; 2]>> {
        let Some(padding) = self.validator.as_ref().and_then(|validator| validator.padding.as_ref()) else {
            return Vec::new();
        };
        let inputs = |id| self.in_flight.get(id).map_or(&[][..], |pending| &pending.inputs);
        requests.iter().map(|id| padding.pad(inputs(*id), length)).collect()
    }

    /// Hands over a batch that nobody sent.
    pub(super) fn stage_synthetic(
        &mut self,
        replica: ReplicaId,
        purpose: Purpose,
        rows: u32,
    ) -> Result<(), Error> {
        let Some(signature) = self.published.signature().cloned() else { return Ok(()) };
        let inputs = crate::warmup::synthetic::request(&signature, rows)?;
        self.stage_inputs(replica, purpose, rows, &[&inputs])
    }

    /// Hands over the inputs of requests whose answers are for nobody.
    pub(super) fn stage_inputs(
        &mut self,
        replica: ReplicaId,
        purpose: Purpose,
        rows: u32,
        requests: &[&[Tensor]],
    ) -> Result<(), Error> {
        let id = self.own_batch();
        let due = requests.iter().map(|_| None);
        let staged = self.replicas[replica].replica.stage(id, requests, due);
        let place = self.placed(staged)?;
        self.hold(replica, HeldBatch::new(id, place, purpose, rows));
        Ok(())
    }

    fn hold(&mut self, replica: ReplicaId, mut batch: HeldBatch) {
        let now = self.clock.now();
        batch.staged = now;
        let entry = &mut self.replicas[replica];
        batch.at_once = entry.batches.is_empty();
        entry.batches.push(batch);
        if entry.batches.len() == 1 {
            self.watch_run(replica, now);
        }
    }

    /// The first batch of a replica runs from `since`: it is ended past the limit that was stated, and nothing joins it
    /// past what is usual for its size.
    pub(super) fn watch_run(&mut self, replica: ReplicaId, since: Time) {
        let entry = &mut self.replicas[replica];
        (entry.hangs_at, entry.stalls_at) = match entry.batches.first() {
            // Bounded by `load_max` from its start on.
            Some(first) if first.purpose == Purpose::WarmUp => return,
            // Nobody waits for it.
            Some(first) if first.purpose == Purpose::Comparison => {
                let limit = self.scheduler.stall_limit(first.rows.max(1)).unwrap_or(ABANDONED_GRACE);
                let stated =
                    self.published.settings.execution_max_s.map_or(limit, |stated| stated.0.min(limit));
                (since + stated, Time::MAX)
            }
            Some(first) => {
                let stated = self.published.settings.execution_max_s.map(|limit| since + limit.0);
                // How long earlier streams took says nothing of the time to the next response.
                let usual = self.scheduler.stall_limit(first.rows.max(1));
                let usual = usual.filter(|_| !self.published.is_decoupled()).map(|limit| since + limit);
                (stated.unwrap_or(Time::MAX), usual.unwrap_or(Time::MAX))
            }
            None => (Time::MAX, Time::MAX),
        };
    }

    /// An id for a batch that is not the scheduler's: the upper half of the numbers is ours.
    pub(super) fn own_batch(&mut self) -> BatchId {
        self.next_batch += 1;
        BatchId(u64::MAX - self.next_batch)
    }

    fn append(&mut self, replica: ReplicaId, batch: BatchId, requests: Vec<RequestId>) {
        let live = self.in_flight.waiting(requests);
        match self.try_append(replica, batch, &live) {
            Some((AppendOutcome::Appended, _)) => {}
            outcome => {
                if matches!(outcome, Some((_, true))) {
                    self.event(Event::Taken { replica, batch });
                }
                self.event(Event::Returned { requests: live });
            }
        }
    }

    /// What became of it, and whether that shows for the first time that the batch was taken. `None`: it can't be tried.
    fn try_append(
        &mut self,
        replica: ReplicaId,
        batch: BatchId,
        live: &[RequestId],
    ) -> Option<(AppendOutcome, bool)> {
        let length = self.replicas.get_mut(replica)?.batch_mut(batch)?.length;
        // What is longer than the batch was opened for has no room in it.
        let padded = if self.longest(live) > length { return None } else { self.pad(live, length) };
        let entry = self.replicas.get_mut(replica)?;
        let held = entry.batches.iter_mut().find(|held| held.id == batch)?;
        let place = held.place?;
        let (mut added, mut inputs) = (Vec::with_capacity(live.len()), Inputs::new());
        for (at, id) in live.iter().enumerate() {
            let Some(pending) = self.in_flight.get(*id) else { continue };
            added.push((*id, pending.rows));
            inputs.push(padded.get(at).map_or(&pending.inputs[..], |padded| &padded[..]));
            held.timeout = [held.timeout, pending.timeout].into_iter().flatten().min();
        }
        if inputs.is_empty() {
            return Some((AppendOutcome::NoRoom, false));
        }
        let in_flight = &self.in_flight;
        let due = added.iter().map(|(id, _)| in_flight.get(*id)?.timeout);
        let outcome = entry.replica.append(place, &inputs, due);
        if outcome == AppendOutcome::Appended {
            held.rows = added.iter().fold(held.rows, |rows, (_, more)| rows.saturating_add(*more));
            held.members.extend(added);
        }
        let first_seen = outcome == AppendOutcome::TakenAlready && !std::mem::replace(&mut held.taken, true);
        Some((outcome, first_seen))
    }

    fn withdraw(&mut self, replica: ReplicaId, batch: BatchId) {
        let Some(entry) = self.replicas.get_mut(replica) else { return };
        let Some(held) = entry.batch_mut(batch) else { return };
        // A batch that was never handed over comes back with the end that follows.
        let Some(place) = held.place else { return };
        if !held.taken && entry.replica.withdraw(place) {
            if let Some(mut held) = entry.take_out(batch) {
                if self.part(&mut held).is_some() {
                    held.members.clear();
                }
                let requests = self.in_flight.waiting(held.members.iter().map(|(id, _)| *id));
                let now = self.clock.now();
                self.watch_run(replica, now);
                self.event(Event::Withdrawn { replica, batch, requests });
            }
        } else if let Some(held) = entry.batch_mut(batch) {
            held.taken = true;
            self.event(Event::Taken { replica, batch });
        }
    }
}

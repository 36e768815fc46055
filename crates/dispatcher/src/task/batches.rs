//! Carries out the scheduler's actions on the workers.
//!
//! Reads actions, hands batches to workers, and reports what did not come to pass.

use inferd_scheduler::{Action, Event};
use inferd_transport::{AppendOutcome, StageError};
use inferd_types::{BatchId, Error, ErrorKind, ReplicaId, RequestId, Tensor, Time};
use smallvec::SmallVec;

use super::Task;
use super::stalls::ABANDONED_GRACE;
use crate::replica::{Batch, Purpose};
use crate::worker::{Launcher, Worker};

/// What the transport wants: each request as its inputs.
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
                self.shared.observer.refused(reason.label());
                if let Some(flight) = self.flights.remove(request) {
                    self.fail(flight, error);
                }
            }
            Action::Hedge { replica, batch, of, requests } => self.hedge(replica, batch, of, requests),
            Action::WakeAt(time) => self.wake = time,
        }
    }

    fn stage_ordinary(&mut self, replica: ReplicaId, batch: BatchId, requests: Vec<RequestId>) {
        let live = self.flights.waiting(requests);
        let error = match self.place(replica) {
            _ if live.is_empty() => None,
            None => None,
            Some(place) => match self.stage(place, batch, Purpose::Ordinary, &live) {
                Ok(()) => return,
                Err(error) => Some(error),
            },
        };
        let requests = match (&live[..], error) {
            // Alone it will not fit the next time either.
            ([only], Some(error)) => {
                self.event(Event::Removed(*only));
                if let Some(flight) = self.flights.remove(*only) {
                    self.fail(flight, error);
                }
                Vec::new()
            }
            _ => live,
        };
        self.event(Event::Withdrawn { replica, batch, requests });
    }

    /// Hands `requests` to a replica as one batch. An error says why that can never be; a worker that is gone is
    /// none, since its exit follows and gives the batch back.
    pub(super) fn stage(
        &mut self,
        place: usize,
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
            let Some(flight) = self.flights.get(*id) else { continue };
            members.push((*id, flight.rows));
            inputs.push(padded.get(at).map_or(&flight.inputs[..], |padded| &padded[..]));
            timeout = [timeout, flight.timeout].into_iter().flatten().min();
        }
        let replica = &mut self.replicas[place];
        let slot = match replica.worker.stage(id, &inputs) {
            Ok(slot) => Some(slot),
            Err(StageError::Lost) => None,
            Err(error) => return Err(stage_error(&self.shared.settings.name, error)),
        };
        drop(inputs);
        let rows = members.iter().fold(0u32, |rows, (_, more)| rows.saturating_add(*more));
        self.hold(
            place,
            Batch {
                id,
                slot,
                purpose,
                members,
                rows,
                length,
                staged: Time::ZERO,
                taken: false,
                partial: false,
                emitted: false,
                at_once: false,
                twin: None,
                timeout,
            },
        );
        Ok(())
    }

    /// Runs a copy of `of`; where that can't be, it is as if it had been taken back.
    fn hedge(
        &mut self,
        replica: ReplicaId,
        batch: BatchId,
        of: (ReplicaId, BatchId),
        requests: Vec<RequestId>,
    ) {
        let live = self.flights.waiting(requests);
        let place = self.place(replica).filter(|_| !live.is_empty() && self.batch_of(of).is_some());
        let staged = place.is_some_and(|place| self.stage(place, batch, Purpose::Ordinary, &live).is_ok());
        if !staged {
            self.event(Event::Withdrawn { replica, batch, requests: Vec::new() });
            return;
        }
        for (one, other) in [(of, (replica, batch)), ((replica, batch), of)] {
            if let Some(held) = self.batch_of(one) {
                held.twin = Some(other);
            }
        }
    }

    fn batch_of(&mut self, (replica, batch): (ReplicaId, BatchId)) -> Option<&mut Batch> {
        let place = self.place(replica)?;
        self.replicas[place].batch_mut(batch)
    }

    /// The other of a pair, where it is still held; they are no pair from now on.
    pub(super) fn part(&mut self, batch: &mut Batch) -> Option<&mut Batch> {
        let other = self.batch_of(batch.twin.take()?)?;
        other.twin = None;
        Some(other)
    }

    /// How long the longest padded inputs of `requests` are.
    fn longest(&self, requests: &[RequestId]) -> u64 {
        let lengths = requests.iter().filter_map(|id| Some(self.flights.get(*id)?.length));
        lengths.max().unwrap_or(0)
    }

    /// The inputs of each of `requests` at `length`; nothing where the model pads none.
    fn pad(&self, requests: &[RequestId], length: u64) -> Vec<SmallVec<[Tensor; 2]>> {
        let Some(padding) = self.door.as_ref().and_then(|door| door.padding.as_ref()) else {
            return Vec::new();
        };
        let inputs = |id| self.flights.get(id).map_or(&[][..], |flight| &flight.inputs);
        requests.iter().map(|id| padding.pad(inputs(*id), length)).collect()
    }

    /// Hands over a batch that nobody sent.
    pub(super) fn stage_synthetic(&mut self, place: usize, purpose: Purpose, rows: u32) -> Result<(), Error> {
        let Some(signature) = self.shared.signature().cloned() else { return Ok(()) };
        let inputs = crate::synthetic::request(&signature, rows)?;
        self.stage_inputs(place, purpose, rows, &inputs)
    }

    /// Hands over `inputs`, whose answer is for nobody.
    pub(super) fn stage_inputs(
        &mut self,
        place: usize,
        purpose: Purpose,
        rows: u32,
        inputs: &[Tensor],
    ) -> Result<(), Error> {
        self.stage_nobodys(place, purpose, rows, &[inputs])
    }

    /// The same for what several requests were.
    pub(super) fn stage_nobodys(
        &mut self,
        place: usize,
        purpose: Purpose,
        rows: u32,
        requests: &[&[Tensor]],
    ) -> Result<(), Error> {
        let id = self.own_batch();
        let slot = match self.replicas[place].worker.stage(id, requests) {
            Ok(slot) => Some(slot),
            Err(StageError::Lost) => None,
            Err(error) => return Err(stage_error(&self.shared.settings.name, error)),
        };
        let members = Vec::new();
        self.hold(
            place,
            Batch {
                id,
                slot,
                purpose,
                members,
                rows,
                length: 0,
                staged: Time::ZERO,
                taken: false,
                partial: false,
                emitted: false,
                at_once: false,
                twin: None,
                timeout: None,
            },
        );
        Ok(())
    }

    fn hold(&mut self, place: usize, mut batch: Batch) {
        let now = self.clock.now();
        batch.staged = now;
        let replica = &mut self.replicas[place];
        batch.at_once = replica.batches.is_empty();
        replica.batches.push(batch);
        if replica.batches.len() == 1 {
            self.watch_run(place, now);
        }
    }

    /// The first batch of a replica runs from `since`: it is ended past the limit that was stated, and gets no company
    /// past what is usual for its size.
    pub(super) fn watch_run(&mut self, place: usize, since: Time) {
        let replica = &mut self.replicas[place];
        (replica.hangs_at, replica.stalls_at) = match replica.batches.first() {
            // Bounded by `load_max` from its start on.
            Some(first) if first.purpose == Purpose::WarmUp => return,
            // Nobody waits for it.
            Some(first) if first.purpose == Purpose::Comparison => {
                let limit = self.scheduler.stall_limit(first.rows.max(1)).unwrap_or(ABANDONED_GRACE);
                let stated = self.shared.settings.execution_max_s.map_or(limit, |stated| stated.0.min(limit));
                (since + stated, Time::MAX)
            }
            Some(first) => {
                let stated = self.shared.settings.execution_max_s.map(|limit| since + limit.0);
                // How long earlier streams took says nothing of the time to the next response.
                let usual = self.scheduler.stall_limit(first.rows.max(1));
                let usual = usual.filter(|_| !self.shared.is_decoupled()).map(|limit| since + limit);
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

    fn append(&mut self, id: ReplicaId, batch: BatchId, requests: Vec<RequestId>) {
        let live = self.flights.waiting(requests);
        let outcome = self.place(id).and_then(|place| {
            let length = self.replicas[place].batch_mut(batch)?.length;
            // What is longer than the batch was opened for has no room in it.
            let padded = if self.longest(&live) > length { return None } else { self.pad(&live, length) };
            let replica = &mut self.replicas[place];
            let held = replica.batches.iter_mut().find(|held| held.id == batch)?;
            let slot = held.slot?;
            let (mut added, mut inputs) = (Vec::with_capacity(live.len()), Inputs::new());
            for (at, id) in live.iter().enumerate() {
                let Some(flight) = self.flights.get(*id) else { continue };
                added.push((*id, flight.rows));
                inputs.push(padded.get(at).map_or(&flight.inputs[..], |padded| &padded[..]));
                held.timeout = [held.timeout, flight.timeout].into_iter().flatten().min();
            }
            let outcome =
                if inputs.is_empty() { AppendOutcome::NoRoom } else { replica.worker.append(slot, &inputs) };
            if outcome == AppendOutcome::Appended {
                held.rows = added.iter().fold(held.rows, |rows, (_, more)| rows.saturating_add(*more));
                held.members.extend(added);
            }
            let first_seen =
                outcome == AppendOutcome::TakenAlready && !std::mem::replace(&mut held.taken, true);
            Some((outcome, first_seen))
        });
        match outcome {
            Some((AppendOutcome::Appended, _)) => {}
            Some((_, first_seen)) => {
                if first_seen {
                    self.event(Event::Taken { replica: id, batch });
                }
                self.event(Event::Returned { requests: live });
            }
            None => self.event(Event::Returned { requests: live }),
        }
    }

    fn withdraw(&mut self, id: ReplicaId, batch: BatchId) {
        let Some(place) = self.place(id) else { return };
        let replica = &mut self.replicas[place];
        let Some(held) = replica.batch_mut(batch) else { return };
        // A batch that was never handed over comes back with the exit that follows.
        let Some(slot) = held.slot else { return };
        if !held.taken && replica.worker.withdraw(slot) {
            if let Some(mut held) = replica.take_out(batch) {
                if self.part(&mut held).is_some() {
                    held.members.clear();
                }
                let requests = self.flights.waiting(held.members.iter().map(|(id, _)| *id));
                let now = self.clock.now();
                self.watch_run(place, now);
                self.event(Event::Withdrawn { replica: id, batch, requests });
            }
        } else if let Some(held) = replica.batch_mut(batch) {
            held.taken = true;
            self.event(Event::Taken { replica: id, batch });
        }
    }
}

fn stage_error(model: &str, error: StageError) -> Error {
    match error {
        StageError::TooLarge { needed, max } => Error::new(
            ErrorKind::TooLarge,
            format!(
                "the inputs need an arena of {needed} bytes but model '{model}' has {max}; send fewer rows, or set \
                 arena_max_bytes: {needed}"
            ),
        ),
        StageError::Mixed => {
            Error::new(ErrorKind::InvalidInput, "the inputs are not what the model takes; see its metadata")
        }
        StageError::NoSlot | StageError::Lost => {
            Error::new(ErrorKind::Internal, "the replica had no room for the batch; try again")
        }
    }
}

//! Carries out the scheduler's actions, and checks that they are allowed.

use inferd_scheduler::{Action, Event};
use inferd_types::{BatchId, ReplicaId, RequestId};

use super::{Batch, DOORBELL, Fate, Happening, World};

impl World {
    pub(super) fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Stage { replica, batch, requests, .. } => self.stage(replica, batch, requests),
                Action::Append { replica, batch, requests } => self.append(replica, batch, requests),
                Action::Withdraw { replica, batch } => self.withdraw(replica, batch),
                Action::Answer { request, reason, .. } => {
                    let known = &mut self.requests[request.0 as usize];
                    assert_eq!(known.fate, Fate::Queued, "{request} was answered ({reason:?})");
                    known.fate = Fate::Answered(reason, self.now);
                    self.call_again(request);
                }
                Action::Hedge { .. } => unreachable!("hedging is off"),
                Action::WakeAt(at) => {
                    assert!(at > self.now, "woken at once: {at:?} at {:?}", self.now);
                    self.after(at.since(self.now), Happening::Wake(self.wake));
                }
            }
        }
    }

    fn hand_out(&mut self, replica: ReplicaId, batch: BatchId, requests: &[RequestId]) {
        assert!(!requests.is_empty());
        for request in requests {
            let known = &mut self.requests[request.0 as usize];
            assert_eq!(known.fate, Fate::Queued, "{request} was handed out");
            known.fate = Fate::Staged(replica, batch);
        }
    }

    fn check_batch(&self, requests: &[RequestId]) {
        let of = |request: &RequestId| &self.requests[request.0 as usize].arrival;
        let rows: u32 = requests.iter().map(|request| of(request).rows.max(1)).sum();
        let config = &self.setup.config;
        assert!(
            rows <= config.batch_rows_max || requests.len() == 1,
            "{rows} rows of {} requests",
            requests.len()
        );
        assert!(config.batched || requests.len() == 1);
        assert!(
            requests.iter().all(|request| of(request).shape == of(&requests[0]).shape),
            "shapes are mixed"
        );
    }

    fn stage(&mut self, id: ReplicaId, batch: BatchId, requests: Vec<RequestId>) {
        self.check_batch(&requests);
        if let Some(check) = self.check_stage {
            check(&requests, &self.requests);
        }
        self.hand_out(id, batch, &requests);
        let replica = self.replicas.get_mut(&id).expect("no action on a lost replica");
        assert!(!replica.draining, "a draining replica gets nothing");
        assert!(replica.slots.len() + replica.done.len() < 2, "{id} has no free slot");
        replica.slots.push(Batch {
            id: batch,
            requests,
            taken: false,
            known_taken: false,
            refused_append: false,
        });
        if replica.slots.len() == 1 {
            self.after(DOORBELL, Happening::Take(id));
        }
    }

    fn append(&mut self, id: ReplicaId, batch: BatchId, requests: Vec<RequestId>) {
        self.hand_out(id, batch, &requests);
        let full = self.random.unit() < self.setup.append_fails;
        let replica = self.replicas.get_mut(&id).expect("no action on a lost replica");
        let ended = replica.done.iter_mut();
        let batch =
            replica.slots.iter_mut().chain(ended).find(|slot| slot.id == batch).expect("appended to a batch");
        assert!(!batch.known_taken, "appended to a batch that was known to be taken");
        assert!(!batch.refused_append, "appended again after a refusal");
        if batch.taken || full {
            batch.refused_append = true;
            self.give_back(&requests);
        } else {
            batch.requests.extend(&requests);
            let all = batch.requests.clone();
            self.check_batch(&all);
        }
    }

    fn withdraw(&mut self, id: ReplicaId, batch: BatchId) {
        let replica = self.replicas.get_mut(&id).expect("no action on a lost replica");
        let at = replica.slots.iter().position(|slot| slot.id == batch && !slot.taken);
        if let Some(at) = at {
            let gone = replica.slots.remove(at);
            let mut requests = gone.requests;
            requests.retain(|request| self.requests[request.0 as usize].fate == Fate::Staged(id, batch));
            requests.iter().for_each(|request| self.requests[request.0 as usize].fate = Fate::Queued);
            self.send(Event::Withdrawn { replica: id, batch, requests });
        } else {
            self.report(Event::Taken { replica: id, batch });
        }
    }
}

//! Carries out the scheduler's actions, and checks that they are allowed.

use inferd_scheduler::{Action, Event};
use inferd_types::{BatchId, ReplicaId, RequestId};

use super::{DOORBELL, Fate, Happening, World, rows};

impl World {
    pub(super) fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Stage { replica, batch, requests, .. } => self.stage(replica, batch, requests),
                Action::Append { replica, batch, requests } => self.append(replica, batch, requests),
                Action::Withdraw { replica, batch } => self.withdraw(replica, batch),
                Action::Answer { request, reason, .. } => {
                    let now = self.now();
                    let known = &mut self.requests[request.0 as usize];
                    assert_eq!(known.fate, Fate::Queued, "{request} was answered ({reason:?})");
                    known.fate = Fate::Answered(reason, now);
                    self.call_again(request);
                }
                Action::Hedge { .. } => unreachable!("hedging is off"),
                Action::WakeAt(at) => {
                    let now = self.now();
                    assert!(at > now, "woken at once: {at:?} at {now:?}");
                    self.after(at.since(now), Happening::Wake);
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
        let rows = rows(&self.requests, requests);
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
        if replica.stage(batch, requests) {
            self.after(DOORBELL, Happening::Take(id));
        }
    }

    fn append(&mut self, id: ReplicaId, batch: BatchId, requests: Vec<RequestId>) {
        self.hand_out(id, batch, &requests);
        let full = self.random.unit() < self.setup.append_fails;
        let replica = self.replicas.get_mut(&id).expect("no action on a lost replica");
        match replica.append(batch, &requests, full).map(<[RequestId]>::to_vec) {
            None => self.give_back(&requests),
            Some(all) => self.check_batch(&all),
        }
    }

    fn withdraw(&mut self, id: ReplicaId, batch: BatchId) {
        let replica = self.replicas.get_mut(&id).expect("no action on a lost replica");
        match replica.withdraw(batch) {
            Some(mut requests) => {
                requests.retain(|request| self.requests[request.0 as usize].fate == Fate::Staged(id, batch));
                requests.iter().for_each(|request| self.requests[request.0 as usize].fate = Fate::Queued);
                self.send(Event::Withdrawn { replica: id, batch, requests });
            }
            None => self.report(Event::Taken { replica: id, batch }),
        }
    }
}

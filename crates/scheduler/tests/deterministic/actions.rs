//! Carries out the scheduler's actions, and checks that they are allowed.
//!
//! Reads actions; their consequences are reported once all of them are carried out. Answers nothing by itself.

use inferd_scheduler::{Action, Event};
use inferd_testkit::VirtualBatch;
use inferd_types::{BatchId, ReplicaId, RequestId};

use crate::ledger::Fate;
use crate::scenario::often;
use crate::world::{DOORBELL, Happening, World};

/// Maximum number of saved tokens for copies.
const COPIES_AT_ONCE: f64 = 4.0;

impl World {
    pub(crate) fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Stage { replica, batch, requests, .. } => self.stage(replica, batch, requests),
                Action::Append { replica, batch, requests } => self.append(replica, batch, &requests),
                Action::Withdraw { replica, batch } => self.withdraw(replica, batch),
                Action::Hedge { replica, batch, requests, .. } => self.hedge(replica, batch, requests),
                Action::Answer { request, reason, .. } => {
                    self.ledger.refuse(self.now(), request, reason);
                    self.call_again(request);
                }
                Action::WakeAt(at) => {
                    assert!(at > self.now(), "woken at once: {at:?} at {:?}", self.now());
                    self.wake = Some(at);
                }
            }
        }
    }

    fn check_batch(&self, requests: &[RequestId]) {
        let config = &self.scenario.config;
        let of = |request: &RequestId| self.ledger.get(*request);
        let first = of(&requests[0]).arrival;
        let rows = self.ledger.rows(requests);
        let bytes: usize = requests.iter().map(|request| of(request).arrival.bytes).sum();
        if requests.len() == 1 {
            return;
        }
        assert!(config.batched, "a model that is not batched got {} requests at once", requests.len());
        assert!(rows <= config.batch_rows_max, "{rows} rows, {} may run", config.batch_rows_max);
        assert!(bytes <= config.batch_max_bytes, "{bytes} bytes, {} may run", config.batch_max_bytes);
        assert!(requests.iter().all(|request| of(request).arrival.shape == first.shape), "shapes are mixed");
        assert!(requests.iter().all(|request| of(request).arrival.size == first.size), "sizes are mixed");
        assert!(
            !requests.iter().any(|request| of(request).alone),
            "a request that runs alone is batched with others"
        );
    }

    fn stage(&mut self, id: ReplicaId, batch: BatchId, requests: Vec<RequestId>) {
        self.check_batch(&requests);
        assert!(requests.len() == 1 || self.scheduler.is_batching(), "batching is off");
        self.ledger.hand_out(self.now(), &requests, (id, batch));
        self.check_slot(id);
        self.batches += 1;
        if often(&mut self.scenario.random, self.scenario.faults.stage_fails) {
            return self.fail_stage(id, batch, requests);
        }
        self.occupy(id, batch, requests);
    }

    fn check_slot(&self, id: ReplicaId) {
        let busy = self.replicas.values().filter(|replica| replica.is_busy()).count();
        let replica = self.replicas.get(&id).expect("no action on a lost replica");
        replica.check_room();
        let most = self.scenario.config.running_max as usize;
        assert!(replica.is_busy() || busy < most, "{busy} replicas run, {most} may");
    }

    fn occupy(&mut self, id: ReplicaId, batch: BatchId, requests: Vec<RequestId>) {
        let replica = self.replicas.get_mut(&id).expect("just checked");
        if replica.stage(batch, requests) {
            self.after(DOORBELL, Happening::Take(id));
        }
    }

    /// It does not fit the arena: its requests may run alone; a request that is alone already is answered.
    fn fail_stage(&mut self, replica: ReplicaId, batch: BatchId, requests: Vec<RequestId>) {
        if let [request] = requests[..] {
            self.ledger.end(self.now(), request, Fate::Failed);
            self.call_again(request);
            self.reports.push_back(Event::Removed(request));
            return;
        }
        requests.iter().for_each(|request| self.ledger.get_mut(*request).alone = true);
        self.reports.push_back(Event::Withdrawn { replica, batch, requests });
    }

    fn append(&mut self, id: ReplicaId, batch: BatchId, requests: &[RequestId]) {
        self.ledger.hand_out(self.now(), requests, (id, batch));
        let full = often(&mut self.scenario.random, self.scenario.faults.append_fails);
        let replica = self.replicas.get_mut(&id).expect("no action on a lost replica");
        assert!(!replica.draining, "a draining replica gets nothing");
        match replica.append(batch, requests, full).map(<[RequestId]>::to_vec) {
            None => self.reports.push_back(Event::Returned { requests: requests.to_vec() }),
            Some(all) => self.check_batch(&all),
        }
    }

    fn withdraw(&mut self, id: ReplicaId, batch: BatchId) {
        let replica = self.replicas.get_mut(&id).expect("no action on a lost replica");
        let Some(mut requests) = replica.withdraw(batch) else {
            // Too late. Its slot may hold it still, or its end be on the way.
            return self.reports.push_back(Event::Taken { replica: id, batch });
        };
        requests.retain(|request| self.ledger.lost_its_last((id, batch), *request));
        self.reports.push_back(Event::Withdrawn { replica: id, batch, requests });
    }

    /// A copy of a running batch, on an idle replica.
    fn hedge(&mut self, id: ReplicaId, batch: BatchId, requests: Vec<RequestId>) {
        let hedging = self.scenario.config.hedging.expect("hedging is off");
        self.copies += 1;
        let most = hedging.budget * self.batches as f64 + COPIES_AT_ONCE;
        assert!(self.copies as f64 <= most, "{} copies of {} batches", self.copies, self.batches);
        self.check_slot(id);
        assert!(!self.replicas[&id].is_busy(), "a copy on a busy replica");
        for request in &requests {
            let known = self.ledger.get_mut(*request);
            assert_eq!((known.fate, known.copy), (Fate::Held, None), "{request} was copied");
            let (home, first) = known.home.expect("it is held by a batch");
            assert_ne!(home, id, "copied to where it runs");
            known.copy = Some((id, batch));
            let held = |slot: &VirtualBatch| slot.id == first;
            assert!(self.replicas[&home].slots.iter().chain(&self.replicas[&home].done).any(held));
        }
        if often(&mut self.scenario.random, self.scenario.faults.stage_fails) {
            requests.iter().for_each(|request| self.ledger.get_mut(*request).copy = None);
            return self.reports.push_back(Event::Withdrawn { replica: id, batch, requests: Vec::new() });
        }
        self.occupy(id, batch, requests);
    }
}

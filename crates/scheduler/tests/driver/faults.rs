//! Injects faults: lost replicas, cancellations.

use std::time::Duration;

use inferd_scheduler::Event;
use inferd_types::RequestId;

use super::{Fate, Happening, World};

impl World {
    /// Ends a replica; the innocent and (after a while) the suspects return, a new one starts.
    pub(super) fn lose(&mut self) {
        if !self.running() {
            return;
        }
        let ids: Vec<_> = self.replicas.keys().copied().collect();
        if !ids.is_empty() {
            let id = ids[self.random.below(ids.len() as u64) as usize];
            let lost = self.replicas.remove(&id).expect("just listed");
            self.send(Event::ReplicaLost(id));
            let (mut innocent, mut suspects) = (Vec::new(), Vec::new());
            for batch in lost.slots.into_iter().chain(lost.done) {
                for request in batch.requests {
                    let known = &mut self.requests[request.0 as usize];
                    if known.fate == Fate::Staged(id, batch.id) {
                        known.fate = Fate::Away;
                        if batch.taken { suspects.push(request) } else { innocent.push(request) }
                    }
                }
            }
            self.give_back(&innocent);
            // One suspect is condemned, the others may run again.
            if let Some(condemned) = suspects.pop() {
                self.requests[condemned.0 as usize].fate = Fate::Done(self.now());
                self.send(Event::Removed(condemned));
                self.call_again(condemned);
            }
            self.give_back(&suspects);
            self.after(Duration::from_millis(3), Happening::Start);
        }
        let next = self.random.exponential(self.setup.losses);
        self.after(next, Happening::Lose);
    }

    pub(super) fn give_back(&mut self, requests: &[RequestId]) {
        requests.iter().for_each(|request| self.requests[request.0 as usize].fate = Fate::Queued);
        self.send(Event::Returned { requests: requests.to_vec() });
    }

    pub(super) fn cancel(&mut self) {
        if !self.running() {
            return;
        }
        let recent = 1 + self.random.below(64).min(self.requests.len() as u64);
        if let Some(at) = self.requests.len().checked_sub(recent as usize) {
            let request = RequestId(at as u64);
            let held = matches!(self.requests[at].fate, Fate::Queued | Fate::Staged(..) | Fate::Away);
            if held {
                self.requests[at].fate = Fate::Cancelled;
                self.send(Event::Cancelled(request));
                self.call_again(request);
            }
        }
        let next = self.random.exponential(self.setup.cancellations);
        self.after(next, Happening::Cancel);
    }
}

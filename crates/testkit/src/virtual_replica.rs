//! One replica as the scheduler's tests have it, in virtual time: what it holds, and what it may be asked for.

use inferd_types::{BatchId, RequestId};

/// A batch on such a replica.
#[derive(Debug)]
pub struct VirtualBatch {
    /// Which.
    pub id: BatchId,
    /// Those that were staged and added.
    pub requests: Vec<RequestId>,
    /// The replica has begun it: nothing can be added or withdrawn any more.
    pub taken: bool,
    /// The scheduler knows that.
    taken_is_known: bool,
    refused_append: bool,
}

/// See the module.
#[derive(Debug)]
pub struct VirtualReplica {
    /// The first is executing if one is.
    pub slots: Vec<VirtualBatch>,
    /// Ended, but the dispatcher has not seen it.
    pub done: Vec<VirtualBatch>,
    /// Whether it runs the first.
    pub executing: bool,
    /// Whether it is given nothing new.
    pub draining: bool,
    /// How many times as long as usual it takes.
    pub slowness: f64,
}

impl Default for VirtualReplica {
    fn default() -> Self {
        let slots = Vec::with_capacity(2);
        VirtualReplica { slots, done: Vec::new(), executing: false, draining: false, slowness: 1.0 }
    }
}

impl VirtualReplica {
    /// Whether it holds anything, as far as the scheduler can know.
    pub fn is_busy(&self) -> bool {
        !self.slots.is_empty() || !self.done.is_empty()
    }

    /// Fails where it may be given nothing.
    pub fn check_room(&self) {
        assert!(!self.draining, "a draining replica gets nothing");
        assert!(self.slots.len() + self.done.len() < 2, "there is no free slot");
    }

    /// Holds one more batch; whether that is the only one, which it takes next.
    pub fn stage(&mut self, id: BatchId, requests: Vec<RequestId>) -> bool {
        self.check_room();
        let (taken, taken_is_known, refused_append) = (false, false, false);
        self.slots.push(VirtualBatch { id, requests, taken, taken_is_known, refused_append });
        self.slots.len() == 1
    }

    /// Adds to a batch, which then has these requests; `None`: it was taken, or is `full`.
    pub fn append(&mut self, id: BatchId, requests: &[RequestId], full: bool) -> Option<&[RequestId]> {
        let found = self.slots.iter_mut().chain(&mut self.done).find(|slot| slot.id == id);
        let found = found.expect("what is appended to was staged");
        assert!(!found.taken_is_known, "appended to a batch that was known to be taken");
        assert!(!found.refused_append, "appended again after a refusal");
        if found.taken || full {
            found.refused_append = true;
            return None;
        }
        found.requests.extend(requests);
        Some(&found.requests)
    }

    /// Gives a batch back; `None`: it has been taken, which the scheduler knows from now on.
    pub fn withdraw(&mut self, id: BatchId) -> Option<Vec<RequestId>> {
        let Some(at) = self.slots.iter().position(|slot| slot.id == id && !slot.taken) else {
            self.seen_taken(id);
            return None;
        };
        Some(self.slots.remove(at).requests)
    }

    /// Begins the first batch, if there is one and nothing runs.
    pub fn take(&mut self) -> Option<&VirtualBatch> {
        let batch = self.slots.first_mut().filter(|_| !self.executing)?;
        batch.taken = true;
        self.executing = true;
        Some(batch)
    }

    /// Its run has ended. The slot stays occupied until the dispatcher has seen that.
    pub fn end(&mut self, id: BatchId) -> &VirtualBatch {
        self.executing = false;
        let done = self.slots.remove(0);
        assert_eq!(done.id, id);
        self.done.push(done);
        &self.done[self.done.len() - 1]
    }

    /// The dispatcher has seen that a batch was taken; it may have ended meanwhile.
    pub fn seen_taken(&mut self, id: BatchId) {
        if let Some(batch) = self.slots.iter_mut().find(|slot| slot.id == id) {
            batch.taken_is_known = true;
        }
    }

    /// The dispatcher has seen that a batch ended: who was in it.
    pub fn seen_end(&mut self, id: BatchId) -> Vec<RequestId> {
        let at = self.done.iter().position(|done| done.id == id).expect("it ended");
        self.done.remove(at).requests
    }
}

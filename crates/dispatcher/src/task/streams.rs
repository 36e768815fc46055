//! Gives callers the responses of streams, one by one.
//!
//! Reads responses that wait in replicas' memory, hands each to its caller when that one has room for it; stops streams
//! whose callers have gone. Knows nothing of how a response is read.

use inferd_scheduler::Event;
use inferd_types::{Error, ErrorKind, InferResponse, ReplicaId, Time, Timing};
use tokio::sync::mpsc::error::TrySendError;

use crate::replica::entry::{Hang, HeldBatch};
use crate::replica::kind::{BatchOutputs, Launcher, Replica};
use crate::task::Task;

impl<L: Launcher> Task<L> {
    /// Takes the responses that wait in the memory of a replica, as far as their callers have room. False: there was
    /// nothing to do.
    pub(super) fn pass_on(&mut self, replica: ReplicaId) -> bool {
        let mut any = false;
        for at in 0..self.replicas[replica].batches.len() {
            if self.replicas[replica].batches[at].partial {
                any |= self.pass_on_one(replica, at);
            }
        }
        any
    }

    fn pass_on_one(&mut self, replica: ReplicaId, at: usize) -> bool {
        let now = self.clock.now();
        let entry = &mut self.replicas[replica];
        // It has given a response: whatever it was asked for, it does not hang.
        entry.hang.take_if(|hang| matches!(hang, Hang::Asked(_)));
        let batch = &mut entry.batches[at];
        let Some(place) = batch.place else { return false };
        let request = batch.members.first().map(|(id, _)| *id).filter(|id| self.in_flight.is_awaited(*id));
        let parts = request.and_then(|id| self.in_flight.get(id)?.parts.clone());
        let permit = match parts.map(|parts| parts.try_reserve_owned()) {
            Some(Ok(permit)) => permit,
            Some(Err(TrySendError::Full(_))) => {
                // The worker waits for the caller, who has all the time of its timeout.
                entry.hangs_at = Time::MAX;
                return false;
            }
            // No caller sent it, or its caller has gone.
            Some(Err(TrySendError::Closed(_))) | None => {
                batch.partial = false;
                entry.replica.stop_stream(place);
                self.watch_run(replica, now);
                return true;
            }
        };
        batch.partial = false;
        let taken = entry.replica.take_partial(place);
        let timing = Timing {
            staged: batch.staged,
            started: batch.staged,
            finished: now,
            batch_rows: batch.rows,
            ..Timing::default()
        };
        let error = match taken {
            // Its exit follows.
            Ok(None) => None,
            Ok(Some(outputs)) => match outputs.split(&[batch.rows]) {
                Ok(shares) => {
                    let outputs = shares.into_iter().next().unwrap_or_default();
                    permit.send(InferResponse { outputs, timing, replica, steps: Vec::new() });
                    batch.emitted = true;
                    None
                }
                Err(error) => Some(error),
            },
            Err(failure) => Some(Error::new(failure.kind, failure.message).with_detail(failure.detail)),
        };
        if let (Some(error), Some(id)) = (error, request)
            && let Some(pending) = self.in_flight.remove(id)
        {
            self.fail(pending, error);
            self.event(Event::Cancelled(id));
        }
        self.watch_run(replica, now);
        true
    }

    /// Whether the caller of a batch that was lost has had responses: it gets an error, since another run would repeat
    /// them.
    pub(super) fn end_stream(&mut self, batch: &HeldBatch) -> bool {
        if !batch.emitted {
            return false;
        }
        for (id, _) in &batch.members {
            if let Some(pending) = self.in_flight.remove(*id) {
                let message = "the worker that streamed the responses ended or was ended in the middle of them; what \
                               came so far is all there is, send the request again for the whole";
                self.fail(pending, Error::new(ErrorKind::WorkerLost, message));
            }
        }
        true
    }
}

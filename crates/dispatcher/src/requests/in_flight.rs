//! The requests that were admitted and not yet answered.
//!
//! Reads requests, hands back their inputs while they are staged and their callers when there is an answer. What is
//! too large to run at once is held as parts, which are requests in flight of their own.
//! Knows nothing of replicas or batches.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use inferd_scheduler::Arrival;
use inferd_types::{Error, InferResponse, ReplicaId, RequestId, Tensor, Time};
use smallvec::SmallVec;
use tokio::sync::{mpsc, oneshot};

use crate::intake::inbox::{InferResult, Submission};
use crate::requests::id_hasher::IdHasher;
use crate::requests::parts::{Whole, cut};

/// One admitted request, or a part of one.
#[derive(Debug)]
pub(crate) struct InFlightRequest {
    pub(crate) inputs: SmallVec<[Tensor; 2]>,
    pub(crate) rows: u32,
    pub(crate) bytes: usize,
    /// How long its padded inputs are; 0 where the model has none.
    pub(crate) length: u64,
    pub(crate) arrived: Time,
    pub(crate) admitted: Time,
    pub(crate) timeout: Option<Time>,
    /// The one replica that may run it.
    pub(crate) home: Option<ReplicaId>,
    /// Where the responses of a decoupled model go.
    pub(crate) parts: Option<mpsc::Sender<InferResponse>>,
    /// Replicas that were lost while they ran it, and whose loss is no evidence against it.
    pub(crate) losses: u8,
    caller: Caller,
}

/// Who gets the answer.
#[derive(Debug)]
enum Caller {
    Itself(oneshot::Sender<InferResult>),
    /// The whole of this name, as its part of this number.
    Whole(RequestId, usize),
}

/// A caller whose answer is there.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) answer: InferResult,
    pub(crate) rows: u32,
    pub(crate) arrived: Time,
    pub(crate) admitted: Time,
    reply: oneshot::Sender<InferResult>,
}

impl Answered {
    pub(crate) fn send(self) {
        // A caller that has gone in this moment gets nothing.
        let _gone = self.reply.send(self.answer);
    }
}

/// All of them, by id.
#[derive(Debug, Default)]
pub(crate) struct InFlightRequests {
    by_id: HashMap<RequestId, InFlightRequest, BuildHasherDefault<IdHasher>>,
    /// Requests in parts, by the name that their caller has for them.
    wholes: HashMap<RequestId, Whole, BuildHasherDefault<IdHasher>>,
    rows: u64,
}

/// Names of parts but the first, which has the whole's: the upper half of the numbers is theirs.
const PARTS: u64 = 1 << 63;

impl InFlightRequests {
    pub(crate) fn insert(&mut self, id: RequestId, pending: InFlightRequest) {
        self.rows += u64::from(pending.rows);
        self.by_id.insert(id, pending);
    }

    pub(crate) fn get(&self, id: RequestId) -> Option<&InFlightRequest> {
        self.by_id.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: RequestId) -> Option<&mut InFlightRequest> {
        self.by_id.get_mut(&id)
    }

    pub(crate) fn remove(&mut self, id: RequestId) -> Option<InFlightRequest> {
        let pending = self.by_id.remove(&id)?;
        self.rows -= u64::from(pending.rows);
        Some(pending)
    }

    /// Holds `pending` as parts of at most `rows_max` rows and hands on what the scheduler needs to know of each.
    pub(crate) fn insert_in_parts(
        &mut self,
        pending: InFlightRequest,
        arrival: Arrival,
        rows_max: u32,
        parts_so_far: &mut u64,
    ) -> Vec<Arrival> {
        let id = arrival.request;
        let Caller::Itself(reply) = pending.caller else { return Vec::new() };
        let (mut ids, mut arrivals) = (Vec::new(), Vec::new());
        for (index, (rows, inputs)) in cut(&pending.inputs, pending.rows, rows_max).into_iter().enumerate() {
            let part = if index == 0 {
                id
            } else {
                *parts_so_far += 1;
                RequestId(PARTS | *parts_so_far)
            };
            let bytes = inputs.iter().map(|input| input.data.len()).sum();
            ids.push(part);
            arrivals.push(Arrival { request: part, rows, bytes, ..arrival });
            self.insert(
                part,
                InFlightRequest {
                    inputs,
                    rows,
                    bytes,
                    parts: None,
                    caller: Caller::Whole(id, index),
                    ..pending
                },
            );
        }
        let whole = Whole::new(reply, (pending.rows, rows_max), pending.arrived, pending.admitted, ids);
        self.wholes.insert(id, whole);
        arrivals
    }

    /// Takes the answer to what was removed. `None`: other parts of it are still to come, or nobody waits.
    pub(crate) fn finish(&mut self, pending: InFlightRequest, response: InferResponse) -> Option<Answered> {
        let (id, index) = match pending.caller {
            Caller::Itself(_) => return Some(pending.answered(Ok(response))),
            Caller::Whole(id, index) => (id, index),
        };
        let complete = self.wholes.get_mut(&id)?.keep(index, response);
        if !complete {
            return None;
        }
        let whole = self.wholes.remove(&id)?;
        let (rows, arrived, admitted) = (whole.rows, whole.arrived, whole.admitted);
        let (reply, answer) = whole.join();
        Some(Answered { answer, rows, arrived, admitted, reply })
    }

    /// Takes the error of what was removed: the whole request's. `None`: its caller has one already.
    pub(crate) fn fail(
        &mut self,
        pending: InFlightRequest,
        error: Error,
    ) -> (Option<Answered>, Vec<RequestId>) {
        let Caller::Whole(id, index) = pending.caller else {
            return (Some(pending.answered(Err(error))), Vec::new());
        };
        let Some(whole) = self.wholes.remove(&id) else { return (None, Vec::new()) };
        // The worker counts the rows of its batch, the caller those that it sent.
        let error = error.after_rows(whole.first_row(index));
        let Whole { reply, rows, arrived, admitted, ids, .. } = whole;
        (Some(Answered { answer: Err(error), rows, arrived, admitted, reply }), ids)
    }

    /// Forgets what its caller calls `id`, and says under which names it was held.
    pub(crate) fn cancel(&mut self, id: RequestId) -> SmallVec<[RequestId; 1]> {
        let ids = match self.wholes.remove(&id) {
            Some(whole) => whole.ids.into_iter().collect(),
            None => SmallVec::from_buf([id]),
        };
        ids.into_iter().filter(|id| self.remove(*id).is_some()).collect()
    }

    /// Whether somebody listens: looked at before each piece of work.
    pub(crate) fn is_awaited(&self, id: RequestId) -> bool {
        self.get(id).is_some_and(|pending| match &pending.caller {
            Caller::Itself(reply) => !reply.is_closed(),
            Caller::Whole(id, _) => self.wholes.get(id).is_some_and(|whole| !whole.reply.is_closed()),
        })
    }

    /// Those of `ids` that still wait for an answer.
    pub(crate) fn waiting(&self, ids: impl IntoIterator<Item = RequestId>) -> Vec<RequestId> {
        ids.into_iter().filter(|id| self.is_awaited(*id)).collect()
    }

    pub(crate) fn ids(&self) -> Vec<RequestId> {
        let mut ids: Vec<_> = self.by_id.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Those that only `home` may run.
    pub(crate) fn at_home(&self, home: ReplicaId) -> Vec<RequestId> {
        let mut ids: Vec<_> =
            self.by_id.iter().filter(|(_, pending)| pending.home == Some(home)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }
}

impl InFlightRequest {
    /// What came, before its rows and its length are known.
    pub(crate) fn new(now: Time, submission: Submission) -> InFlightRequest {
        let Submission { request, reply, parts, .. } = submission;
        InFlightRequest {
            bytes: request.inputs.iter().map(|input| input.data.len()).sum(),
            rows: 0,
            length: 0,
            inputs: request.inputs,
            arrived: request.arrived,
            admitted: now,
            timeout: request.timeout,
            home: request.home,
            parts,
            losses: 0,
            caller: Caller::Itself(reply),
        }
    }

    fn answered(self, answer: InferResult) -> Answered {
        let InFlightRequest { rows, arrived, admitted, caller, .. } = self;
        match caller {
            Caller::Itself(reply) => Answered { answer, rows, arrived, admitted, reply },
            // Parts are answered by their whole; nobody holds the other end of this one.
            Caller::Whole(..) => Answered { answer, rows, arrived, admitted, reply: oneshot::channel().0 },
        }
    }
}

//! The requests that were admitted and not yet answered.
//!
//! Reads submissions, hands back their inputs while they are staged and their callers when there is an answer.
//! Knows nothing of replicas or batches.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use inferd_scheduler::{Arrival, ShapeKey, SizeBucket};
use inferd_types::{Error, ErrorKind, InferRequest, RequestId, Result, Signature, Tensor, Time};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::inbox::Submission;
use crate::ticket::Answer;

/// One admitted request.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) inputs: SmallVec<[Tensor; 2]>,
    pub(crate) rows: u32,
    pub(crate) bytes: usize,
    pub(crate) arrived: Time,
    pub(crate) admitted: Time,
    pub(crate) timeout: Option<Time>,
    reply: oneshot::Sender<Answer>,
}

impl Flight {
    /// Whether nobody listens any more: looked at before each piece of work.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    pub(crate) fn answer(self, answer: Answer) {
        // Who has gone in this moment gets nothing.
        let _gone = self.reply.send(answer);
    }
}

/// All of them, by id.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    by_id: HashMap<RequestId, Flight, BuildHasherDefault<IdHasher>>,
    rows: u64,
}

impl Flights {
    pub(crate) fn insert(&mut self, id: RequestId, flight: Flight) {
        self.rows += u64::from(flight.rows);
        self.by_id.insert(id, flight);
    }

    pub(crate) fn get(&self, id: RequestId) -> Option<&Flight> {
        self.by_id.get(&id)
    }

    pub(crate) fn remove(&mut self, id: RequestId) -> Option<Flight> {
        let flight = self.by_id.remove(&id)?;
        self.rows -= u64::from(flight.rows);
        Some(flight)
    }

    /// Those of `ids` that still wait for an answer.
    pub(crate) fn waiting(&self, ids: impl IntoIterator<Item = RequestId>) -> Vec<RequestId> {
        ids.into_iter().filter(|id| self.get(*id).is_some_and(|flight| !flight.is_abandoned())).collect()
    }

    pub(crate) fn ids(&self) -> Vec<RequestId> {
        let mut ids: Vec<_> = self.by_id.keys().copied().collect();
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

/// Turns submissions into flights: what depends on the signature is worked out once, at load.
#[derive(Debug)]
pub(crate) struct Door {
    inputs: usize,
    batched: bool,
    /// Every row of every input has the same size: all requests may share a batch.
    one_shape: bool,
}

impl Door {
    pub(crate) fn new(signature: &Signature) -> Door {
        Door {
            inputs: signature.inputs.len(),
            batched: signature.batched(),
            one_shape: signature.inputs.iter().all(|input| input.shape.iter().skip(1).all(|dim| *dim >= 0)),
        }
    }

    /// The flight and what the scheduler needs to know of it; or the caller's answer.
    ///
    /// # Errors
    /// `InvalidInput` where the inputs are not those of the signature or disagree about the number of rows.
    pub(crate) fn admit(
        &self,
        now: Time,
        submission: Submission,
    ) -> Result<(Flight, Arrival), Box<(Flight, Error)>> {
        let Submission { id, request, reply } = submission;
        let rows = self.rows(&request);
        let mut flight = Flight {
            bytes: request.inputs.iter().map(|input| input.data.len()).sum(),
            rows: 0,
            inputs: request.inputs,
            arrived: request.arrived,
            admitted: now,
            timeout: request.timeout,
            reply,
        };
        flight.rows = match rows {
            Ok(rows) => rows,
            Err(error) => return Err(Box::new((flight, error))),
        };
        let arrival = Arrival {
            request: id,
            rows: flight.rows,
            bytes: flight.bytes,
            shape: self.shape(id, &flight),
            size: SizeBucket::default(),
            priority: request.priority,
            tenant: request.tenant,
            due: request.due,
            timeout: flight.timeout,
        };
        Ok((flight, arrival))
    }

    fn rows(&self, request: &InferRequest) -> Result<u32> {
        if request.inputs.len() != self.inputs {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{} inputs were given but the model takes {}", request.inputs.len(), self.inputs),
            ));
        }
        if !self.batched {
            return Ok(1);
        }
        let mut rows = request.inputs.iter().map(|input| input.shape.first().copied().unwrap_or(0));
        let first = rows.next().unwrap_or(1);
        if let Some(other) = rows.find(|rows| *rows != first) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("the inputs have {first} and {other} rows; dimension 0 must be the same for all"),
            ));
        }
        u32::try_from(first).map_err(|_| {
            Error::new(ErrorKind::TooLarge, format!("a request of {first} rows is too large; split it"))
        })
    }

    fn shape(&self, id: RequestId, flight: &Flight) -> ShapeKey {
        if flight.rows == 0 {
            // An empty request has no row to find its answer by: it runs alone.
            return ShapeKey(!id.0);
        }
        if self.one_shape {
            return ShapeKey(0);
        }
        let mut hasher = IdHasher::default();
        for input in &flight.inputs {
            input.datatype.hash(&mut hasher);
            input.shape.get(1..).hash(&mut hasher);
        }
        // The upper half is left to the keys of empty requests.
        ShapeKey(hasher.finish() >> 1)
    }
}

/// A hash for numbers that are counted up: ids need no defence against being chosen, and shapes that collide are
/// found out by `transport`, which refuses to mix them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // An odd number near 2^64 / φ; the rotation brings its good upper bits to where tables look.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(SPREAD).rotate_left(26);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }
}

//! The requests that were admitted and not yet answered.
//!
//! Reads submissions, hands back their inputs while they are staged and their callers when there is an answer. What is
//! too large to run at once is held as parts, which are flights of their own.
//! Knows nothing of replicas or batches.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use inferd_scheduler::{Arrival, ShapeKey, SizeBucket};
use inferd_types::settings::ModelSettings;
use inferd_types::{
    Error, ErrorKind, InferRequest, InferResponse, ReplicaId, RequestId, Result, Shape, Signature, Tensor,
    Time,
};
use smallvec::SmallVec;
use tokio::sync::{mpsc, oneshot};

use crate::inbox::Submission;
use crate::padding::Padding;
use crate::parts::{Whole, cut};
use crate::ticket::Answer;

/// One admitted request, or a part of one.
#[derive(Debug)]
pub(crate) struct Flight {
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
    caller: Caller,
}

/// Who gets the answer.
#[derive(Debug)]
enum Caller {
    Itself(oneshot::Sender<Answer>),
    /// The whole of this name, as its part of this number.
    Whole(RequestId, usize),
}

/// A caller whose answer is there.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) rows: u32,
    pub(crate) arrived: Time,
    pub(crate) admitted: Time,
    reply: oneshot::Sender<Answer>,
}

impl Answered {
    pub(crate) fn send(self) {
        // Who has gone in this moment gets nothing.
        let _gone = self.reply.send(self.answer);
    }
}

/// All of them, by id.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    by_id: HashMap<RequestId, Flight, BuildHasherDefault<IdHasher>>,
    /// Requests in parts, by the name that their caller has for them.
    wholes: HashMap<RequestId, Whole, BuildHasherDefault<IdHasher>>,
    rows: u64,
}

/// Names of parts but the first, which has the whole's: the upper half of the numbers is theirs.
const PARTS: u64 = 1 << 63;

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

    /// Holds `flight` as parts of at most `rows_max` rows and hands on what the scheduler needs to know of each.
    pub(crate) fn insert_in_parts(
        &mut self,
        flight: Flight,
        arrival: Arrival,
        rows_max: u32,
        parts_so_far: &mut u64,
    ) -> Vec<Arrival> {
        let id = arrival.request;
        let Caller::Itself(reply) = flight.caller else { return Vec::new() };
        let (mut ids, mut arrivals) = (Vec::new(), Vec::new());
        for (index, (rows, inputs)) in cut(&flight.inputs, flight.rows, rows_max).into_iter().enumerate() {
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
                Flight { inputs, rows, bytes, parts: None, caller: Caller::Whole(id, index), ..flight },
            );
        }
        let whole = Whole::new(reply, (flight.rows, rows_max), flight.arrived, flight.admitted, ids);
        self.wholes.insert(id, whole);
        arrivals
    }

    /// Takes the answer to what was removed. `None`: other parts of it are still to come, or nobody waits.
    pub(crate) fn finish(&mut self, flight: Flight, response: InferResponse) -> Option<Answered> {
        let (id, index) = match flight.caller {
            Caller::Itself(_) => return Some(flight.told(Ok(response))),
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

    /// Takes the error of what was removed: the whole request's. `None`: it was told before.
    pub(crate) fn fail(&mut self, flight: Flight, error: Error) -> (Option<Answered>, Vec<RequestId>) {
        let Caller::Whole(id, index) = flight.caller else {
            return (Some(flight.told(Err(error))), Vec::new());
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
        self.get(id).is_some_and(|flight| match &flight.caller {
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
            self.by_id.iter().filter(|(_, flight)| flight.home == Some(home)).map(|(id, _)| *id).collect();
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

impl Flight {
    fn told(self, answer: Answer) -> Answered {
        let Flight { rows, arrived, admitted, caller, .. } = self;
        match caller {
            Caller::Itself(reply) => Answered { answer, rows, arrived, admitted, reply },
            // Parts are answered by their whole; nobody holds the other end of this one.
            Caller::Whole(..) => Answered { answer, rows, arrived, admitted, reply: oneshot::channel().0 },
        }
    }
}

/// Turns submissions into flights: what depends on the signature is worked out once, at load.
#[derive(Debug)]
pub(crate) struct Door {
    inputs: usize,
    batched: bool,
    /// Every row of every input has the same size: all requests may share a batch.
    one_shape: bool,
    /// Most rows of one flight where requests share runs; a request of more is held in parts.
    rows_max: u32,
    /// The same where each has a run of its own: no limit, until more were found to break the worker.
    alone_rows_max: u32,
    /// Whether requests share runs.
    pub(crate) company: bool,
    pub(crate) padding: Option<Padding>,
    /// What no rows give; `None` where the shape of a row is not known before.
    nothing: Option<SmallVec<[Tensor; 2]>>,
}

impl Door {
    /// # Errors
    /// `InvalidInput` where the settings ask for a padding that the model can't have.
    pub(crate) fn new(signature: &Signature, settings: &ModelSettings) -> Result<Door> {
        let batched = signature.batched();
        let padding = settings.padding.as_ref().filter(|_| batched);
        Ok(Door {
            inputs: signature.inputs.len(),
            batched,
            one_shape: signature.inputs.iter().all(|input| input.shape.iter().skip(1).all(|dim| *dim >= 0)),
            rows_max: settings.batch_rows_max.max(1),
            alone_rows_max: u32::MAX,
            company: batched,
            padding: padding.map(|padding| Padding::new(padding, signature)).transpose()?,
            nothing: nothing(signature).filter(|_| signature.answers_no_rows()),
        })
    }

    /// Most rows of one flight at the moment.
    pub(crate) fn rows_max(&self) -> u32 {
        if self.company { self.rows_max } else { self.alone_rows_max }
    }

    /// Larger batches were found to break the worker.
    pub(crate) fn limit_rows(&mut self, rows: u32) {
        self.rows_max = self.rows_max.min(rows.max(1));
        if self.batched {
            self.alone_rows_max = self.alone_rows_max.min(rows.max(1));
        }
    }

    /// What requests of these inputs may share a batch with.
    pub(crate) fn shape_of(&self, inputs: &[Tensor], rows: u32, bytes: usize, length: u64) -> ShapeKey {
        self.shape(RequestId(0), inputs, rows, self.bucket(rows, bytes, length))
    }

    /// The outputs of a request without rows, where the signature says what they are.
    pub(crate) fn nothing(&self) -> Option<SmallVec<[Tensor; 2]>> {
        self.nothing.clone()
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
        let Submission { id, request, reply, parts } = submission;
        let rows = self.rows(&request);
        let mut flight = Flight {
            bytes: request.inputs.iter().map(|input| input.data.len()).sum(),
            rows: 0,
            length: 0,
            inputs: request.inputs,
            arrived: request.arrived,
            admitted: now,
            timeout: request.timeout,
            home: request.home,
            parts,
            caller: Caller::Itself(reply),
        };
        flight.rows = match rows {
            Ok(rows) => rows,
            Err(error) => return Err(Box::new((flight, error))),
        };
        let size = match self.size(&mut flight) {
            Ok(size) => size,
            Err(error) => return Err(Box::new((flight, error))),
        };
        let arrival = Arrival {
            request: id,
            rows: flight.rows,
            bytes: flight.bytes,
            shape: self.shape(id, &flight.inputs, flight.rows, size),
            size,
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

    /// How large its rows are: by the length of what is padded, else by their bytes.
    fn size(&self, flight: &mut Flight) -> Result<SizeBucket> {
        if self.one_shape || flight.rows == 0 {
            return Ok(SizeBucket::default());
        }
        if let Some(padding) = &self.padding {
            flight.length = padding.length(&flight.inputs)?;
        }
        Ok(self.bucket(flight.rows, flight.bytes, flight.length))
    }

    fn bucket(&self, rows: u32, bytes: usize, length: u64) -> SizeBucket {
        if self.one_shape || rows == 0 {
            return SizeBucket::default();
        }
        let size = if self.padding.is_some() { length } else { bytes as u64 / u64::from(rows) };
        // Rounded up: the longest of a bucket is less than twice its shortest.
        SizeBucket((u64::BITS - size.saturating_sub(1).leading_zeros()) as u8)
    }

    fn shape(&self, id: RequestId, inputs: &[Tensor], rows: u32, size: SizeBucket) -> ShapeKey {
        if rows == 0 {
            // An empty request has no row to find its answer by: it runs alone.
            return ShapeKey(!id.0);
        }
        if self.one_shape {
            return ShapeKey(0);
        }
        let mut hasher = IdHasher::default();
        size.hash(&mut hasher);
        for (index, input) in inputs.iter().enumerate() {
            input.datatype.hash(&mut hasher);
            for (axis, dim) in input.shape.iter().enumerate().skip(1) {
                let any = self.padding.as_ref().is_some_and(|padding| padding.is_padded(index, axis));
                hasher.write_u64(if any { u64::MAX } else { *dim });
            }
        }
        // The upper half is left to the keys of empty requests.
        ShapeKey(hasher.finish() >> 1)
    }
}

fn nothing(signature: &Signature) -> Option<SmallVec<[Tensor; 2]>> {
    let empty = |spec: &inferd_types::TensorSpec| {
        let mut shape: Shape = SmallVec::from_slice(&[0]);
        for dim in spec.shape.iter().skip(1) {
            shape.push(u64::try_from(*dim).ok()?);
        }
        Some(Tensor { datatype: spec.datatype, shape, data: bytes::Bytes::new() })
    };
    signature.outputs.iter().map(empty).collect()
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

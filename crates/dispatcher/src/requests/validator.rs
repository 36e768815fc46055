//! Checks requests against the signature, and works out what the scheduler needs to know of them.
//!
//! Reads submissions, hands back requests in flight or the error that their callers get. What depends on the signature is
//! worked out once, at load. Knows nothing of queues, replicas or what is in flight.

use std::hash::{Hash, Hasher};

use inferd_scheduler::{Arrival, ShapeKey, SizeBucket};
use inferd_types::settings::ModelSettings;
use inferd_types::{Error, ErrorKind, InferRequest, RequestId, Result, Shape, Signature, Tensor, Time};
use smallvec::SmallVec;

use crate::intake::inbox::Submission;
use crate::requests::id_hasher::IdHasher;
use crate::requests::in_flight::InFlightRequest;
use crate::requests::padding::Padding;

/// See the module.
#[derive(Debug)]
pub(crate) struct RequestValidator {
    inputs: usize,
    batched: bool,
    /// Every row of every input has the same size: all requests may share a batch.
    one_shape: bool,
    /// Most rows of one request where requests share runs; a request of more is held in parts.
    rows_max: u32,
    /// The same where each has a run of its own: no limit, until more were found to break the worker.
    alone_rows_max: u32,
    /// Whether requests may share a run.
    pub(crate) shares_runs: bool,
    pub(crate) padding: Option<Padding>,
    /// What no rows give; `None` where the shape of a row is not known before.
    nothing: Option<SmallVec<[Tensor; 2]>>,
}

impl RequestValidator {
    /// # Errors
    /// `InvalidInput` where the settings ask for a padding that the model can't have.
    pub(crate) fn new(signature: &Signature, settings: &ModelSettings) -> Result<RequestValidator> {
        let batched = signature.batched();
        let padding = settings.padding.as_ref().filter(|_| batched);
        Ok(RequestValidator {
            inputs: signature.inputs.len(),
            batched,
            one_shape: signature.inputs.iter().all(|input| input.shape.iter().skip(1).all(|dim| *dim >= 0)),
            rows_max: settings.batch_rows_max.max(1),
            alone_rows_max: u32::MAX,
            shares_runs: batched,
            padding: padding.map(|padding| Padding::new(padding, signature)).transpose()?,
            nothing: nothing(signature).filter(|_| signature.answers_no_rows()),
        })
    }

    /// Most rows of one request at the moment.
    pub(crate) fn rows_max(&self) -> u32 {
        if self.shares_runs { self.rows_max } else { self.alone_rows_max }
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

    /// The request in flight and what the scheduler needs to know of it; or the caller's answer.
    ///
    /// # Errors
    /// `InvalidInput` where the inputs are not those of the signature or disagree about the number of rows.
    pub(crate) fn admit(
        &self,
        now: Time,
        submission: Submission,
    ) -> Result<(InFlightRequest, Arrival), Box<(InFlightRequest, Error)>> {
        let InferRequest { priority, tenant, due, .. } = submission.request;
        let (id, rows) = (submission.id, self.rows(&submission.request));
        let mut pending = InFlightRequest::new(now, submission);
        pending.rows = match rows {
            Ok(rows) => rows,
            Err(error) => return Err(Box::new((pending, error))),
        };
        let size = match self.size(&mut pending) {
            Ok(size) => size,
            Err(error) => return Err(Box::new((pending, error))),
        };
        let arrival = Arrival {
            request: id,
            rows: pending.rows,
            bytes: pending.bytes,
            shape: self.shape(id, &pending.inputs, pending.rows, size),
            size,
            priority,
            tenant,
            due,
            timeout: pending.timeout,
        };
        Ok((pending, arrival))
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
    fn size(&self, pending: &mut InFlightRequest) -> Result<SizeBucket> {
        if self.one_shape || pending.rows == 0 {
            return Ok(SizeBucket::default());
        }
        if let Some(padding) = &self.padding {
            pending.length = padding.length(&pending.inputs)?;
        }
        Ok(self.bucket(pending.rows, pending.bytes, pending.length))
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

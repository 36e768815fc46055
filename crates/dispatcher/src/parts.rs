//! Requests of more rows than run together: cut into parts, and put together again.
//!
//! Reads one request, hands back the parts' requests; reads their answers, hands back one. The parts are admitted as
//! one and fail as one. Knows nothing of where they run.

use bytes::{Bytes, BytesMut};
use inferd_types::{DataType, Error, ErrorKind, InferRequest, InferResponse, Result, Tensor, Timing};
use smallvec::SmallVec;

use crate::ticket::{Answer, Ticket};

/// The parts of `request`, each of at most `rows_max` rows, in order; `None` where it is no larger, or where its
/// inputs do not agree about the rows (which is found out at the model's door).
pub(crate) fn split(request: &InferRequest, rows_max: u32) -> Option<Vec<InferRequest>> {
    let rows = |tensor: &Tensor| tensor.shape.first().copied().unwrap_or(0);
    let total = request.inputs.first().map(rows)?;
    let rows_max = u64::from(rows_max.max(1));
    if total <= rows_max || request.inputs.iter().any(|input| rows(input) != total) {
        return None;
    }
    let mut inputs: Vec<Rows<'_>> = request.inputs.iter().map(Rows::new).collect();
    let mut parts = Vec::new();
    let mut left = total;
    while left > 0 {
        let take = left.min(rows_max);
        let inputs: Option<SmallVec<[Tensor; 2]>> = inputs.iter_mut().map(|rows| rows.take(take)).collect();
        let InferRequest { arrived, timeout, priority, tenant, due, .. } = *request;
        parts.push(InferRequest { inputs: inputs?, arrived, timeout, priority, tenant, due });
        left -= take;
    }
    Some(parts)
}

/// The rows of a tensor that are left.
struct Rows<'a> {
    tensor: &'a Tensor,
    data: Bytes,
}

impl<'a> Rows<'a> {
    fn new(tensor: &'a Tensor) -> Rows<'a> {
        Rows { tensor, data: tensor.data.clone() }
    }

    /// The next `rows`; `None` where the bytes are not those of its shape.
    fn take(&mut self, rows: u64) -> Option<Tensor> {
        let mut shape = self.tensor.shape.clone();
        *shape.first_mut()? = rows;
        let elements = shape.iter().try_fold(1u64, |all, dim| all.checked_mul(*dim))?;
        let length = match self.tensor.datatype {
            DataType::Bytes => texts(&self.data, elements)?,
            fixed => usize::try_from(elements).ok()?.checked_mul(fixed.size()?)?,
        };
        if length > self.data.len() {
            return None;
        }
        Some(Tensor { datatype: self.tensor.datatype, shape, data: self.data.split_to(length) })
    }
}

/// The length of the first `count` elements of BYTES data: each its length in four bytes, then itself.
fn texts(data: &[u8], count: u64) -> Option<usize> {
    let mut rest = data;
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk::<4>()?;
        rest = after.get(u32::from_le_bytes(*length) as usize..)?;
    }
    Some(data.len() - rest.len())
}

/// The answer to all parts; the first error of one, which cancels those after it.
pub(crate) async fn join(tickets: Vec<Ticket>) -> Answer {
    let mut parts = Vec::with_capacity(tickets.len());
    // They run whether they are awaited or not, so the order costs nothing.
    for ticket in tickets {
        parts.push(ticket.await?);
    }
    together(parts)
}

fn together(parts: Vec<InferResponse>) -> Answer {
    let Some(first) = parts.first() else {
        return Err(Error::new(ErrorKind::Internal, "a request was cut into no parts"));
    };
    let mut outputs = SmallVec::new();
    for output in 0..first.outputs.len() {
        outputs.push(concatenated(&parts, output)?);
    }
    let timing = parts.iter().map(|part| part.timing).reduce(over_all).unwrap_or_default();
    Ok(InferResponse { outputs, timing, replica: first.replica, steps: Vec::new() })
}

fn concatenated(parts: &[InferResponse], output: usize) -> Result<Tensor> {
    let mut tensors = parts.iter().filter_map(|part| part.outputs.get(output));
    let Some(first) = tensors.next() else {
        return Err(Error::new(ErrorKind::Internal, "the parts of a request gave no output"));
    };
    let (mut shape, mut data) = (first.shape.clone(), BytesMut::from(&first.data[..]));
    for tensor in tensors {
        if tensor.shape.get(1..) != shape.get(1..) {
            return Err(Error::new(
                ErrorKind::ModelFailed,
                "the request was run in parts, and the model gave them outputs of different shapes; send fewer rows at \
                 once, or raise batch_rows_max",
            ));
        }
        if let (Some(rows), Some(more)) = (shape.first_mut(), tensor.shape.first()) {
            *rows += more;
        }
        data.extend_from_slice(&tensor.data);
    }
    Ok(Tensor { datatype: first.datatype, shape, data: data.freeze() })
}

/// From the first part's hand-over to the last one's end.
fn over_all(one: Timing, other: Timing) -> Timing {
    Timing {
        staged: one.staged.min(other.staged),
        started: one.started.min(other.started),
        finished: one.finished.max(other.finished),
        execution: one.execution.max(other.execution),
        batch_rows: one.batch_rows.max(other.batch_rows),
    }
}

#[cfg(test)]
mod tests {
    use inferd_types::ReplicaId;

    use super::*;

    fn tensor(datatype: DataType, shape: &[u64], data: Vec<u8>) -> Tensor {
        Tensor::new(datatype, shape.iter().copied().collect(), data.into()).expect("data of this shape")
    }

    fn numbers(shape: &[u64]) -> Tensor {
        let count = shape.iter().product::<u64>();
        tensor(DataType::Int32, shape, (0..count).flat_map(|number| (number as i32).to_le_bytes()).collect())
    }

    fn words(words: &[&str]) -> Tensor {
        let data = words.iter().flat_map(|word| {
            (word.len() as u32).to_le_bytes().into_iter().chain(word.bytes()).collect::<Vec<_>>()
        });
        tensor(DataType::Bytes, &[words.len() as u64, 1], data.collect())
    }

    fn request(inputs: impl IntoIterator<Item = Tensor>) -> InferRequest {
        InferRequest { inputs: inputs.into_iter().collect(), ..InferRequest::default() }
    }

    #[test]
    fn what_fits_is_not_cut() {
        assert!(split(&request([numbers(&[4, 3])]), 4).is_none());
        assert!(split(&request([numbers(&[9, 3]), numbers(&[8, 3])]), 4).is_none());
    }

    #[test]
    fn rows_come_back_in_their_order_whatever_they_are_made_of() {
        let whole = request([numbers(&[5, 3]), words(&["a", "", "long word", "d", "e"])]);
        let parts = split(&whole, 2).expect("five rows are more than two");
        assert_eq!(parts.iter().map(|part| part.inputs[0].shape[0]).collect::<Vec<_>>(), [2, 2, 1]);
        let answered = |part: InferRequest| InferResponse {
            outputs: part.inputs,
            timing: Timing::default(),
            replica: ReplicaId(0),
            steps: Vec::new(),
        };
        let response = together(parts.into_iter().map(answered).collect()).expect("equal shapes");
        for (output, input) in response.outputs.iter().zip(&whole.inputs) {
            assert_eq!((&output.shape, &output.data), (&input.shape, &input.data));
        }
    }

    #[test]
    fn outputs_that_can_not_be_one_tensor_are_an_error() {
        let part = |shape: &[u64]| InferResponse {
            outputs: [numbers(shape)].into_iter().collect(),
            timing: Timing::default(),
            replica: ReplicaId(0),
            steps: Vec::new(),
        };
        let error = together(vec![part(&[2, 3]), part(&[1, 4])]).unwrap_err();
        assert!(error.kind() == ErrorKind::ModelFailed && error.message().contains("batch_rows_max"));
    }
}

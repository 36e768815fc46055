//! Requests of more rows than run together: cut into parts on the way in, put together on the way out.
//!
//! Reads inputs and the answers to their parts, hands back inputs of fewer rows and one answer. Functions of values.
//! Knows nothing of when or where the parts run.

use bytes::{Bytes, BytesMut};
use inferd_types::{
    Error, ErrorKind, InferResponse, RequestId, Result, Tensor, Time, Timing, bytes_prefix, element_count,
};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::intake::inbox::InferResult;

/// One request whose parts are requests in flight of their own.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) reply: oneshot::Sender<InferResult>,
    pub(crate) rows: u32,
    /// Rows of each part but the last.
    part_rows: u32,
    pub(crate) arrived: Time,
    pub(crate) admitted: Time,
    /// Its parts, in the order of their rows.
    pub(crate) ids: Vec<RequestId>,
    /// What they brought so far.
    answers: Vec<Option<InferResponse>>,
}

impl Whole {
    pub(crate) fn new(
        reply: oneshot::Sender<InferResult>,
        (rows, part_rows): (u32, u32),
        arrived: Time,
        admitted: Time,
        ids: Vec<RequestId>,
    ) -> Whole {
        let answers = ids.iter().map(|_| None).collect();
        Whole { reply, rows, part_rows, arrived, admitted, ids, answers }
    }

    /// The number of the first row of a part.
    pub(crate) fn first_row(&self, index: usize) -> u64 {
        index as u64 * u64::from(self.part_rows)
    }

    /// Keeps the answer of one part; true when it was the last.
    pub(crate) fn keep(&mut self, index: usize, answer: InferResponse) -> bool {
        if let Some(place) = self.answers.get_mut(index) {
            *place = Some(answer);
        }
        self.answers.iter().all(Option::is_some)
    }

    /// The caller and its answer, once every part has brought its own.
    pub(crate) fn join(self) -> (oneshot::Sender<InferResult>, InferResult) {
        (self.reply, join(self.answers.into_iter().flatten().collect()))
    }
}

/// `inputs` of `rows` rows, which are at least one, as parts of at most `rows_max`. Shares their bytes.
pub(crate) fn cut(inputs: &[Tensor], rows: u32, rows_max: u32) -> Vec<(u32, SmallVec<[Tensor; 2]>)> {
    let sizes = (0..rows.div_ceil(rows_max)).map(|part| rows_max.min(rows - part * rows_max));
    let mut parts: Vec<_> = sizes.map(|rows| (rows, SmallVec::new())).collect();
    for input in inputs {
        let row_elements = element_count(input.shape.get(1..).unwrap_or_default()).unwrap_or(0);
        let row_bytes = input.data.len() / rows as usize;
        let mut start = 0;
        for (rows, part) in &mut parts {
            let len = match input.datatype.size() {
                Some(_) => row_bytes * *rows as usize,
                None => bytes_prefix(&input.data[start..], row_elements * u64::from(*rows)),
            };
            let mut shape = input.shape.clone();
            shape[0] = u64::from(*rows);
            let data = input.data.slice(start..start + len);
            part.push(Tensor { datatype: input.datatype, shape, data });
            start += len;
        }
    }
    parts
}

fn join(answers: Vec<InferResponse>) -> InferResult {
    let mut answers = answers.into_iter();
    let Some(mut whole) = answers.next() else {
        return Err(Error::new(ErrorKind::Internal, "a request in parts has none; report this"));
    };
    let rest: Vec<InferResponse> = answers.collect();
    for (index, output) in whole.outputs.iter_mut().enumerate() {
        join_output(index, output, &rest)?;
    }
    for part in &rest {
        whole.timing = together(whole.timing, part.timing);
        whole.replica = part.replica;
    }
    Ok(whole)
}

fn join_output(index: usize, whole: &mut Tensor, rest: &[InferResponse]) -> Result<()> {
    let mut data = BytesMut::with_capacity(whole.data.len() * (rest.len() + 1));
    data.extend_from_slice(&whole.data);
    for part in rest {
        let same = |part: &&Tensor| part.datatype == whole.datatype && part.shape[1..] == whole.shape[1..];
        let Some(part) = part.outputs.get(index).filter(same) else {
            return Err(Error::new(
                ErrorKind::ModelFailed,
                format!(
                    "output {index} has rows of another shape in one part of the request than in another, so they \
                     make no tensor; send at most batch_rows_max rows at once"
                ),
            ));
        };
        data.extend_from_slice(&part.data);
        whole.shape[0] += part.shape[0];
    }
    whole.data = Bytes::from(data);
    Ok(())
}

/// From the first hand-over to the last end; parts that ran at the same time are counted both.
fn together(one: Timing, other: Timing) -> Timing {
    Timing {
        staged: one.staged.min(other.staged),
        started: one.started.min(other.started),
        finished: one.finished.max(other.finished),
        execution: one.execution.saturating_add(other.execution),
        batch_rows: one.batch_rows.max(other.batch_rows),
    }
}

#[cfg(test)]
mod tests {
    use inferd_types::{DataType, MISSING, ReplicaId};
    use proptest::prelude::*;

    use super::*;

    fn answer(outputs: SmallVec<[Tensor; 2]>) -> InferResponse {
        InferResponse { outputs, timing: Timing::default(), replica: ReplicaId(1), steps: Vec::new() }
    }

    fn numbers(rows: u64, width: u64) -> Tensor {
        let data: Vec<u8> = (0..rows * width * 2).map(|byte| byte as u8).collect();
        Tensor::new(DataType::Int16, [rows, width].into_iter().collect(), data.into()).unwrap()
    }

    /// Some of them missing.
    fn words(rows: u64) -> Tensor {
        let data = (0..rows).flat_map(|row| match row % 7 {
            6 => MISSING.to_le_bytes().to_vec(),
            length => [(length as u32).to_le_bytes().to_vec(), vec![b'x'; length as usize]].concat(),
        });
        let shape = [rows, 1].into_iter().collect();
        Tensor::with_missing(DataType::Bytes, shape, data.collect::<Vec<u8>>().into()).unwrap()
    }

    proptest! {
        #[test]
        fn what_was_cut_is_whole_again_when_put_together(rows in 1u32..70, max in 1u32..40, width in 0u64..4) {
            let inputs = [numbers(rows.into(), width), words(rows.into())];
            let parts = cut(&inputs, rows, max);
            prop_assert!(parts.iter().all(|(rows, _)| (1..=max).contains(rows)));
            for (rows, tensors) in &parts {
                for tensor in tensors {
                    prop_assert_eq!(tensor.shape[0], u64::from(*rows));
                    Tensor::with_missing(tensor.datatype, tensor.shape.clone(), tensor.data.clone()).unwrap();
                }
            }
            let joined = join(parts.into_iter().map(|(_, tensors)| answer(tensors)).collect()).unwrap();
            prop_assert_eq!(&joined.outputs[..], &inputs[..]);
        }
    }

    #[test]
    fn parts_whose_rows_have_other_shapes_are_an_error_and_not_a_tensor() {
        let parts = vec![
            answer([numbers(2, 3)].into_iter().collect()),
            answer([numbers(2, 4)].into_iter().collect()),
        ];
        assert_eq!(join(parts).unwrap_err().kind(), ErrorKind::ModelFailed);
    }

    #[test]
    fn a_whole_is_complete_with_its_last_part_in_whatever_order_they_come() {
        let (reply, _caller) = oneshot::channel();
        let mut whole = Whole::new(reply, (4, 3), Time::ZERO, Time::ZERO, vec![RequestId(1), RequestId(2)]);
        assert_eq!(whole.first_row(1), 3);
        assert!(!whole.keep(1, answer([numbers(1, 2)].into_iter().collect())));
        assert!(whole.keep(0, answer([numbers(3, 2)].into_iter().collect())));
        assert_eq!(whole.join().1.unwrap().outputs[0].shape[..], [4, 2]);
    }
}

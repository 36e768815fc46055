//! The outputs of a batch, copied out of the arena and divided among its requests.
//!
//! Reads located outputs, hands on one tensor per output and request, all slices of a single allocation. Knows
//! nothing of slots: the worker may already be overwriting them.

use bytes::Bytes;
use inferd_types::{
    DataType, Error, ErrorKind, Result, Shape, Tensor, bytes_elements, bytes_prefix, element_count,
};
use smallvec::SmallVec;

use crate::descriptor::{Fault, Located};
use crate::layout::with_rows;

/// The outputs of one batch, copied out of the arena and checked against the signature.
#[derive(Debug)]
pub struct Outputs {
    data: Bytes,
    tensors: SmallVec<[Output; 2]>,
    rows: u32,
    batched: bool,
}

#[derive(Debug)]
struct Output {
    datatype: DataType,
    shape: Shape,
    /// First byte in `data`.
    start: usize,
    len: usize,
}

impl Outputs {
    /// Takes `data`, the concatenation of the located outputs.
    pub(crate) fn new(
        data: Vec<u8>,
        located: &[Located],
        rows: u32,
        batched: bool,
    ) -> Result<Outputs, Fault> {
        let mut start = 0;
        let mut tensors = SmallVec::with_capacity(located.len());
        for (index, output) in located.iter().enumerate() {
            let (datatype, len) = (output.datatype, output.len);
            if datatype == DataType::Bytes {
                // Counted in our copy: in the arena the lengths could change between check and use.
                let found = bytes_elements(&data[start..start + len], false).ok();
                if found != element_count(&output.shape).ok() {
                    let shape = &output.shape[..];
                    return Err(Fault::Model(format!(
                        "output {index}: BYTES element count does not match its shape {shape:?}"
                    )));
                }
            }
            tensors.push(Output { datatype, shape: output.shape.clone(), start, len });
            start += len;
        }
        Ok(Outputs { data: Bytes::from(data), tensors, rows, batched })
    }

    /// The end of a batch whose responses have all been taken.
    pub(crate) fn none() -> Outputs {
        Outputs { data: Bytes::new(), tensors: SmallVec::new(), rows: 1, batched: false }
    }

    /// Rows of the batch; 1 for a model that is not batched.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Divides the rows among the requests, in the order in which they were staged and appended. A model that is
    /// not batched has one request, which gets everything, whatever its number of rows.
    ///
    /// # Errors
    /// `Internal` if the rows don't add up to those of the batch.
    pub fn split(&self, rows: &[u32]) -> Result<Vec<SmallVec<[Tensor; 2]>>> {
        let sum: u64 = rows.iter().map(|rows| u64::from(*rows)).sum();
        let fits = if self.batched { sum == u64::from(self.rows) } else { rows.len() == 1 };
        if !fits {
            let message = "the outputs of a batch don't add up to its requests";
            let detail = format!("{} rows for requests of {rows:?}", self.rows);
            return Err(Error::new(ErrorKind::Internal, message).with_detail(detail));
        }
        if rows.len() == 1 {
            let whole = |output: &Output| self.tensor(output, output.shape.clone(), output.start, output.len);
            return Ok(vec![self.tensors.iter().map(whole).collect()]);
        }
        let mut answers: Vec<SmallVec<[Tensor; 2]>> =
            rows.iter().map(|_| SmallVec::with_capacity(self.tensors.len())).collect();
        for output in &self.tensors {
            let mut start = output.start;
            let row_bytes = output.len.checked_div(self.rows as usize).unwrap_or(0);
            // Elements of one row, if they have to be counted.
            let row_elements = element_count(&output.shape[1..]).unwrap_or(0);
            for (answer, rows) in answers.iter_mut().zip(rows) {
                let len = match output.datatype {
                    DataType::Bytes => bytes_prefix(&self.data[start..], row_elements * u64::from(*rows)),
                    _ => row_bytes * *rows as usize,
                };
                answer.push(self.tensor(output, with_rows(&output.shape, *rows), start, len));
                start += len;
            }
        }
        Ok(answers)
    }

    fn tensor(&self, output: &Output, shape: Shape, start: usize, len: usize) -> Tensor {
        Tensor { datatype: output.datatype, shape, data: self.data.slice(start..start + len) }
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    fn located(datatype: DataType, shape: Shape, len: usize) -> Located {
        Located { datatype, shape, segment: 0, offset: 0, len }
    }

    #[test]
    fn every_request_gets_its_own_rows_of_every_output() {
        let outputs =
            [located(DataType::Uint16, smallvec![3, 2], 12), located(DataType::Bytes, smallvec![3, 1], 15)];
        let mut data: Vec<u8> = (0..12).collect();
        data.extend(b"\x01\0\0\0a\0\0\0\0\x02\0\0\0bc");
        let outputs = Outputs::new(data, &outputs, 3, true).unwrap();
        let answers = outputs.split(&[1, 2]).unwrap();
        assert_eq!(answers[0][0].data, [0, 1, 2, 3][..]);
        assert_eq!(&answers[0][0].shape[..], [1, 2]);
        assert_eq!(answers[1][0].data, (4..12).collect::<Vec<u8>>());
        assert_eq!(answers[0][1].data, b"\x01\0\0\0a"[..]);
        assert_eq!(answers[1][1].data, b"\0\0\0\0\x02\0\0\0bc"[..]);
        assert_eq!(&answers[1][1].shape[..], [2, 1]);
        assert!(outputs.split(&[1, 1]).is_err());
        assert!(outputs.split(&[u32::MAX, 4]).is_err());
    }

    #[test]
    fn a_model_that_is_not_batched_gives_all_to_its_one_request() {
        let outputs =
            Outputs::new(vec![7; 5], &[located(DataType::Uint8, smallvec![5], 5)], 1, false).unwrap();
        assert_eq!(&outputs.split(&[9]).unwrap()[0][0].shape[..], [5]);
        assert!(outputs.split(&[1, 1]).is_err());
    }

    #[test]
    fn bytes_with_wrong_lengths_fail_the_batch() {
        let output = [located(DataType::Bytes, smallvec![1], 5)];
        assert!(Outputs::new(b"\x09\0\0\0a".to_vec(), &output, 1, true).is_err());
        assert!(Outputs::new(b"\0\0\0\0\0".to_vec(), &output, 1, true).is_err());
    }

    #[test]
    fn no_rows_give_no_rows() {
        let outputs = Outputs::new(vec![], &[located(DataType::Fp32, smallvec![0, 4], 0)], 0, true).unwrap();
        assert_eq!(outputs.split(&[0, 0]).unwrap().len(), 2);
    }
}

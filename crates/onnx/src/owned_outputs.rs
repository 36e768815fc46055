//! Outputs in memory of their own, for runs at load.
//!
//! Reads the shapes of outputs, hands on tensors. Knows nothing of what was run.

use inferd_types::{DataType, Error, ErrorKind, Result, Shape, Tensor};

use crate::outputs::Outputs;
use crate::values::byte_count;

/// Fill byte of output memory, to detect whether the runtime wrote to it.
const UNTOUCHED: u8 = 0xa5;

/// Outputs in memory of their own.
pub(crate) struct OwnedOutputs {
    tensors: Vec<Option<(DataType, Shape, Vec<u8>)>>,
}

impl OwnedOutputs {
    pub(crate) fn new(count: usize) -> OwnedOutputs {
        OwnedOutputs { tensors: vec![None; count] }
    }

    fn hold(&mut self, index: usize, datatype: DataType, shape: &[u64], len: usize) -> *mut u8 {
        self.tensors[index].insert((datatype, shape.into(), vec![UNTOUCHED; len])).2.as_mut_ptr()
    }

    /// For each output, whether the runtime did not write to it.
    pub(crate) fn untouched(&self) -> Vec<bool> {
        let nothing = |data: &[u8]| !data.is_empty() && data.iter().all(|byte| *byte == UNTOUCHED);
        self.tensors.iter().map(|tensor| tensor.as_ref().is_some_and(|tensor| nothing(&tensor.2))).collect()
    }

    /// The outputs, if each was given.
    pub(crate) fn tensors(self) -> Result<Vec<Tensor>> {
        let missing = || Error::new(ErrorKind::ModelFailed, "the model gave no value for an output");
        self.tensors
            .into_iter()
            .map(|tensor| {
                let (datatype, shape, data) = tensor.ok_or_else(missing)?;
                Tensor::new(datatype, shape, data.into())
            })
            .collect()
    }
}

// SAFETY: each output has a vector of its own, as long as the tensor, which is not accessed before the run is over.
// The allocator aligns such vectors for every element type.
unsafe impl Outputs for OwnedOutputs {
    fn place(&mut self, index: usize, datatype: DataType, shape: &[u64]) -> Result<*mut u8> {
        let len = byte_count(datatype, shape)?;
        Ok(self.hold(index, datatype, shape, len))
    }

    fn place_bytes(&mut self, index: usize, shape: &[u64], len: usize) -> Result<*mut u8> {
        Ok(self.hold(index, DataType::Bytes, shape, len))
    }
}

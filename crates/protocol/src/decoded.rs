//! A decoded inference request.

use bytes::Bytes;
use inferd_types::{DataType, Error, ErrorKind, Result, Signature, Tensor};
use smallvec::SmallVec;

use crate::options::RequestOptions;
use crate::region::OutsideInput;

/// An inference request that matches the signature it was decoded for.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The client's id of the request; the response repeats it.
    pub id: Option<String>,
    /// Every input of the signature, in its order.
    pub inputs: SmallVec<[Tensor; 2]>,
    /// Inputs in shared memory, whose data [`Decoded::fill`] must add.
    pub outside: Vec<OutsideInput>,
    /// Size in bytes of inputs that were sent in a narrower type: at most eight times what was sent.
    pub widened_bytes: usize,
    /// The request's options.
    pub options: RequestOptions,
}

impl Decoded {
    /// Whether an input or output is in shared memory.
    pub fn uses_regions(&self) -> bool {
        !self.outside.is_empty() || !self.options.placed.is_empty()
    }

    /// Sets the data of the input at `index` from shared memory, in elements of `sent`.
    ///
    /// # Errors
    /// As for data in the request.
    pub fn fill(&mut self, signature: &Signature, index: usize, sent: DataType, data: Bytes) -> Result<()> {
        let Some(tensor) = self.inputs.get_mut(index).filter(|_| index < signature.inputs.len()) else {
            return Err(Error::new(ErrorKind::Internal, "an input in shared memory has an unknown index"));
        };
        *tensor = signature.input(index).receive(sent, tensor.shape.clone(), data)?;
        Ok(())
    }
}

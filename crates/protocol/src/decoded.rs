//! An inference request as it is once its body was read.

use bytes::Bytes;
use inferd_types::{DataType, Error, ErrorKind, Result, Signature, Tensor};
use smallvec::SmallVec;

use crate::options::RequestOptions;
use crate::region::OutsideInput;

/// An inference request that fits the signature it was decoded for.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// What the client calls the request; the answer carries it again.
    pub id: Option<String>,
    /// Every input of the signature, in its order.
    pub inputs: SmallVec<[Tensor; 2]>,
    /// Inputs whose bytes are still to be read, and given to [`Decoded::fill`].
    pub outside: Vec<OutsideInput>,
    /// What inputs take that were sent in a narrower type: at most eight times what was sent of them.
    pub widened_bytes: usize,
    /// What the client wishes besides.
    pub options: RequestOptions,
}

impl Decoded {
    /// Whether any of its tensors is or shall be in shared memory.
    pub fn uses_regions(&self) -> bool {
        !self.outside.is_empty() || !self.options.placed.is_empty()
    }

    /// Takes over the bytes of the input at `index`, which stood outside, in elements of `sent`.
    ///
    /// # Errors
    /// As for bytes that came in the request.
    pub fn fill(&mut self, signature: &Signature, index: usize, sent: DataType, data: Bytes) -> Result<()> {
        let Some(tensor) = self.inputs.get_mut(index).filter(|_| index < signature.inputs.len()) else {
            return Err(Error::new(ErrorKind::Internal, "an input outside the request has no place in it"));
        };
        *tensor = signature.input(index).receive(sent, tensor.shape.clone(), data)?;
        Ok(())
    }
}

//! What a batch gave: stub of the public surface.
use inferd_types::{Result, Tensor};
use smallvec::SmallVec;

/// The outputs of one batch, copied out of the arena and checked against the signature.
#[derive(Debug)]
pub struct Outputs {}

impl Outputs {
    /// Rows of the batch; 1 for a model that is not batched.
    pub fn rows(&self) -> u32 {
        todo!()
    }

    /// Gives each request its rows, in the order in which they were staged (appended ones after).
    /// A model that is not batched has one request, which gets everything, whatever its number says.
    ///
    /// # Errors
    /// `Internal` when the rows don't add up to those of the batch.
    pub fn split(&self, rows: &[u32]) -> Result<Vec<SmallVec<[Tensor; 2]>>> {
        let _ = rows;
        todo!()
    }
}

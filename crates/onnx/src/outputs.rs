//! Where a run's outputs go: memory that whoever runs the model has.

use inferd_types::{DataType, Result};

/// Where outputs go.
///
/// # Safety
/// Each address that is returned must have room for the tensor, be aligned for its type, and stay valid until
/// the run is over.
pub unsafe trait Outputs {
    /// Room for output `index`. May be called again for the same output, with another shape; the last call counts.
    ///
    /// # Errors
    /// Where there is no room; the run ends with this error.
    fn place(&mut self, index: usize, datatype: DataType, shape: &[u64]) -> Result<*mut u8>;

    /// Room for `len` bytes of an output of BYTES.
    ///
    /// # Errors
    /// Where there is no room; the run ends with this error.
    fn place_bytes(&mut self, index: usize, shape: &[u64], len: usize) -> Result<*mut u8>;
}

//! The destination of a run's outputs: memory of the caller.

use inferd_types::{DataType, Result};

/// Provides memory for outputs.
///
/// # Safety
/// Each returned address must have room for the tensor, be aligned for its type, and stay valid until the run is
/// over.
pub unsafe trait Outputs {
    /// Memory for output `index`. May be called again for the same output, with another shape; the last call
    /// counts.
    ///
    /// # Errors
    /// If there is no room; the run ends with this error.
    fn place(&mut self, index: usize, datatype: DataType, shape: &[u64]) -> Result<*mut u8>;

    /// Memory for `len` bytes of an output of BYTES.
    ///
    /// # Errors
    /// If there is no room; the run ends with this error.
    fn place_bytes(&mut self, index: usize, shape: &[u64], len: usize) -> Result<*mut u8>;
}

//! Stub of the public surface.
use std::time::Duration;

use inferd_types::{DataType, ErrorKind, Result, Shape};

/// One input of a batch, in the arena. Valid until the batch ends.
#[derive(Clone, Debug)]
pub struct View {
    /// The element type.
    pub datatype: DataType,
    /// The dimensions; dimension 0 is the batch's rows for a batched model.
    pub shape: Shape,
    /// The first byte; aligned to 64.
    pub ptr: *const u8,
    /// Number of bytes.
    pub len: usize,
}

/// A batch that this worker has taken. `Send`. Dropping it without an answer fails it.
#[derive(Debug)]
pub struct Batch {}

impl Batch {
    /// Which of the arena's two slots it is in: together with `rows` and the addresses of inputs and outputs a key
    /// under which bindings may be cached.
    pub fn slot(&self) -> usize {
        todo!()
    }

    /// Rows; 1 for a model that is not batched.
    pub fn rows(&self) -> u32 {
        todo!()
    }

    /// The inputs in the signature's order.
    pub fn inputs(&self) -> &[View] {
        todo!()
    }

    /// Room for output `index` (the signature's order), aligned to 64, valid until the batch ends: fill all of it.
    /// Where the output's shape is fixed this is the same address for every batch in this slot. May ask the
    /// gateway for more room and wait for it.
    ///
    /// # Errors
    /// When the output would not fit into `arena_max_bytes`, there is no such output, or `datatype` is BYTES.
    pub fn output(&mut self, index: usize, datatype: DataType, shape: &[u64]) -> Result<*mut u8> {
        let _ = (index, datatype, shape);
        todo!()
    }

    /// The same for a BYTES output: `len` bytes for elements that are each behind their length.
    ///
    /// # Errors
    /// As [`Batch::output`].
    pub fn output_bytes(&mut self, index: usize, shape: &[u64], len: usize) -> Result<*mut u8> {
        let _ = (index, shape, len);
        todo!()
    }

    /// Hands the outputs over. `execution` is what the run itself took.
    pub fn finish(self, execution: Duration) {
        let _ = execution;
        todo!()
    }

    /// Says that the batch failed: `InvalidInput` or `ModelFailed` (which every other kind becomes), `message` for
    /// clients (cut at 2 KiB), `detail` for the log (cut at 14 KiB).
    pub fn fail(self, kind: ErrorKind, message: &str, detail: &str) {
        let _ = (kind, message, detail);
        todo!()
    }
}

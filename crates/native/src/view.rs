//! A stretch of the arena as a Python buffer. The one file of this crate with `unsafe`.
//!
//! Reads an address and a length from `transport`, hands on an object that `memoryview` and numpy read and write in
//! place. Knows nothing of shapes or datatypes: bytes only.
#![allow(
    unsafe_code,
    reason = "the buffer protocol is a struct of raw pointers; every block says why it is sound"
)]

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use inferd_transport::worker::Batch;
use inferd_types::Result;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;

/// Bytes that live in the arena. Writable: the memory is this worker's to spoil until the batch ends, and what the
/// gateway needs again (the inputs, for a second run) it has kept.
#[pyclass(frozen, module = "inferd._native")]
pub(crate) struct ArenaView {
    address: usize,
    len: usize,
    /// Keeps the memory mapped for as long as an array over it lives, which may be longer than the batch.
    memory: Arc<dyn Any + Send + Sync>,
}

impl ArenaView {
    /// A memoryview of the `len` bytes at `start`, which `memory` keeps mapped.
    pub(crate) fn memoryview<'py>(
        py: Python<'py>,
        start: *const u8,
        len: usize,
        memory: Arc<dyn Any + Send + Sync>,
    ) -> PyResult<Bound<'py, PyMemoryView>> {
        let view = Bound::new(py, ArenaView { address: start.expose_provenance(), len, memory })?;
        PyMemoryView::from(view.as_any())
    }
}

/// Writes `data`, elements behind their lengths, as output `index` of `batch`.
pub(crate) fn write_bytes_output(batch: &mut Batch, index: usize, shape: &[u64], data: &[u8]) -> Result<()> {
    let target = batch.output_bytes(index, shape, data.len())?;
    // SAFETY: `output_bytes` gave room for `data.len()` bytes that stays valid until the batch ends, and the batch is
    // borrowed here. `data` is memory of Python, which the arena never overlaps.
    unsafe { ptr::copy_nonoverlapping(data.as_ptr(), target, data.len()) };
    Ok(())
}

#[pymethods]
impl ArenaView {
    // SAFETY: Python calls this with a `view` it owns, and calls it with the GIL held.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no place to describe the buffer"));
        }
        let this = slf.get();
        debug_assert!(Arc::strong_count(&this.memory) > 0);
        let start: *mut c_void = ptr::with_exposed_provenance_mut(this.address);
        // A length beyond isize can't be mapped.
        let len = isize::try_from(this.len).map_err(|_| PyBufferError::new_err("the view is too long"))?;
        // SAFETY: `view` is valid for writes (checked not null above, given by the interpreter). `start` points to
        // `len` mapped bytes: `memory` keeps them mapped while `slf` lives, and the filled view holds `slf`.
        let status = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, len, 0, flags) };
        if status == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

//! `inferd._native`: the data plane and the worker's channel as Python sees them.
//!
//! Reads settings as JSON from Python, hands back handles, JSON and exceptions of `inferd.errors`.
//! Knows nothing of what the settings mean: it converts, and calls.
#![deny(unsafe_code)]

use pyo3::prelude::*;

mod data_plane;
mod errors;
mod events;
mod logging;
mod runtime;
mod simulate;
mod view;
mod worker_channel;

// Rust's allocations only; Python and ONNX Runtime keep their own. It measured a third less time per gRPC request
// than the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The data plane and the worker's channel. Private: use ``inferd``.
#[pymodule(gil_used = true)]
mod _native {
    use pyo3::prelude::*;
    use pyo3::types::PyBytes;

    #[pymodule_export]
    use super::analyse_onnx;
    #[pymodule_export]
    use super::data_plane::DataPlane;
    #[pymodule_export]
    use super::end_descendants;
    #[pymodule_export]
    use super::errors::error_classes;
    #[pymodule_export]
    use super::logging::{flush_streams, write_stream};
    #[pymodule_export]
    use super::run_onnx_worker;
    #[pymodule_export]
    use super::simulate::simulate;
    #[pymodule_export]
    use super::worker_channel::{WorkerBatch, WorkerChannel};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        // The protocol as a FileDescriptorSet: Python makes its messages from it, so that there is one description.
        module.add("PROTOCOL", PyBytes::new(module.py(), inferd_protocol::pb::FILE_DESCRIPTOR_SET))
    }
}

/// Serve batches of an ONNX model until the gateway closes the channel. Never touches Python meanwhile.
///
/// Returns the exit status of the process.
#[pyfunction]
fn run_onnx_worker(py: Python<'_>, fd: i32) -> i32 {
    py.detach(|| inferd_onnx::run(fd))
}

/// End what the process ``worker`` started, which has ended and is not reaped; its descendants carry ``mark``.
#[pyfunction]
fn end_descendants(py: Python<'_>, worker: u32, mark: u64) {
    py.detach(|| inferd_transport::end_descendants(worker, mark.into()));
}

/// What the graph of an ONNX model says of rows that run together.
///
/// Returns "independent", "dependent" or "unknown", and why.
#[pyfunction]
fn analyse_onnx(model: &[u8]) -> (&'static str, String) {
    match inferd_onnx::verdict(model) {
        inferd_onnx::Verdict::Independent => ("independent", String::new()),
        inferd_onnx::Verdict::Dependent(how) => ("dependent", how),
        inferd_onnx::Verdict::Unknown(why) => ("unknown", why),
    }
}

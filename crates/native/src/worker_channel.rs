//! The worker's end of the channel, for runtimes that are written in Python.
//!
//! Reads batches from `transport`, hands them on as shapes and memoryviews over the arena, without a copy.
//! Knows nothing of numpy, and nothing of the model.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use inferd_transport::worker::{Batch, Channel};
use inferd_types::settings::LoadedModel;
use inferd_types::{DataType, Error, ErrorKind};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyMemoryView, PyTuple};

use crate::errors::{raise, raise_unreadable};
use crate::view::{ArenaView, write_bytes_output};

/// Datatype, shape, bytes.
type Input<'py> = (&'static str, Bound<'py, PyTuple>, Bound<'py, PyMemoryView>);

/// The channel of a worker process to the gateway.
#[pyclass(frozen, module = "inferd._native")]
pub(crate) struct WorkerChannel {
    // The lock is never waited for: a worker has one loop. It only makes the class safe to share.
    channel: Mutex<Option<Channel>>,
    load: String,
}

#[pymethods]
impl WorkerChannel {
    /// Take over the descriptor ``fd`` and wait for the model's settings.
    #[new]
    fn new(py: Python<'_>, fd: i32) -> PyResult<Self> {
        let channel = py.detach(|| Channel::from_fd(fd)).map_err(raise)?;
        let load = channel.load().to_string();
        Ok(WorkerChannel { channel: Mutex::new(Some(channel)), load })
    }

    /// What to load, as JSON.
    #[getter]
    fn load(&self) -> &str {
        &self.load
    }

    /// Say that the model is loaded (``{"signature": …, "facts": …}`` as JSON) and wait for the arena.
    fn loaded(&self, py: Python<'_>, model: &str) -> PyResult<()> {
        let model: LoadedModel =
            serde_json::from_str(model).map_err(|error| raise_unreadable("the signature", &error))?;
        py.detach(|| self.with(|channel| channel.loaded(&model))).map_err(raise)
    }

    /// Say that loading failed. The channel is closed by it.
    fn failed(&self, py: Python<'_>, message: &str, detail: &str) {
        py.detach(|| {
            if let Some(channel) = self.lock().take() {
                channel.failed(message, detail);
            }
        });
    }

    /// Wait for the next batch; ``None`` when there will be none.
    fn next(&self, py: Python<'_>) -> PyResult<Option<WorkerBatch>> {
        let batch = py.detach(|| self.with(Channel::next)).map_err(raise)?;
        Ok(batch.map(|batch| WorkerBatch { rows: batch.rows(), batch: Mutex::new(Some(batch)) }))
    }
}

impl WorkerChannel {
    fn lock(&self) -> MutexGuard<'_, Option<Channel>> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Channel) -> Result<T, Error>) -> Result<T, Error> {
        match self.lock().as_mut() {
            Some(channel) => act(channel),
            None => Err(Error::new(ErrorKind::Internal, "the channel is closed")),
        }
    }
}

/// One batch, taken and not yet answered. Dropping it without an answer fails it.
#[pyclass(frozen, module = "inferd._native")]
pub(crate) struct WorkerBatch {
    /// Rows of all its requests; 1 where the model is not batched.
    #[pyo3(get)]
    rows: u32,
    batch: Mutex<Option<Batch>>,
}

#[pymethods]
impl WorkerBatch {
    /// The inputs in the signature's order: ``(datatype, shape, memoryview of bytes)``.
    fn inputs<'py>(&self, py: Python<'py>) -> PyResult<Vec<Input<'py>>> {
        let guard = self.lock();
        let batch = guard.as_ref().ok_or_else(answered)?;
        let memory = batch.memory();
        let convert = |view: &inferd_transport::worker::View| {
            let shape = PyTuple::new(py, view.shape.iter())?;
            let bytes = ArenaView::memoryview(py, view.ptr, view.len, memory.clone())?;
            Ok((view.datatype.name(), shape, bytes))
        };
        batch.inputs().iter().map(convert).collect()
    }

    /// Room for output ``index``: a writable memoryview of bytes. Fill all of it.
    fn output<'py>(
        &self,
        py: Python<'py>,
        index: usize,
        datatype: &str,
        shape: Vec<u64>,
    ) -> PyResult<Bound<'py, PyMemoryView>> {
        let datatype: DataType = datatype.parse().map_err(raise)?;
        let mut guard = self.lock();
        let batch = guard.as_mut().ok_or_else(answered)?;
        let size =
            datatype.size().ok_or_else(|| PyValueError::new_err("BYTES outputs go through output_bytes"))?;
        let count = inferd_types::element_count(&shape).map_err(raise)?;
        let len = usize::try_from(count).ok().and_then(|count| count.checked_mul(size));
        let len = len.ok_or_else(|| PyValueError::new_err("the output is larger than memory"))?;
        let start = batch.output(index, datatype, &shape).map_err(raise)?;
        // After `output`: it may have mapped another segment.
        ArenaView::memoryview(py, start, len, batch.memory())
    }

    /// Output ``index`` of datatype BYTES: ``data`` is every element behind its length.
    fn output_bytes(&self, index: usize, shape: Vec<u64>, data: &[u8]) -> PyResult<()> {
        let mut guard = self.lock();
        let batch = guard.as_mut().ok_or_else(answered)?;
        write_bytes_output(batch, index, &shape, data).map_err(raise)
    }

    /// Hand the outputs over as one of several responses and wait until they are taken. ``False``: no other is wanted.
    fn respond(&self, py: Python<'_>) -> PyResult<bool> {
        py.detach(|| match self.lock().as_mut() {
            Some(batch) => batch.respond(),
            None => Err(Error::new(ErrorKind::Internal, "the batch has been answered")),
        })
        .map_err(raise)
    }

    /// Hand the outputs over. ``execution_s`` is what the run itself took.
    fn finish(&self, execution_s: f64) -> PyResult<()> {
        let execution = Duration::try_from_secs_f64(execution_s)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        self.lock().take().ok_or_else(answered)?.finish(execution);
        Ok(())
    }

    /// Say that the batch failed. ``kind`` is ``InvalidInput`` or ``ModelFailed``; clients read ``message``, the log ``detail``.
    fn fail(&self, kind: &str, message: &str, detail: &str) -> PyResult<()> {
        let kind = if kind == ErrorKind::InvalidInput.python_class() {
            ErrorKind::InvalidInput
        } else {
            ErrorKind::ModelFailed
        };
        self.lock().take().ok_or_else(answered)?.fail(kind, message, detail);
        Ok(())
    }
}

impl WorkerBatch {
    fn lock(&self) -> MutexGuard<'_, Option<Batch>> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answered() -> PyErr {
    raise(Error::new(ErrorKind::Internal, "the batch has been answered"))
}

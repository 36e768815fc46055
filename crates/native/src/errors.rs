//! Errors of the data plane as exceptions of `inferd.errors`.
//!
//! Reads `types::Error`, hands back the exception whose class the one table of error kinds names.
//! Knows nothing of where an error came from.

use inferd_types::{Error, ErrorKind};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

/// The exception for `error`: its message, with `detail` and `retry_after_s` as attributes.
pub(crate) fn raise(error: Error) -> PyErr {
    Python::attach(|py| exception(py, &error).unwrap_or_else(|_| bare(&error)))
}

/// The exception for settings that are not what this build expects: the two sides were built apart.
pub(crate) fn raise_unreadable(what: &str, error: &serde_json::Error) -> PyErr {
    let message = format!(
        "{what} could not be read: {error}\nhelp: inferd's Python and native parts differ, reinstall it"
    );
    raise(Error::new(ErrorKind::Internal, message))
}

fn exception(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let class = py.import("inferd.errors")?.getattr(error.kind().python_class())?.cast_into::<PyType>()?;
    let fields = PyDict::new(py);
    fields.set_item("detail", error.detail())?;
    fields.set_item("retry_after_s", error.retry_after().map(|after| after.as_secs_f64()))?;
    Ok(PyErr::from_value(class.call((error.message(),), Some(&fields))?))
}

// A worker's interpreter runs without `site`, so the package may be out of reach there.
fn bare(error: &Error) -> PyErr {
    let detail = error.detail().map(|detail| format!("\n{detail}")).unwrap_or_default();
    PyRuntimeError::new_err(format!("{}: {error}{detail}", error.kind().label()))
}

/// The classes of `inferd.errors` that may be raised, one for each kind of error.
#[pyfunction]
pub(crate) fn error_classes() -> Vec<&'static str> {
    ErrorKind::ALL.iter().map(|kind| kind.python_class()).collect()
}

//! Simulations, as Python asks for them.
//!
//! Reads a scenario as JSON, hands back a report as JSON. Knows nothing of what either says.

use inferd_simulator::Scenario;
use inferd_types::{Error, ErrorKind};
use pyo3::prelude::*;

use crate::errors::raise;

/// Run a scenario to its end, without the GIL.
///
/// ``progress`` is called now and then with the share of the simulated time that has passed; what it raises ends the
/// simulation.
#[pyfunction]
#[pyo3(signature = (scenario, progress=None))]
pub(crate) fn simulate(py: Python<'_>, scenario: &str, progress: Option<Py<PyAny>>) -> PyResult<String> {
    let scenario: Scenario = serde_json::from_str(scenario).map_err(|error| {
        let message = format!("the scenario could not be read: {error}");
        raise(Error::new(ErrorKind::InvalidInput, message))
    })?;
    let mut raised = None;
    let report = py.detach(|| {
        inferd_simulator::simulate(&scenario, &mut |share| match &progress {
            None => true,
            Some(progress) => {
                raised = Python::attach(|py| progress.call1(py, (share,)).err());
                raised.is_none()
            }
        })
    });
    if let Some(error) = raised {
        return Err(error);
    }
    serde_json::to_string(&report.map_err(raise)?).map_err(|error| {
        raise(Error::new(ErrorKind::Internal, format!("the report could not be written: {error}")))
    })
}

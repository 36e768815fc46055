//! Decides whether requests may share a run: by the operator's word, by a proof from the graph, or by a probe.
//!
//! Reads the settings and a model that can be run, hands on the decision and which of the three made it.
//! Knows nothing of how rows are run together.

use inferd_types::{Batching, Error, ErrorKind, Result};

use crate::analysis::Verdict;
use crate::probe::{self, Alone};
use crate::runner::Runner;
use crate::settings::{BatchingMode, LoadSettings};
use crate::source::Source;
use crate::synthetic::Recipe;

/// Whether requests may share a run.
pub(crate) struct Decision {
    pub(crate) batching: Batching,
    /// The same with what it rests on, for the operator.
    pub(crate) told: String,
}

impl Decision {
    fn on(why: &str) -> Decision {
        Decision { batching: Batching::On, told: format!("on{why}") }
    }

    fn off(reason: String) -> Decision {
        Decision { told: format!("off: {reason}"), batching: Batching::Off { reason } }
    }
}

/// Decides for the model that `runner` runs and `source` was read from. `trial` are inputs that it can run, or why there
/// are none.
///
/// # Errors
/// `ModelFailed` where the operator's wish can't be met.
pub(crate) fn decide(
    runner: &mut Runner,
    source: &mut Source,
    settings: &LoadSettings,
    trial: Result<Recipe, &Error>,
) -> Result<Decision> {
    let declared = probe::declared(&runner.graph);
    match (settings.batching, declared) {
        (BatchingMode::Off, _) => Ok(Decision::off("batching: off".into())),
        (BatchingMode::On, Ok(())) => Ok(Decision::on(", as set")),
        (BatchingMode::On, Err(Alone(reason))) => Err(Error::new(
            ErrorKind::ModelFailed,
            format!("batching: on is not possible: {reason}\nhelp: set batching: auto"),
        )),
        (BatchingMode::Auto, _) if settings.batch_rows_max <= 1 => {
            Ok(Decision::off("batch_rows_max is 1".into()))
        }
        (BatchingMode::Auto, Err(Alone(reason))) => Ok(Decision::off(reason)),
        (BatchingMode::Auto, Ok(())) => Ok(match source.analyse(&runner.graph) {
            Verdict::Independent => Decision::on(": proven, no operator mixes rows"),
            Verdict::Dependent(how) => Decision::off(how),
            Verdict::Unknown(why) => by_probe(runner, settings, trial, &why),
        }),
    }
}

fn by_probe(
    runner: &mut Runner,
    settings: &LoadSettings,
    trial: Result<Recipe, &Error>,
    unproven: &str,
) -> Decision {
    let recipe = match trial {
        Ok(recipe) => recipe,
        Err(error) => {
            let said = error.message();
            return Decision::off(format!(
                "the model can't run made-up rows ({said}); set batching: on if rows are independent"
            ));
        }
    };
    let (inputs, outputs) = (runner.graph.inputs.clone(), runner.graph.outputs.clone());
    let probed =
        probe::probe(&inputs, &outputs, recipe, settings.tolerance, &mut |rows| runner.run_tensors(rows));
    match probed {
        Ok(rows) => Decision::on(&format!(
            ": each of {rows} rows gave in company what it gave alone (a probe, no proof: {unproven})"
        )),
        Err(Alone(reason)) => Decision::off(reason),
    }
}

//! Decides whether requests may share a batch: by the setting, by a proof from the graph, or by a probe.
//!
//! Reads the settings and a runnable model, hands on the decision with its verdict. Does not know how rows run
//! together.

use inferd_types::{Batching, Decider, Error, ErrorKind, Result, Verdict as BatchingVerdict};

use crate::analysis::Verdict;
use crate::probe::{self, Dependent, Probed};
use crate::runner::Runner;
use crate::settings::{BatchingMode, LoadSettings};
use crate::source::Source;
use crate::synthetic::Recipe;

/// Whether requests may share a batch, and the verdict behind it.
pub(crate) struct Decision {
    pub(crate) batching: Batching,
    pub(crate) verdict: BatchingVerdict,
}

impl Decision {
    fn on(by: Decider, why: impl Into<String>, rows: usize) -> Decision {
        let verdict = BatchingVerdict { by, why: why.into(), rows: rows as u64 };
        Decision { batching: Batching::On, verdict }
    }

    fn off(by: Decider, why: impl Into<String>) -> Decision {
        let verdict = BatchingVerdict { by, why: why.into(), rows: 0 };
        Decision { batching: Batching::Off { reason: verdict.why.clone() }, verdict }
    }
}

/// Decides for the model that `runner` runs and `source` was read from. `trial` are inputs that it can run, or why
/// there are none.
///
/// # Errors
/// `ModelFailed` if the setting is impossible.
pub(crate) fn decide(
    runner: &mut Runner,
    source: &mut Source,
    settings: &LoadSettings,
    trial: Result<Recipe, &Error>,
) -> Result<Decision> {
    let declared = probe::declared(&runner.graph);
    match (settings.batching, declared) {
        (BatchingMode::Off, _) => Ok(Decision::off(Decider::Setting, "batching: off")),
        (BatchingMode::On, Ok(())) => Ok(Decision::on(Decider::Setting, "batching: on", 0)),
        (BatchingMode::On, Err(Dependent(reason))) => Err(Error::new(
            ErrorKind::ModelFailed,
            format!("batching: on is not possible: {reason}\nhelp: set batching: auto"),
        )),
        (BatchingMode::Auto | BatchingMode::Verify, _) if settings.batch_rows_max <= 1 => {
            Ok(Decision::off(Decider::Setting, "batch_rows_max is 1"))
        }
        (BatchingMode::Auto | BatchingMode::Verify, Err(Dependent(reason))) => {
            Ok(Decision::off(Decider::Shapes, reason))
        }
        (mode, Ok(())) => Ok(match source.analyse(&runner.graph) {
            Verdict::Independent => Decision::on(Decider::Analysis, "no operator mixes rows", 0),
            Verdict::Dependent(how) => Decision::off(Decider::Analysis, how),
            // The probe of the conversion, with the original model's value ranges, says more than one with
            // generated rows.
            Verdict::Unknown(why) if settings.compared => {
                let why = format!("its rows were compared when it was converted (no proof: {why})");
                Decision::on(Decider::Probe, why, 0)
            }
            // What generated rows can't show, real requests do.
            Verdict::Unknown(why) if mode == BatchingMode::Verify && trial.is_err() => {
                Decision::on(Decider::Traffic, format!("no proof: {why}"), 0)
            }
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
            let why = format!(
                "the model can't run generated rows ({said}); set batching: on if rows are independent"
            );
            return Decision::off(Decider::Probe, why);
        }
    };
    let (inputs, outputs) = (runner.graph.inputs.clone(), runner.graph.outputs.clone());
    let probed =
        probe::probe(&inputs, &outputs, recipe, settings.tolerance, &mut |rows| runner.run_tensors(rows));
    match probed {
        Ok(Probed::Independent(rows)) => {
            let why =
                format!("each of {rows} rows had equal outputs alone and in a batch (no proof: {unproven})");
            Decision::on(Decider::Probe, why, rows)
        }
        // Live rows can show what generated rows can't.
        Ok(Probed::Undecided(reason)) if settings.batching == BatchingMode::Verify => {
            Decision::on(Decider::Traffic, reason, 0)
        }
        Ok(Probed::Undecided(reason)) | Err(Dependent(reason)) => Decision::off(Decider::Probe, reason),
    }
}

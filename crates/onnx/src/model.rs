//! A loaded model, ready to run.
//!
//! Reads the settings for loading, hands on the model's signature, facts about it, and its outputs. Knows nothing
//! of channels: inputs and outputs are addresses.

use inferd_types::settings::LoadedModel;
use inferd_types::{Batching, Error, ErrorKind, Extras, OutputLabels, Result, Signature, Tensor, TensorSpec};

use crate::api::Api;
use crate::batching;
use crate::control::Terminator;
use crate::facts;
use crate::graph::{Dim, Graph, Port};
use crate::initializers;
use crate::memory;
use crate::outputs::Outputs;
use crate::owned_outputs::OwnedOutputs;
use crate::probe;
use crate::reshape::{Reshaped, Reshapes};
use crate::runner::{Input, Runner};
use crate::settings::LoadSettings;
use crate::source::Source;
use crate::synthetic::{self, Recipe};

/// A loaded model. Used by one thread.
pub struct OnnxModel {
    runner: Runner,
    reshapes: Reshapes,
    loaded: LoadedModel,
}

impl OnnxModel {
    /// Loads the model, runs it on generated inputs and determines how it may be run.
    ///
    /// # Errors
    /// `ModelFailed` if library, file or device are not usable, or the model has no servable inputs and outputs.
    pub fn load(settings: &LoadSettings) -> Result<OnnxModel> {
        let api = Api::open(&settings.library)?;
        let (session, mut source) = Source::open(api, settings)?;
        let mut runner = Runner::new(api, session, &settings.initializers)?;
        let trial = trial(&mut runner, &source.labels)?;
        let recipe = trial.as_ref().map(|trial| trial.recipe);
        let decision = batching::decide(&mut runner, &mut source, settings, recipe)?;
        let batched = decision.batching == Batching::On;
        // The outputs of a model that can't be tried are not bound: it may not keep to its declared shapes.
        if let Ok(trial) = &trial
            && let Some(inputs) =
                generated(&runner.graph, trial.recipe, if batched { Some(2) } else { trial.rows })
        {
            runner.plan(batched, &inputs)?;
        }
        memory::give_back(&settings.library);
        source.shorten();
        let facts = facts::facts(api, settings, &runner, &source);
        let reshapes = Reshapes::new(&settings.reshape, &runner.graph.inputs, &runner.graph.outputs)?;
        let spec = |port: &Port, seen: Option<&[i64]>| {
            let spec = port.spec();
            TensorSpec { shape: seen.map_or(spec.shape, <[i64]>::to_vec), ..spec }
        };
        let inputs = runner.graph.inputs.iter().enumerate();
        let outputs = runner.graph.outputs.iter().enumerate();
        let signature = Signature {
            inputs: inputs.map(|(index, port)| spec(port, reshapes.seen_input(index))).collect(),
            outputs: outputs.map(|(index, port)| spec(port, reshapes.seen_output(index))).collect(),
            batching: decision.batching,
            decoupled: false,
            extras: Extras {
                defaults: initializers::defaults(settings, &runner.graph)?,
                labels: source.labels,
                schemas: [settings.schemas.clone(), source.schemas].concat(),
                ignored_columns: settings.ignored_columns.clone(),
                verdict: Some(decision.verdict),
            },
        };
        Ok(OnnxModel { runner, reshapes, loaded: LoadedModel::new(signature, facts) })
    }

    /// The model's signature, and facts about it.
    pub fn loaded(&self) -> &LoadedModel {
        &self.loaded
    }

    /// Stops a run from another thread.
    pub fn terminator(&self) -> Terminator {
        self.runner.terminator()
    }

    /// Runs once. The inputs are in the order of the signature.
    ///
    /// # Errors
    /// `InvalidInput` if the inputs are at fault, `ModelFailed` if the model is or the run was stopped, or the
    /// error of `outputs`.
    pub fn run(&mut self, inputs: &[Input<'_>], outputs: &mut dyn Outputs) -> Result<()> {
        if self.reshapes.is_empty() {
            return self.runner.run(inputs, outputs);
        }
        let shapes = self.reshapes.inner(inputs)?;
        let inputs: Vec<Input<'_>> =
            inputs.iter().zip(&shapes).map(|(input, shape)| input.within(shape)).collect();
        self.runner.run(&inputs, &mut Reshaped { reshapes: &self.reshapes, outputs })
    }

    /// Runs once over tensors.
    ///
    /// # Errors
    /// As [`OnnxModel::run`].
    pub fn run_tensors(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let inputs: Vec<Input<'_>> = inputs.iter().map(Input::of).collect();
        let mut owned = OwnedOutputs::new(self.loaded.signature.outputs.len());
        self.run(&inputs, &mut owned)?;
        owned.tensors()
    }
}

/// Generated inputs that the model can run.
struct Trial {
    recipe: Recipe,
    /// Size of dimension 0 of every input, if that is free.
    rows: Option<u64>,
}

fn settle(runner: &mut Runner, answers: &[Tensor]) {
    for (port, answer) in runner.graph.outputs.iter_mut().zip(answers) {
        port.settle(&answer.shape);
    }
}

/// Searches for inputs that the model can run. Its outputs show the shapes of outputs that declare none, or others.
///
/// The inner error says why none was found. The outer error is for a model that can't be served without.
fn trial(runner: &mut Runner, labels: &[OutputLabels]) -> Result<Result<Trial, Error>> {
    let mut found = Err(Error::new(ErrorKind::ModelFailed, "an input is too large to generate"));
    let rows = probe::may_take_rows(&runner.graph.inputs).then_some(1);
    for recipe in synthetic::recipes(&runner.graph.inputs) {
        let Some(inputs) = generated(&runner.graph, recipe, rows) else { continue };
        match runner.run_tensors(&inputs) {
            Ok(answers) => {
                settle(runner, &answers);
                found = Ok(Trial { recipe, rows });
                break;
            }
            Err(error) => found = Err(error),
        }
    }
    // A converter that saw one row may have declared a fixed row.
    if let Ok(Trial { recipe, rows: Some(_) }) = &found
        && runner.graph.outputs.iter().any(|port| port.dims().first().is_some_and(Dim::is_fixed))
        && let Some(answers) =
            generated(&runner.graph, *recipe, Some(2)).and_then(|two| runner.run_tensors(&two).ok())
    {
        settle(runner, &answers);
    }
    for classes in labels {
        let scores = runner.graph.outputs.iter_mut().find(|port| port.name() == *classes.output);
        scores.map_or(Ok(()), |port| port.set_classes(classes.names.len()))?;
    }
    match (runner.graph.outputs.iter().find(|port| port.dims.is_none()), found) {
        (Some(port), Err(error)) => Err(shapeless_output(port, &error)),
        (_, found) => Ok(found),
    }
}

fn shapeless_output(port: &Port, error: &Error) -> Error {
    let message = format!(
        "output '{}' has no declared shape, and the model can't run generated inputs to determine it: {}\n\
         help: export the model with shapes, or add them with onnx.shape_inference",
        port.name(),
        error.message()
    );
    Error::new(ErrorKind::ModelFailed, message).with_detail(error.detail().unwrap_or_default())
}

fn generated(graph: &Graph, recipe: Recipe, rows: Option<u64>) -> Option<Vec<Tensor>> {
    synthetic::inputs(&graph.inputs, recipe, rows, 0)
}

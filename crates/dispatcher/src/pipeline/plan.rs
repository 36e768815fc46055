//! Settings into a pipeline: names become places, and what does not fit is said before anything runs.
//!
//! Reads settings and loaded models, hands back a [`Pipeline`] or every reason why there is none.
//! Knows nothing of requests.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use inferd_scheduler::pipeline::{Deadlines, Graph, GraphFault, Policy};
use inferd_types::settings::{PipelineSettings, StepSettings};
use inferd_types::widening::widens;
use inferd_types::{
    Batching, Clock, DataType, Error, ErrorKind, Extras, InputDefault, OutputLabels, Result, Signature,
    TensorSpec,
};
use tokio_util::task::TaskTracker;

use super::condition::Condition;
use super::tables::{self, Use};
use super::{Pipeline, Source, Sources, Step, alike};
use crate::handle::ModelHandle;
use crate::observe::observer::ModelObserver;
use crate::route::{RouteTable, Routes};

/// Stands for no objective where only the times that remain are asked for.
const NO_OBJECTIVE: Duration = Duration::from_secs(24 * 3600);

impl Pipeline {
    /// Finds every step's models in `table` and checks that their tensors fit each other.
    ///
    /// # Errors
    /// `InvalidInput` with the step and tensor of every fault; `NotFound` for an unknown model.
    pub(crate) fn plan(
        settings: PipelineSettings,
        clock: Clock,
        observer: Arc<dyn ModelObserver>,
        table: RouteTable,
    ) -> Result<Pipeline> {
        let mut planner = Planner::new(&settings);
        let models = planner.models(&table.snapshot())?;
        let mut steps = Vec::with_capacity(settings.steps.len());
        for (step, models) in settings.steps.iter().zip(&models) {
            steps.push(planner.step(step, models));
        }
        let outputs = planner.outputs();
        let graph = planner.graph(&steps)?;
        let defaults = planner.defaults();
        let (faults, inputs) = (planner.faults, planner.inputs);
        let schemas = tables::schemas(&inputs, &planner.uses);
        if !faults.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, faults.join("\n")));
        }
        let (sources, outputs): (Vec<_>, Vec<_>) = outputs.into_iter().unzip();
        let is_direct =
            |step: &Step| step.inputs.iter().flatten().any(|from| matches!(from, Source::Input(_)));
        let direct = steps.iter().zip(&models).filter(|(step, _)| is_direct(step));
        let direct = direct.flat_map(|(_, models)| models);
        let ignored_columns = tables::ignored_columns(direct, &inputs);
        let extras = Extras {
            defaults,
            labels: labels(&steps, &sources, &outputs),
            schemas,
            ignored_columns,
            verdict: None,
        };
        let signature = Signature {
            inputs: inputs.into_iter().flatten().collect(),
            outputs,
            batching: Batching::Off { reason: "each step batches by itself".to_owned() },
            decoupled: false,
            extras,
        };
        let objective = settings.slo.map_or(NO_OBJECTIVE, |slo| slo.latency_s.0);
        Ok(Pipeline {
            signature: Arc::new(signature),
            steps,
            outputs: sources,
            deadlines: Deadlines::new(Policy::Slack, graph, objective, &[]),
            table,
            clock,
            observer,
            statistics: Mutex::default(),
            under_way: TaskTracker::new(),
            settings,
        })
    }
}

struct Planner<'a> {
    settings: &'a PipelineSettings,
    /// The pipeline's own inputs in the order of their first use; `None` until a step says what one is.
    names: Vec<&'a str>,
    inputs: Vec<Option<TensorSpec>>,
    /// The inputs of steps that each of them goes to.
    uses: Vec<Vec<Use>>,
    /// What each step gives.
    given: BTreeMap<&'a str, (usize, Vec<TensorSpec>)>,
    faults: Vec<String>,
}

impl<'a> Planner<'a> {
    fn new(settings: &'a PipelineSettings) -> Planner<'a> {
        Planner {
            settings,
            names: Vec::new(),
            inputs: Vec::new(),
            uses: Vec::new(),
            given: BTreeMap::new(),
            faults: Vec::new(),
        }
    }

    fn fault(&mut self, step: &str, what: &str) {
        self.faults.push(format!("pipeline '{}', step '{step}': {what}", self.settings.name));
    }

    /// The models of every step. They must take and give the same, for a request may go to any of them.
    fn models(&mut self, routes: &Routes) -> Result<Vec<Vec<ModelHandle>>> {
        let mut all = Vec::new();
        for (index, step) in self.settings.steps.iter().enumerate() {
            let mut models = Vec::new();
            for (name, _) in &step.models {
                let model = routes.find(name, None, None).map_err(|error| {
                    error.within(format_args!("pipeline '{}', step '{}'", self.settings.name, step.name))
                })?;
                models.push(model.clone());
            }
            let signatures: Vec<_> = models.iter().filter_map(ModelHandle::signature).collect();
            let Some(first) = signatures.first() else {
                self.fault(&step.name, "it names no model; write model: NAME");
                all.push(models);
                continue;
            };
            if !signatures.iter().all(|other| alike(other, first)) {
                self.fault(
                    &step.name,
                    "its models take or give different tensors; name models of one signature",
                );
            }
            if self.given.insert(&step.name, (index, first.outputs.clone())).is_some() {
                self.fault(&step.name, "there are two steps of this name; rename one");
            }
            all.push(models);
        }
        Ok(all)
    }

    fn step(&mut self, settings: &'a StepSettings, models: &[ModelHandle]) -> Step {
        if models.iter().any(ModelHandle::is_decoupled) {
            self.fault(
                &settings.name,
                "its model streams, and a step has one answer; name one that returns its answer",
            );
        }
        let signature = models.first().and_then(ModelHandle::signature);
        let wanted = signature.as_ref().map(|signature| signature.inputs.clone()).unwrap_or_default();
        let has_default =
            |index| signature.as_ref().is_some_and(|signature| signature.default_of(index).is_some());
        for (name, _) in &settings.inputs {
            if !wanted.iter().any(|spec| *spec.name == **name) {
                let known = names(&wanted);
                self.fault(&settings.name, &format!("its model has no input '{name}'; it takes {known}"));
            }
        }
        let mut inputs = Vec::with_capacity(wanted.len());
        for (index, spec) in wanted.iter().enumerate() {
            let Some((_, from)) = settings.inputs.iter().find(|(name, _)| **name == *spec.name) else {
                if !has_default(index) {
                    self.fault(&settings.name, &format!("input '{}' of its model is not given", spec.name));
                }
                inputs.push(Sources::new());
                continue;
            };
            let sources = from.iter().filter_map(|from| self.source(&settings.name, from, Some(spec)));
            let sources: Sources = sources.collect();
            for source in &sources {
                if let Source::Input(position) = source {
                    self.uses[*position].push(Use::new(models, index, spec));
                }
            }
            inputs.push(sources);
        }
        let condition = settings.when.as_ref().and_then(|when| {
            let source = self.source(&settings.name, &when.tensor, None)?;
            Some((source, Condition { tensor: when.tensor.clone(), test: when.test.clone() }))
        });
        Step {
            name: settings.name.as_str().into(),
            models: settings.models.clone(),
            signature: signature.unwrap_or_else(|| Arc::new(without_tensors())),
            inputs,
            condition,
            optional: settings.optional,
            count: AtomicU64::new(0),
        }
    }

    /// The place that `from` names: `step.output`, or an input of the pipeline. `spec`: what is wanted of it.
    fn source(&mut self, step: &str, from: &'a str, spec: Option<&TensorSpec>) -> Option<Source> {
        // A tensor's name may have dots too: the longest step's name that fits is meant.
        let of_step = self.given.iter().filter_map(|(name, (index, outputs))| {
            Some((name.len(), *index, outputs, from.strip_prefix(name)?.strip_prefix('.')?))
        });
        let Some((_, index, outputs, output)) = of_step.max_by_key(|(length, ..)| *length) else {
            return self.input(step, from, spec);
        };
        let Some(position) = outputs.iter().position(|spec| *spec.name == *output) else {
            let known = names(outputs);
            self.fault(step, &format!("'{from}' is given by no step; that step gives {known}"));
            return None;
        };
        if let Some((wanted, given)) = spec.map(|wanted| (wanted, &outputs[position]))
            && !fits(wanted, given)
        {
            let (want, have) = (shown(wanted), shown(given));
            self.fault(step, &format!("input '{}' takes {want}, but '{from}' is {have}", wanted.name));
        }
        Some(Source::Output { step: index, output: position })
    }

    fn input(&mut self, step: &str, name: &'a str, spec: Option<&TensorSpec>) -> Option<Source> {
        let position = self.names.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.names.push(name);
            self.inputs.push(None);
            self.uses.push(Vec::new());
            self.names.len() - 1
        });
        match (&mut self.inputs[position], spec) {
            (here @ None, Some(spec)) => *here = Some(TensorSpec { name: name.into(), ..spec.clone() }),
            (Some(known), Some(spec))
                if !related(known.datatype, spec.datatype) || known.shape.len() != spec.shape.len() =>
            {
                let (want, have) = (shown(spec), shown(known));
                self.fault(
                    step,
                    &format!("input '{}' takes {want}, but '{name}' is {have} elsewhere", spec.name),
                );
            }
            (Some(known), Some(spec)) => {
                // The narrowest type: it is widened for each step that takes another.
                if widens(spec.datatype, known.datatype) {
                    known.datatype = spec.datatype;
                }
                // What is fixed anywhere is fixed for all.
                for (have, want) in known.shape.iter_mut().zip(&spec.shape) {
                    *have = if *have < 0 { *want } else { *have };
                }
            }
            (_, None) => {}
        }
        Some(Source::Input(position))
    }

    fn outputs(&mut self) -> Vec<(Sources, TensorSpec)> {
        let mut outputs = Vec::new();
        for (name, from) in &self.settings.outputs {
            let sources: Sources =
                from.iter().filter_map(|from| self.source("outputs", from, None)).collect();
            let specs: Vec<_> = sources.iter().filter_map(|source| self.spec(*source)).collect();
            let Some(first) = specs.first() else { continue };
            let same = |spec: &&TensorSpec| spec.datatype == first.datatype && fits(first, spec);
            if let Some(other) = specs.iter().find(|spec| !same(spec)) {
                let (first, other) = (shown(first), shown(other));
                self.fault("outputs", &format!("'{name}' is {first} or {other}; give one type and rank"));
            }
            outputs.push((sources, TensorSpec { name: name.as_str().into(), ..first.clone() }));
        }
        for (position, name) in self.names.iter().enumerate() {
            if self.inputs[position].is_none() {
                let known = self.given.keys().copied().collect::<Vec<_>>().join(", ");
                self.faults.push(format!(
                    "pipeline '{}': nothing says what '{name}' is; it is no input of a step's model, and the steps are \
                     {known}",
                    self.settings.name
                ));
            }
        }
        outputs
    }

    /// The pipeline's own inputs that may be left out: those that every step that gets them has the same default for.
    fn defaults(&self) -> Vec<InputDefault> {
        let default = |(spec, uses): (&Option<TensorSpec>, &Vec<Use>)| {
            let (spec, first) = (spec.as_ref()?, uses.first()?.default.as_ref()?);
            let same = |other: &Use| {
                let default = other.default.as_ref();
                other.datatype == spec.datatype
                    && default
                        .is_some_and(|default| (&default.shape, &default.data) == (&first.shape, &first.data))
            };
            (uses.iter().all(same) && spec.accepts(&first.shape))
                .then(|| InputDefault { input: spec.name.clone(), ..first.clone() })
        };
        self.inputs.iter().zip(&self.uses).filter_map(default).collect()
    }

    fn spec(&self, source: Source) -> Option<TensorSpec> {
        match source {
            Source::Input(position) => self.inputs[position].clone(),
            Source::Output { step, output } => {
                let (_, outputs) = self.given.values().find(|(index, _)| *index == step)?;
                outputs.get(output).cloned()
            }
        }
    }

    fn graph(&self, steps: &[Step]) -> Result<Graph> {
        let before = |step: &Step| {
            let needed =
                step.inputs.iter().flatten().chain(step.condition.as_ref().map(|(source, _)| source));
            let mut before: Vec<usize> = needed
                .filter_map(|source| match source {
                    Source::Output { step, .. } => Some(*step),
                    Source::Input(_) => None,
                })
                .collect();
            before.sort_unstable();
            before.dedup();
            before
        };
        Graph::new(steps.iter().map(before).collect()).map_err(|fault| {
            let message = match fault {
                GraphFault::Cycle(on) => {
                    let names: Vec<_> = on.iter().map(|step| format!("'{}'", steps[*step].name)).collect();
                    format!("steps {} wait for each other; break the cycle", names.join(", "))
                }
                GraphFault::Unknown { .. } => fault.to_string(),
            };
            Error::new(ErrorKind::InvalidInput, format!("pipeline '{}': {message}", self.settings.name))
        })
    }
}

/// Names of classes, of outputs whose step's model has them.
fn labels(steps: &[Step], outputs: &[Sources], specs: &[TensorSpec]) -> Vec<OutputLabels> {
    let of = |(sources, spec): (&Sources, &TensorSpec)| {
        let Some(Source::Output { step, output }) = sources.first() else { return None };
        let labels = steps[*step].signature.labels_of(*output)?.clone();
        Some(OutputLabels { output: spec.name.clone(), ..labels })
    };
    outputs.iter().zip(specs).filter_map(of).collect()
}

/// Whether one of the types is the other, or is widened to it.
fn related(one: DataType, other: DataType) -> bool {
    one == other || widens(one, other) || widens(other, one)
}

/// Whether a tensor of `given` may be one of `wanted`: of its type or one that is widened to it, of the same rank, no
/// dimension that differs.
fn fits(wanted: &TensorSpec, given: &TensorSpec) -> bool {
    let agree = |(want, have): (&i64, &i64)| *want < 0 || *have < 0 || want == have;
    (wanted.datatype == given.datatype || widens(given.datatype, wanted.datatype))
        && wanted.shape.len() == given.shape.len()
        && wanted.shape.iter().zip(&given.shape).all(agree)
}

fn shown(spec: &TensorSpec) -> String {
    format!("{}{:?}", spec.datatype, spec.shape)
}

/// Stands for the signature of a step that names no model, which is a fault.
fn without_tensors() -> Signature {
    let batching = Batching::Off { reason: String::new() };
    let (inputs, outputs, extras) = (Vec::new(), Vec::new(), Extras::default());
    Signature { inputs, outputs, batching, decoupled: false, extras }
}

/// Inputs and outputs in one line.
pub(super) fn shown_whole(signature: &Signature) -> String {
    let list = |specs: &[TensorSpec]| {
        let named = |spec: &TensorSpec| format!("'{}' {}", spec.name, shown(spec));
        specs.iter().map(named).collect::<Vec<_>>().join(", ")
    };
    format!("{} → {}", list(&signature.inputs), list(&signature.outputs))
}

fn names(specs: &[TensorSpec]) -> String {
    specs.iter().map(|spec| format!("'{}'", spec.name)).collect::<Vec<_>>().join(", ")
}

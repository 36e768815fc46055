//! Several models behind one name: a graph of steps with one objective.
//!
//! Reads settings and the routes of the models that the steps run, hands back answers like a model's.
//! Owns no worker and no queue: steps share those of their models with everyone else who asks them.

mod condition;
mod plan;
mod run;
mod tables;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use inferd_scheduler::pipeline::Deadlines;
use inferd_types::settings::PipelineSettings;
use inferd_types::{Clock, Error, ErrorKind, InferRequest, Result, Signature};
use tokio_util::task::TaskTracker;

use self::condition::Condition;
use crate::generation::published::draining;
use crate::generation::state::ModelState;
use crate::generation::statistics::ModelStatistics;
use crate::handle::ModelHandle;
use crate::intake::ticket::Ticket;
use crate::observe::observer::ModelObserver;
use crate::route::{RouteTable, Routes};

/// Where a tensor comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// An input of the pipeline.
    Input(usize),
    /// An output of a step.
    Output { step: usize, output: usize },
}

/// One tensor that is needed, from the first of these places that has it.
type Sources = Vec<Source>;

struct Step {
    name: Arc<str>,
    /// Names of the models that it may run on, with their shares.
    models: Vec<(String, u32)>,
    /// What each of them takes and gives.
    signature: Arc<Signature>,
    /// For each input of its models, in their order.
    inputs: Vec<Sources>,
    condition: Option<(Source, Condition)>,
    /// Whether others do without it when it fails.
    optional: bool,
    /// Requests that it has run, to share them among its models.
    count: AtomicU64,
}

/// A loaded pipeline.
pub(crate) struct Pipeline {
    pub(crate) settings: PipelineSettings,
    pub(crate) signature: Arc<Signature>,
    steps: Vec<Step>,
    outputs: Vec<Sources>,
    deadlines: Deadlines,
    clock: Clock,
    observer: Arc<dyn ModelObserver>,
    statistics: Mutex<ModelStatistics>,
    table: RouteTable,
    /// Requests under way, so that their steps' models are drained after them; closed when nothing more is admitted.
    under_way: TaskTracker,
}

impl Pipeline {
    /// The worst state of all its models: it serves only where each of them does.
    pub(crate) fn state(&self) -> ModelState {
        if self.under_way.is_closed() {
            return ModelState::Draining;
        }
        let routes = self.table.load();
        let state = |name: &String| match routes.find(name, None, None) {
            Ok(model) => model.state(),
            Err(error) => ModelState::Unavailable(error.message().to_owned()),
        };
        let unready = self.models().map(state).find(|state| *state != ModelState::Ready);
        unready.unwrap_or(ModelState::Ready)
    }

    /// Whether a step reads what comes with a request besides tensors.
    pub(crate) fn wants_context(&self) -> bool {
        self.any(ModelHandle::wants_context)
    }

    /// Whether a step answers sequences.
    pub(crate) fn has_sequences(&self) -> bool {
        self.any(ModelHandle::has_sequences)
    }

    fn any(&self, is: fn(&ModelHandle) -> bool) -> bool {
        let routes = self.table.load();
        self.models().any(|name| routes.find(name, None, None).is_ok_and(is))
    }

    fn models(&self) -> impl Iterator<Item = &String> {
        self.steps.iter().flat_map(|step| &step.models).map(|(name, _)| name)
    }

    /// Whether every step could run with `routes`.
    ///
    /// # Errors
    /// As [`Pipeline::check`].
    pub(crate) fn check_all(&self, routes: &Routes) -> Result<()> {
        self.models().try_for_each(|name| self.check(routes, name))
    }

    /// Whether the steps that run on `name` could do so with `routes`.
    ///
    /// # Errors
    /// `InvalidInput` where nothing would answer them, or a model that takes or gives other tensors.
    pub(crate) fn check(&self, routes: &Routes, name: &str) -> Result<()> {
        let uses = |step: &&Step| step.models.iter().any(|(model, _)| model == name);
        self.steps.iter().filter(uses).try_for_each(|step| step.check(routes, name)).map_err(|fault| {
            let user = &self.settings.name;
            Error::new(
                ErrorKind::InvalidInput,
                format!("pipeline '{user}' runs on model '{name}': {fault}; unload the pipeline first"),
            )
        })
    }

    /// Runs one request. The steps begin when the ticket is first awaited; dropping it cancels all of them.
    pub(crate) fn submit(self: &Arc<Self>, request: InferRequest) -> Ticket {
        // Counted before it is looked whether they are closed: who drains closes first, and then counts.
        let under_way = self.under_way.token();
        if self.under_way.is_closed() {
            return Ticket::refused(draining(&self.settings.name));
        }
        if request.sequence.is_some() && !self.has_sequences() {
            return Ticket::refused(Error::new(
                ErrorKind::InvalidInput,
                format!("no step of pipeline '{}' has sequences; leave sequence_id out", self.settings.name),
            ));
        }
        let answer = run::run(self.clone(), self.table.snapshot(), request);
        Ticket::running(Box::pin(async move {
            let _under_way = under_way;
            answer.await
        }))
    }

    /// Admits nothing more, and returns when no request is under way.
    pub(crate) async fn drain(&self) {
        self.under_way.close();
        self.under_way.wait().await;
    }

    pub(crate) fn statistics(&self) -> MutexGuard<'_, ModelStatistics> {
        // Counters are valid after every single addition.
        self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `error` with the step that it happened in.
    fn at_step(&self, step: usize, error: Error) -> Error {
        error.within(format_args!("step '{}' of pipeline '{}'", self.steps[step].name, self.settings.name))
    }
}

impl Step {
    /// Whether every generation of `name` that requests may be given takes and gives what this step was planned for.
    fn check(&self, routes: &Routes, name: &str) -> Result<(), String> {
        let candidates = routes.candidates(name);
        if candidates.is_empty() {
            return Err("no other version of it is loaded".to_owned());
        }
        for model in candidates {
            let Some(signature) = model.signature() else { continue };
            if model.is_decoupled() {
                return Err(format!("version {} streams, and a step has one answer", model.version()));
            }
            if !alike(&signature, &self.signature) {
                return Err(format!(
                    "step '{}' was planned for {}, and version {} has {}",
                    self.name,
                    plan::shown_whole(&self.signature),
                    model.version(),
                    plan::shown_whole(&signature)
                ));
            }
        }
        Ok(())
    }
}

/// Whether the tensors of both are the same.
fn alike(one: &Signature, other: &Signature) -> bool {
    (&one.inputs, &one.outputs) == (&other.inputs, &other.outputs)
}

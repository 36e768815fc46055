//! One request on its way through a pipeline.
//!
//! Reads a request, submits each step as soon as what it needs is there, hands back the outputs. Knows nothing of
//! how a step is run. Dropped, it drops the tickets of the steps under way, which cancels them.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use inferd_scheduler::Refusal;
use inferd_scheduler::pipeline::StepEstimate;
use inferd_types::{
    Due, Error, ErrorKind, InferRequest, InferResponse, ReplicaId, Result, Signature, StepTiming, Tensor,
    Time, Timing,
};
use smallvec::SmallVec;

use super::{Pipeline, Source, Step};
use crate::handle::ModelHandle;
use crate::intake::inbox::InferResult;
use crate::intake::ticket::Ticket;
use crate::route::Routes;

/// Runs `request` on what `routes` lead to; counts how it went.
pub(super) async fn run(pipeline: Arc<Pipeline>, routes: Arc<Routes>, request: InferRequest) -> InferResult {
    let arrived = request.arrived;
    let answer = match pipeline.refusal(&routes, &request) {
        Some(error) => Err(error),
        None => PipelineRun::new(&pipeline, &routes, request).finish().await,
    };
    let now = pipeline.clock.now();
    let mut statistics = pipeline.statistics();
    match &answer {
        Ok(response) => {
            statistics.executed(&response.timing);
            statistics.answered(arrived, response.timing.batch_rows, &response.timing);
            let late = pipeline.settings.slo.is_some_and(|slo| now.since(arrived) > slo.latency_s.0);
            if late {
                pipeline.observer.objective_missed();
            }
        }
        Err(_) => statistics.failed(now.since(arrived)),
    }
    drop(statistics);
    answer
}

impl Pipeline {
    fn estimates(&self, routes: &Routes) -> Vec<StepEstimate> {
        // Of several models the first has the greatest share in most cases; a guess is enough.
        let of = |step: &Step| {
            let (name, _) = step.models.first()?;
            routes.find(name, None, None).ok().map(ModelHandle::estimate)
        };
        self.steps.iter().map(|step| of(step).unwrap_or_default()).collect()
    }

    /// Why the request is not admitted: what waits before it puts its end past the objective or the timeout.
    fn refusal(&self, routes: &Routes, request: &InferRequest) -> Option<Error> {
        let now = self.clock.now();
        let estimates = self.estimates(routes);
        let alone: Vec<_> =
            estimates.iter().map(|one| StepEstimate { queueing: Default::default(), ..*one }).collect();
        let (end, end_alone) =
            (now + self.deadlines.completion(&estimates), now + self.deadlines.completion(&alone));
        let name = &self.settings.name;
        if let Some(timeout) = request.timeout.filter(|timeout| end_alone > *timeout) {
            self.observer.refused(Refusal::TimeoutTooShort.label());
            let takes = end_alone.since(now).as_secs_f64() * 1e3;
            let left = timeout.since(now).as_secs_f64() * 1e3;
            return Some(Error::new(
                ErrorKind::DeadlineMissed,
                format!(
                    "pipeline '{name}' takes {takes:.1} ms and the caller waits {left:.1} ms more; allow more time"
                ),
            ));
        }
        let by_timeout = request.timeout.map(|timeout| end.since(timeout)).filter(|late| !late.is_zero());
        let by_objective = self.deadlines.lateness(request.arrived, now, &estimates);
        let late = by_timeout.max(by_objective)?;
        self.observer.refused(Refusal::PredictedLate.label());
        Some(
            Error::new(
                ErrorKind::Overloaded,
                format!(
                    "the backlog of pipeline '{name}' would make the answer {:.1} ms late; try again later, allow more \
                     time, or add replicas",
                    late.as_secs_f64() * 1e3
                ),
            )
            .with_retry_after(late),
        )
    }
}

/// How far a step is.
enum StepState {
    Waiting,
    UnderWay,
    Done(SmallVec<[Tensor; 2]>),
    /// Its condition did not hold, what it needs did not run, or it failed and may.
    Skipped,
}

struct PipelineRun<'a> {
    pipeline: &'a Pipeline,
    /// As they were when the request came.
    routes: &'a Routes,
    request: InferRequest,
    states: Vec<StepState>,
    /// The steps under way. Few: looked through at every wake-up.
    tickets: Vec<(usize, Time, Ticket)>,
    timings: Vec<StepTiming>,
    replica: ReplicaId,
}

impl<'a> PipelineRun<'a> {
    fn new(pipeline: &'a Pipeline, routes: &'a Routes, request: InferRequest) -> PipelineRun<'a> {
        let states = pipeline.steps.iter().map(|_| StepState::Waiting).collect();
        let (tickets, timings) = (Vec::new(), Vec::new());
        PipelineRun { pipeline, routes, request, states, tickets, timings, replica: ReplicaId(0) }
    }

    async fn finish(mut self) -> InferResult {
        self.begin_all()?;
        while !self.tickets.is_empty() {
            let (step, entered, answer) = self.next().await;
            match answer {
                Ok(response) => self.done(step, entered, response),
                Err(_) if self.pipeline.steps[step].optional => self.states[step] = StepState::Skipped,
                Err(error) => return Err(self.pipeline.at_step(step, error)),
            }
            self.begin_all()?;
        }
        self.outputs()
    }

    async fn next(&mut self) -> (usize, Time, InferResult) {
        let tickets = &mut self.tickets;
        poll_fn(|context| {
            for place in 0..tickets.len() {
                if let Poll::Ready(answer) = Pin::new(&mut tickets[place].2).poll(context) {
                    let (step, entered, _) = tickets.swap_remove(place);
                    return Poll::Ready((step, entered, answer));
                }
            }
            Poll::Pending
        })
        .await
    }

    fn done(&mut self, step: usize, entered: Time, response: InferResponse) {
        self.replica = response.replica;
        self.timings.push(StepTiming {
            step: self.pipeline.steps[step].name.clone(),
            entered,
            timing: response.timing,
        });
        self.states[step] = StepState::Done(response.outputs);
    }

    /// Begins every step whose needs are settled; skipping one may settle others, which come after it in the order.
    fn begin_all(&mut self) -> Result<()> {
        let pipeline = self.pipeline;
        for step in pipeline.deadlines.graph().order() {
            let settled =
                |before: &usize| matches!(self.states[*before], StepState::Done(_) | StepState::Skipped);
            let waits = matches!(self.states[*step], StepState::Waiting);
            if waits && pipeline.deadlines.graph().predecessors(*step).iter().all(settled) {
                self.begin(*step).map_err(|error| pipeline.at_step(*step, error))?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, index: usize) -> Result<()> {
        let step = &self.pipeline.steps[index];
        let runs = match &step.condition {
            Some((source, condition)) => match self.tensor(*source) {
                Some(tensor) => condition.holds(tensor)?,
                None => false,
            },
            None => true,
        };
        if !runs {
            self.states[index] = StepState::Skipped;
            return Ok(());
        }
        let model = match self.routes.find(step.model(), None, None) {
            Ok(model) => model,
            Err(_) if step.optional => {
                self.states[index] = StepState::Skipped;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let signature = model.signature().unwrap_or_else(|| step.signature.clone());
        let mut inputs: SmallVec<[Option<Tensor>; 2]> = step
            .inputs
            .iter()
            .map(|sources| sources.iter().find_map(|source| self.tensor(*source)).cloned())
            .collect();
        for (input, _) in step.inputs.iter().enumerate().filter(|(_, sources)| sources.is_empty()) {
            inputs[input] = signature.left_out(input, inputs.iter().map(Option::as_ref))?;
        }
        let inputs: Option<SmallVec<[Tensor; 2]>> = inputs.into_iter().collect();
        let Some(mut inputs) = inputs else {
            self.states[index] = StepState::Skipped;
            return Ok(());
        };
        if let Err(error) = fit(&signature, &mut inputs) {
            if step.optional {
                self.states[index] = StepState::Skipped;
                return Ok(());
            }
            return Err(error);
        }
        let now = self.pipeline.clock.now();
        let due = match self.pipeline.settings.slo {
            Some(_) => {
                let estimates = self.pipeline.estimates(self.routes);
                Due::At(self.pipeline.deadlines.due(index, self.request.arrived, now, &estimates))
            }
            None => Due::Never,
        };
        let sequence = self.request.sequence.clone().filter(|_| model.has_sequences());
        let request = InferRequest { inputs, arrived: now, due, sequence, ..self.like() };
        self.states[index] = StepState::UnderWay;
        self.tickets.push((index, now, model.submit_step(request)));
        Ok(())
    }

    /// What every step's request has in common.
    fn like(&self) -> InferRequest {
        let InferRequest { timeout, priority, tenant, ref context, .. } = self.request;
        InferRequest { timeout, priority, tenant, context: context.clone(), ..InferRequest::default() }
    }

    fn tensor(&self, source: Source) -> Option<&Tensor> {
        match source {
            Source::Input(position) => self.request.inputs.get(position),
            Source::Output { step, output } => match &self.states[step] {
                StepState::Done(outputs) => outputs.get(output),
                _ => None,
            },
        }
    }

    fn outputs(self) -> InferResult {
        let mut outputs = SmallVec::new();
        for (sources, spec) in self.pipeline.outputs.iter().zip(&self.pipeline.signature.outputs) {
            let Some(tensor) = sources.iter().find_map(|source| self.tensor(*source)) else {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!(
                        "no step of pipeline '{}' that gives '{}' ran for this request; its conditions left all out",
                        self.pipeline.settings.name, spec.name
                    ),
                ));
            };
            outputs.push(tensor.clone());
        }
        let rows = outputs.first().and_then(|tensor: &Tensor| tensor.shape.first().copied()).unwrap_or(1);
        let finished = self.pipeline.clock.now();
        let first = |time: fn(&Timing) -> Time| self.timings.iter().map(|step| time(&step.timing)).min();
        let started = first(|timing| timing.started).unwrap_or(finished);
        let timing = Timing {
            staged: first(|timing| timing.staged).unwrap_or(finished),
            started,
            finished,
            execution: finished.since(started),
            batch_rows: u32::try_from(rows).unwrap_or(u32::MAX).max(1),
        };
        Ok(InferResponse { outputs, timing, replica: self.replica, steps: self.timings })
    }
}

/// Makes `inputs`, in the order of `signature`, what its model takes: of its types, and held to its schemas.
fn fit(signature: &Signature, inputs: &mut [Tensor]) -> Result<()> {
    for (index, tensor) in inputs.iter_mut().enumerate().take(signature.inputs.len()) {
        let input = signature.input(index);
        if tensor.datatype == input.spec.datatype {
            input.check(tensor)?;
        } else {
            *tensor = input.receive(tensor.datatype, tensor.shape.clone(), tensor.data.clone())?;
        }
    }
    Ok(())
}

impl Step {
    /// Name of the model that runs the next request: by shares, evenly interleaved.
    fn model(&self) -> &str {
        let total: u64 = self.models.iter().map(|(_, weight)| u64::from(*weight)).sum();
        if self.models.len() == 1 || total == 0 {
            return &self.models[0].0;
        }
        // Multiples of the golden ratio spread every prefix evenly over the interval (Weyl's sequence).
        let turn = self.count.fetch_add(1, Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut at = ((u128::from(turn) * u128::from(total)) >> 64) as u64;
        for (model, weight) in &self.models {
            match at.checked_sub(u64::from(*weight)) {
                Some(rest) => at = rest,
                None => return model,
            }
        }
        &self.models[0].0
    }
}

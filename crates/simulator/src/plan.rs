//! Targets: models and pipelines by name, resolved to indices.
//!
//! Reads a validated scenario, hands on targets. Knows nothing of time.

use std::collections::BTreeMap;

use inferd_scheduler::pipeline::{Deadlines, Graph, Policy};
use inferd_types::Result;

use crate::scenario::{Model, Objective, Pipeline, Scenario, seconds, wrong};

/// One step: the stations that may run it, and its probability.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) name: String,
    pub(crate) stations: Vec<usize>,
    pub(crate) weights: Vec<f64>,
    pub(crate) probability: f64,
}

/// What a source sends requests to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) objective: Option<Objective>,
    pub(crate) graph: Graph,
    pub(crate) steps: Vec<Choice>,
    /// Those of a pipeline; a model alone has its own objective.
    pub(crate) deadlines: Option<Deadlines>,
}

/// All targets of sources, and the index of each source's target.
pub(crate) fn targets(scenario: &Scenario, policy: Policy) -> Result<(Vec<Target>, Vec<usize>)> {
    let mut numbers = BTreeMap::new();
    for (number, model) in scenario.models.iter().enumerate() {
        if numbers.insert(model.name.as_str(), number).is_some() {
            return Err(wrong(format!("two models are named '{}'; rename one", model.name)));
        }
    }
    let mut targets: Vec<Target> = Vec::new();
    let mut sent = Vec::new();
    for source in &scenario.arrivals {
        let known = targets.iter().position(|target| target.name == source.target);
        let number = match known {
            Some(number) => number,
            None => {
                targets.push(target(scenario, policy, &numbers, &source.target)?);
                targets.len() - 1
            }
        };
        sent.push(number);
    }
    Ok((targets, sent))
}

fn target(
    scenario: &Scenario,
    policy: Policy,
    numbers: &BTreeMap<&str, usize>,
    name: &str,
) -> Result<Target> {
    if let Some(pipeline) = scenario.pipelines.iter().find(|pipeline| pipeline.name == name) {
        return of_pipeline(pipeline, policy, &scenario.models, numbers);
    }
    let Some(number) = numbers.get(name).copied() else {
        let known: Vec<_> = scenario.pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect();
        let known: Vec<_> = known.into_iter().chain(numbers.keys().copied()).collect();
        return Err(wrong(format!(
            "requests come to '{name}', which does not exist; known are {}",
            known.join(", ")
        )));
    };
    let (stations, weights) = (vec![number], vec![1.0]);
    let objective = scenario.models[number].objective;
    let deadlines = objective
        .filter(|_| policy != Policy::Slack)
        .map(|objective| Deadlines::new(policy, Graph::chain(1), seconds(objective.latency_s), &[]));
    Ok(Target {
        name: name.to_owned(),
        objective,
        graph: Graph::chain(1),
        steps: vec![Choice { name: name.to_owned(), stations, weights, probability: 1.0 }],
        deadlines,
    })
}

fn of_pipeline(
    pipeline: &Pipeline,
    policy: Policy,
    models: &[Model],
    numbers: &BTreeMap<&str, usize>,
) -> Result<Target> {
    let mut steps = Vec::new();
    for step in &pipeline.steps {
        let mut stations = Vec::new();
        for (model, _) in &step.models {
            let number = numbers.get(model.as_str()).copied();
            stations.push(number.ok_or_else(|| {
                let known: Vec<_> = numbers.keys().copied().collect();
                wrong(format!(
                    "step '{}' of pipeline '{}' runs '{model}', which does not exist; known are {}",
                    step.name,
                    pipeline.name,
                    known.join(", ")
                ))
            })?);
        }
        let weights = step.models.iter().map(|(_, weight)| *weight).collect();
        steps.push(Choice { name: step.name.clone(), stations, weights, probability: step.probability });
    }
    let graph = pipeline.graph()?;
    let usual = |step: &Choice| {
        let model = &models[step.stations[0]];
        model.mean(model.batch_rows_max.div_ceil(2)).as_secs_f64()
    };
    let weights: Vec<f64> = match pipeline.weights.as_slice() {
        [] => steps.iter().map(usual).collect(),
        given => given.to_vec(),
    };
    let deadlines = pipeline
        .objective
        .map(|objective| Deadlines::new(policy, graph.clone(), seconds(objective.latency_s), &weights));
    Ok(Target { name: pipeline.name.clone(), objective: pipeline.objective, graph, steps, deadlines })
}

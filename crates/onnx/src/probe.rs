//! The probe: compares outputs of generated rows that run alone and in batches.
//!
//! Reads the model's declarations and outputs, hands on whether rows are independent. Knows nothing of sessions:
//! running the model is an argument.

use inferd_types::compare::{Tolerance, close, elements};
use inferd_types::{Error, Result, Tensor};

use crate::graph::{Dim, Graph, Port};
use crate::synthetic::{self, Character, Recipe};

/// The generated rows. Many models behave differently only beyond a threshold, or with a row that is unlike the
/// others.
const ROWS: [Character; 9] = [
    Character::Normal(1.0),
    Character::Normal(1.0),
    Character::Normal(1.0),
    Character::Normal(1e3),
    Character::Normal(1e-3),
    Character::Constant(0.0),
    Character::Constant(-1.0),
    Character::Uniform(1.0),
    Character::Uniform(255.0),
];

/// The batches: ordinary rows; a far larger one before another and after it; and all.
const BATCHES: [&[usize]; 4] = [&[0, 1, 2], &[3, 0], &[1, 3], &[8, 7, 6, 5, 4, 3, 2, 1, 0]];

/// Why requests must not share a batch, for the operator.
#[derive(Debug, PartialEq)]
pub(crate) struct Dependent(pub(crate) String);

/// The result of a probe that found no dependence between rows.
#[derive(Debug, PartialEq)]
pub(crate) enum Probed {
    /// Number of rows, whose outputs differ from each other.
    Independent(usize),
    /// Nothing, and why.
    Undecided(String),
}

/// Whether the declared shapes allow a batch: dimension 0 of everything is free, and its symbol occurs nowhere
/// else.
///
/// # Errors
/// The reason if not.
pub(crate) fn declared(graph: &Graph) -> Result<(), Dependent> {
    let sides = [("input", &graph.inputs), ("output", &graph.outputs)];
    if graph.inputs.is_empty() {
        return Err(Dependent("the model has no inputs".into()));
    }
    let mut counted = Vec::new();
    for (side, port) in sides.iter().flat_map(|(side, ports)| ports.iter().map(move |port| (side, port))) {
        match port.dims().first() {
            None => return Err(Dependent(format!("{side} '{}' is a scalar", port.name()))),
            Some(Dim::Fixed(size)) => {
                return Err(Dependent(format!(
                    "the first dimension of {side} '{}' is fixed at {size}",
                    port.name()
                )));
            }
            Some(Dim::Named(name)) => counted.push(name),
            Some(Dim::Free) => {}
        }
    }
    for (side, port) in sides.iter().flat_map(|(side, ports)| ports.iter().map(move |port| (side, port))) {
        let again = |dim: &&Dim| matches!(dim, Dim::Named(name) if counted.contains(&name));
        if let Some(Dim::Named(name)) = port.dims().iter().skip(1).find(again) {
            return Err(Dependent(format!("'{name}' is a later dimension of {side} '{}' too", port.name())));
        }
    }
    Ok(())
}

/// Whether dimension 0 of every input is free.
pub(crate) fn may_take_rows(inputs: &[Port]) -> bool {
    inputs.iter().all(|port| port.dims().first().is_some_and(|dim| !dim.is_fixed()))
}

/// Runs generated rows alone and in batches, and compares.
///
/// # Errors
/// The reason why they must not share a batch.
pub(crate) fn probe(
    inputs: &[Port],
    outputs: &[Port],
    recipe: Recipe,
    tolerance: Tolerance,
    run: &mut dyn FnMut(&[Tensor]) -> Result<Vec<Tensor>>,
) -> Result<Probed, Dependent> {
    let made = ROWS.iter().zip(0..).map(|(character, seed)| {
        let recipe = Recipe { character: *character, ..recipe };
        synthetic::inputs(inputs, recipe, Some(1), seed)
    });
    let made: Vec<_> =
        made.collect::<Option<_>>().ok_or_else(|| Dependent("one row is too large to generate".into()))?;
    let alone = |error: Error| Dependent(format!("the model can't run a generated row: {}", error.message()));
    // Some models refuse inputs out of their range; an ordinary row must succeed.
    let mut lone: Vec<Option<Vec<Tensor>>> = Vec::new();
    for (index, row) in made.iter().enumerate() {
        lone.push(match run(row) {
            Ok(answers) => Some(answers),
            Err(error) if index == 0 => return Err(alone(error)),
            Err(_) => None,
        });
    }
    for index in [0, 3] {
        if let Some(first) = &lone[index] {
            let again = run(&made[index]).map_err(alone)?;
            for (port, (first, again)) in outputs.iter().zip(first.iter().zip(&again)) {
                repeats(port, first, again, tolerance)?;
            }
        }
    }
    for batch in BATCHES {
        let present: Vec<usize> = batch.iter().copied().filter(|row| lone[*row].is_some()).collect();
        let rows: Vec<_> = present.iter().map(|row| made[*row].clone()).collect();
        let joined = synthetic::join(&rows).ok_or_else(|| Dependent("rows can't be joined".into()))?;
        let together = run(&joined).map_err(|error| {
            Dependent(format!("the model can't run {} rows together: {}", rows.len(), error.message()))
        })?;
        let answers: Vec<_> = present.iter().filter_map(|row| lone[*row].as_ref()).collect();
        for (index, port) in outputs.iter().enumerate() {
            let answers: Vec<&Tensor> = answers.iter().map(|outputs| &outputs[index]).collect();
            compare(port, &answers, &together[index], tolerance)?;
        }
    }
    let answered: Vec<&Vec<Tensor>> = lone.iter().flatten().collect();
    let differs = |index: usize, port: &Port| {
        let first = elements(&answered[0][index]);
        answered.iter().any(|other| !close(&elements(&other[index]), &first, port.datatype, tolerance))
    };
    if !outputs.iter().enumerate().any(|(index, port)| differs(index, port)) {
        let alike = "the model answers every generated row alike, so a probe shows nothing; set batching: on if rows are \
                     independent";
        return Ok(Probed::Undecided(alike.into()));
    }
    Ok(Probed::Independent(answered.len()))
}

/// # Errors
/// If the same row has other outputs the second time.
fn repeats(port: &Port, first: &Tensor, again: &Tensor, tolerance: Tolerance) -> Result<(), Dependent> {
    if close(&elements(first), &elements(again), port.datatype, tolerance) {
        return Ok(());
    }
    Err(Dependent(format!("output '{}' differs from run to run for the same row", port.name())))
}

/// Compares one output of rows that ran alone with that of one batch of all of them.
fn compare(port: &Port, lone: &[&Tensor], together: &Tensor, tolerance: Tolerance) -> Result<(), Dependent> {
    let name = port.name();
    for answer in lone {
        if answer.shape.first() != Some(&1) {
            let shape = &answer.shape[..];
            return Err(Dependent(format!("output '{name}' has shape {shape:?} for one row")));
        }
        if answer.shape[1..] != lone[0].shape[1..] {
            return Err(Dependent(format!("the shape of output '{name}' depends on the data")));
        }
    }
    let expected: Vec<u64> = [lone.len() as u64].iter().chain(&lone[0].shape[1..]).copied().collect();
    if together.shape[..] != expected[..] {
        let shape = &together.shape[..];
        return Err(Dependent(format!("output '{name}' has shape {shape:?} for {} rows", lone.len())));
    }
    let together = elements(together);
    for (row, answer) in lone.iter().enumerate() {
        let answer = elements(answer);
        let width = answer.len();
        if !close(&answer, &together[row * width..(row + 1) * width], port.datatype, tolerance) {
            return Err(Dependent(format!("output '{name}' of a row changes when other rows run with it")));
        }
    }
    Ok(())
}

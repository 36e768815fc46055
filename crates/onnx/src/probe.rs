//! Finds out whether requests may share a run of the model.
//!
//! Reads what the model declares and what it answers to made-up rows, alone and together; hands on a verdict.
//! Knows nothing of sessions: it is given a function that runs the model.

use inferd_types::{DataType, Error, Result, Tensor};

use crate::graph::{Dim, Graph, Port};
use crate::settings::Tolerance;
use crate::synthetic::{self, Recipe};
use crate::values;

/// Rows that are run together. Three, so that one stands between others.
pub(crate) const ROWS: usize = 3;

/// Sizes of numbers that are tried until the rows' answers differ.
const MAGNITUDES: [f64; 3] = [1.0, 10.0, 100.0];

/// Why requests must not share a run, in words for the operator.
#[derive(Debug, PartialEq)]
pub(crate) struct Alone(pub(crate) String);

/// Whether the declared shapes allow a batch: dimension 0 of everything is free, and what it counts appears in
/// no other place.
///
/// # Errors
/// The reason why not.
pub(crate) fn declared(graph: &Graph) -> Result<(), Alone> {
    let sides = [("input", &graph.inputs), ("output", &graph.outputs)];
    if graph.inputs.is_empty() {
        return Err(Alone("the model has no inputs".into()));
    }
    let mut counted = Vec::new();
    for (side, port) in sides.iter().flat_map(|(side, ports)| ports.iter().map(move |port| (side, port))) {
        match port.dims().first() {
            None => return Err(Alone(format!("{side} '{}' is a scalar", port.name()))),
            Some(Dim::Fixed(size)) => {
                return Err(Alone(format!(
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
            return Err(Alone(format!("'{name}' is a later dimension of {side} '{}' too", port.name())));
        }
    }
    Ok(())
}

/// Whether dimension 0 of every input is free.
pub(crate) fn may_take_rows(inputs: &[Port]) -> bool {
    inputs.iter().all(|port| port.dims().first().is_some_and(|dim| !dim.is_fixed()))
}

/// Runs made-up rows alone and together and compares.
///
/// # Errors
/// The reason why they must not run together.
pub(crate) fn probe(
    graph: &Graph,
    recipe: Recipe,
    tolerance: Tolerance,
    run: &mut dyn FnMut(&[Tensor]) -> Result<Vec<Tensor>>,
) -> Result<(), Alone> {
    for magnitude in MAGNITUDES {
        let recipe = Recipe { magnitude, ..recipe };
        let rows = (0..ROWS as u64).map(|seed| synthetic::inputs(&graph.inputs, recipe, Some(1), seed));
        let rows: Vec<_> =
            rows.collect::<Option<_>>().ok_or_else(|| Alone("one row is too large to make one up".into()))?;
        let alone = |error: Error| Alone(format!("the model can't run a made-up row: {}", error.message()));
        let lone: Vec<_> = rows.iter().map(|row| run(row)).collect::<Result<_>>().map_err(alone)?;
        let again = run(&rows[0]).map_err(alone)?;
        let joined = synthetic::join(&rows).ok_or_else(|| Alone("rows can't be joined".into()))?;
        let together = run(&joined).map_err(|error| {
            Alone(format!("the model can't run {ROWS} rows together: {}", error.message()))
        })?;
        let mut distinct = false;
        for (index, port) in graph.outputs.iter().enumerate() {
            let lone: Vec<&Tensor> = lone.iter().map(|outputs| &outputs[index]).collect();
            distinct |= compare(port, &lone, &again[index], &together[index], tolerance)?;
        }
        if distinct {
            return Ok(());
        }
    }
    Err(Alone("the model answers every made-up row alike, so a probe shows nothing; set batching: on if rows are independent".into()))
}

/// Compares one output; tells whether the rows' answers differ from each other.
fn compare(
    port: &Port,
    lone: &[&Tensor],
    again: &Tensor,
    together: &Tensor,
    tolerance: Tolerance,
) -> Result<bool, Alone> {
    let name = port.name();
    for answer in lone {
        if answer.shape.first() != Some(&1) {
            let shape = &answer.shape[..];
            return Err(Alone(format!("output '{name}' has shape {shape:?} for one row")));
        }
        if answer.shape[1..] != lone[0].shape[1..] {
            return Err(Alone(format!("the shape of output '{name}' depends on the data")));
        }
    }
    let expected: Vec<u64> = [lone.len() as u64].iter().chain(&lone[0].shape[1..]).copied().collect();
    if together.shape[..] != expected[..] {
        let shape = &together.shape[..];
        return Err(Alone(format!("output '{name}' has shape {shape:?} for {} rows", lone.len())));
    }
    let equal = |a: &[Element], b: &[Element]| close(a, b, port.datatype, tolerance);
    let first = elements(lone[0]);
    if !equal(&first, &elements(again)) {
        return Err(Alone(format!("output '{name}' differs from run to run for the same row")));
    }
    let together = elements(together);
    let mut distinct = false;
    for (row, answer) in lone.iter().enumerate() {
        let answer = elements(answer);
        let width = answer.len();
        if !equal(&answer, &together[row * width..(row + 1) * width]) {
            return Err(Alone(format!("output '{name}' of a row changes when other rows run with it")));
        }
        distinct |= !equal(&answer, &first);
    }
    Ok(distinct)
}

#[derive(Debug, PartialEq)]
enum Element {
    Float(f64),
    Exact(Vec<u8>),
}

fn elements(tensor: &Tensor) -> Vec<Element> {
    let data = &tensor.data[..];
    let exact = |bytes: &[u8]| Element::Exact(bytes.to_vec());
    let number = |bytes: &[u8]| match (tensor.datatype, bytes) {
        (DataType::Fp16, &[a, b]) => Element::Float(half::f16::from_le_bytes([a, b]).to_f64()),
        (DataType::Bf16, &[a, b]) => Element::Float(half::bf16::from_le_bytes([a, b]).to_f64()),
        (DataType::Fp32, &[a, b, c, d]) => Element::Float(f64::from(f32::from_le_bytes([a, b, c, d]))),
        (DataType::Fp64, &[a, b, c, d, e, f, g, h]) => {
            Element::Float(f64::from_le_bytes([a, b, c, d, e, f, g, h]))
        }
        _ => exact(bytes),
    };
    match tensor.datatype.size() {
        Some(size) => data.chunks_exact(size).map(number).collect(),
        None => values::elements(data).unwrap_or_default().into_iter().map(exact).collect(),
    }
}

fn close(a: &[Element], b: &[Element], datatype: DataType, tolerance: Tolerance) -> bool {
    // A short float can't be closer than its own steps, whatever the operator asks for.
    let step = match datatype {
        DataType::Fp16 => 4.0 / 1024.0,
        DataType::Bf16 => 4.0 / 128.0,
        _ => 0.0,
    };
    let relative = tolerance.relative.max(step);
    let same = |a: f64, b: f64| {
        a == b
            || (a.is_nan() && b.is_nan())
            || (a - b).abs() <= tolerance.absolute.max(step / 16.0) + relative * b.abs()
    };
    a.len() == b.len()
        && a.iter().zip(b).all(|pair| match pair {
            (Element::Float(a), Element::Float(b)) => same(*a, *b),
            (a, b) => a == b,
        })
}

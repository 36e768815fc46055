//! Nested graphs: branches and loops.

use std::rc::Rc;

use super::family::{Family, ONNX};
use crate::analysis::call::{Call, Outcome};
use crate::analysis::lattice::{Blame, Dims, Product, Spread, Value};
use crate::file::onnx::{Graph, Node};

/// Maximum number of passes over a loop's body until its state is stable.
const PASSES_MAX: usize = 8;

pub(super) const FAMILIES: &[Family] = &[
    Family::new(ONNX, &["If"], &["then_branch", "else_branch"], branch).counting(),
    Family::new(ONNX, &["Loop"], &["body"], repeat).counting(),
    Family::new(
        ONNX,
        &["Scan"],
        &[
            "body",
            "directions",
            "num_scan_inputs",
            "scan_input_axes",
            "scan_input_directions",
            "scan_output_axes",
            "scan_output_directions",
        ],
        scan,
    ),
];

/// The outputs of `graph` for the inputs `values`.
fn run<'a>(
    call: &Call<'_, 'a>,
    graph: &Graph<'a>,
    values: &[Value<'a>],
    hides_rows: Option<Rc<Blame>>,
) -> Result<Vec<Value<'a>>, Blame> {
    let given = graph.inputs.iter().map(|input| input.name).zip(values.iter().cloned());
    let mut scope = call.scope.inner(given, hides_rows).ok_or_else(|| call.unknown("is too deep"))?;
    call.walk.graph(graph, &mut scope);
    Ok(graph.outputs.iter().map(|output| scope.find(output.name)).collect())
}

fn branch<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let condition = call.input(0)?;
    if let Some(condition) = condition.constant_scalar() {
        let name = if condition != 0 { "then_branch" } else { "else_branch" };
        return run(call, &call.graph(name)?, &[], None);
    }
    match condition.spread {
        Spread::Same => {}
        Spread::Counts => return Err(call.dependent("decides by the number of rows")),
        _ => return Err(call.unknown("decides by what depends on rows")),
    }
    let then = run(call, &call.graph("then_branch")?, &[], None)?;
    let other = run(call, &call.graph("else_branch")?, &[], None)?;
    if then.len() != other.len() {
        return Err(call.malformed());
    }
    let joined = then.into_iter().zip(other);
    Ok(joined.map(|(then, other)| join(call, &then, &other, &mut Vec::new())).collect())
}

/// The least upper bound of `a` and `b`. Sizes in which they differ are those of `wide`, by axis.
fn join<'a>(call: &Call<'_, 'a>, a: &Value<'a>, b: &Value<'a>, wide: &mut Vec<Product>) -> Value<'a> {
    let lost = |why: &str| Value::mixed(Rc::new(call.unknown(why)));
    let rows = match (&a.spread, &b.spread) {
        (Spread::Mixed(_), _) => return a.clone(),
        (_, Spread::Mixed(_)) => return b.clone(),
        (Spread::Counts, Spread::Counts) if a.numbers == b.numbers && a.dims == b.dims => return a.clone(),
        (Spread::Same, Spread::Same) => None,
        (Spread::Rows { axis }, Spread::Rows { axis: other }) if axis == other => Some(*axis),
        _ => return lost("ends in unlike ways"),
    };
    let dims: Option<Dims> = match (&a.dims, &b.dims) {
        (Some(one), Some(other)) if one.len() == other.len() => {
            while wide.len() < one.len() {
                wide.push(call.fresh());
            }
            let each = one.iter().zip(other).enumerate();
            Some(
                each.map(|(axis, (one, other))| if one == other { one.clone() } else { wide[axis].clone() })
                    .collect(),
            )
        }
        _ => None,
    };
    match (rows, dims) {
        (Some(axis), Some(dims)) if dims[axis].has_rows() => Value::rows(dims, axis),
        (Some(_), _) => lost("ends in unlike ways"),
        (None, dims) if dims.is_some() && a.numbers.is_some() && a.numbers == b.numbers => {
            Value { numbers: a.numbers.clone(), ..Value::same(dims) }
        }
        (None, dims) => Value::same(dims),
    }
}

/// Whether two values are known to the same extent.
fn alike(a: &Value<'_>, b: &Value<'_>) -> bool {
    let spread = match (&a.spread, &b.spread) {
        (Spread::Same, Spread::Same)
        | (Spread::Counts, Spread::Counts)
        | (Spread::Mixed(_), Spread::Mixed(_)) => true,
        (Spread::Rows { axis }, Spread::Rows { axis: other }) => axis == other,
        _ => false,
    };
    spread && a.dims == b.dims && a.numbers == b.numbers
}

/// Analyses a body until its state is the same before and after it. Returns the state and the last pass's outputs.
fn settle<'a>(
    call: &Call<'_, 'a>,
    state: Vec<Value<'a>>,
    pass: &mut dyn FnMut(&[Value<'a>]) -> Outcome<'a>,
) -> Result<(Vec<Value<'a>>, Vec<Value<'a>>), Blame> {
    let mut state: Vec<Value<'a>> =
        state.into_iter().map(|value| Value { constant: None, ..value }).collect();
    let mut wide = vec![Vec::new(); state.len()];
    for _ in 0..PASSES_MAX {
        let outputs = pass(&state)?;
        if outputs.len() < state.len() {
            return Err(call.malformed());
        }
        let after = state.iter().zip(&outputs).zip(&mut wide);
        let joined: Vec<_> = after.map(|((before, after), wide)| join(call, before, after, wide)).collect();
        if joined.iter().zip(&state).all(|(joined, before)| alike(joined, before)) {
            return Ok((joined, outputs));
        }
        state = joined;
    }
    Err(call.unknown("does not settle"))
}

fn repeat<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    for value in [call.optional(0), call.optional(1)].into_iter().flatten() {
        match value.spread {
            Spread::Same => {}
            Spread::Counts => return Err(call.unknown("runs as often as there are rows")),
            _ => return Err(call.unknown("runs as often as rows say")),
        }
    }
    let body = call.graph("body")?;
    let initial: Vec<Value<'a>> = call
        .inputs
        .iter()
        .skip(2)
        .map(|value| value.clone().ok_or_else(|| call.malformed()))
        .collect::<Result<_, _>>()?;
    let count = initial.len();
    let round = Value::same(Some(Dims::new()));
    // Why the body would not run equally often in the lone run and the joint run.
    let mut uneven = None;
    let (state, outputs) = settle(call, initial, &mut |state| {
        let given: Vec<_> = [round.clone(), round.clone()].into_iter().chain(state.iter().cloned()).collect();
        let mut outputs = run(call, &body, &given, None)?.into_iter();
        let goes_on = outputs.next().ok_or_else(|| call.malformed())?;
        uneven = match goes_on.spread {
            Spread::Same => None,
            Spread::Mixed(blame) => Some(Blame::clone(&blame)),
            _ => Some(call.unknown("runs as often as rows say")),
        };
        Ok(outputs.collect())
    })?;
    if let Some(blame) = uneven {
        return Err(blame);
    }
    let stacked = outputs.into_iter().skip(count).map(|one| stack(call, &one, 0, &call.fresh()));
    Ok(state.into_iter().chain(stacked).collect())
}

/// As many of `one` as there are rounds, along a new axis.
fn stack<'a>(call: &Call<'_, 'a>, one: &Value<'a>, axis: usize, rounds: &Product) -> Value<'a> {
    match (&one.spread, &one.dims) {
        (Spread::Mixed(_), _) => one.clone(),
        (Spread::Counts, _) => Value::mixed(Rc::new(call.dependent("computes with the number of rows"))),
        (_, Some(dims)) if axis <= dims.len() => {
            let mut dims = dims.clone();
            dims.insert(axis, rounds.clone());
            call.like_rows(one.row_axis().map(|rows| rows + usize::from(axis <= rows)), dims)
        }
        _ => Value::same(None),
    }
}

fn scan<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    if call.version < 9 {
        return Err(call.unknown("is of a version that isn't known"));
    }
    let body = call.graph("body")?;
    let scanned = call.integer("num_scan_inputs")?.and_then(|count| usize::try_from(count).ok());
    let values: Vec<Value<'a>> = call
        .inputs
        .iter()
        .map(|value| value.clone().ok_or_else(|| call.malformed()))
        .collect::<Result<_, _>>()?;
    let states =
        scanned.and_then(|scanned| values.len().checked_sub(scanned)).ok_or_else(|| call.malformed())?;
    let (initial, sequences) = values.split_at(states);
    let along = call.integers("scan_input_axes")?.unwrap_or_default();
    let (mut elements, mut rounds, mut over_rows) = (Vec::new(), None, 0);
    for (index, sequence) in sequences.iter().enumerate() {
        let mut dims = call.dims(sequence)?.clone();
        let axis = call.axis(along.get(index).copied().unwrap_or(0), dims.len())?;
        let size = dims.remove(axis);
        over_rows += usize::from(size.has_rows());
        rounds = rounds.filter(|rounds| *rounds == size || !size.has_rows()).or(Some(size));
        let rows =
            sequence.row_axis().filter(|rows| *rows != axis).map(|rows| rows - usize::from(axis < rows));
        elements.push(call.like_rows(rows, dims));
    }
    let rounds = rounds.ok_or_else(|| call.malformed())?;
    if over_rows > 0 {
        return scan_rows(
            call,
            &body,
            Scanned { initial, elements, rounds, all: over_rows == sequences.len() },
        );
    }
    let (state, outputs) = settle(call, initial.to_vec(), &mut |state| {
        let given: Vec<_> = state.iter().chain(&elements).cloned().collect();
        run(call, &body, &given, None)
    })?;
    let stacked = stacked(call, &outputs[states..], &rounds)?;
    Ok(state.into_iter().chain(stacked).collect())
}

struct Scanned<'v, 'a> {
    initial: &'v [Value<'a>],
    elements: Vec<Value<'a>>,
    rounds: Product,
    /// Whether every sequence is scanned along its rows.
    all: bool,
}

/// A scan along the rows: each round sees one row, and its outputs are that row's, as long as no state is passed
/// from round to round and no other row is read.
fn scan_rows<'a>(call: &Call<'_, 'a>, body: &Graph<'a>, scanned: Scanned<'_, 'a>) -> Outcome<'a> {
    let states = scanned.initial.len();
    let kept = (0..states).all(|index| {
        let names = body.inputs.get(index).zip(body.outputs.get(index));
        names.is_some_and(|(input, output)| is_handed_on(&body.nodes, input.name, output.name))
    });
    let same = scanned.initial.iter().all(Value::is_same);
    for name in ["scan_input_directions", "scan_output_directions"] {
        if call.integers(name)?.unwrap_or_default().iter().any(|direction| *direction != 0) {
            return Err(call.unknown("runs along the rows from their end"));
        }
    }
    if !kept || !same || !scanned.all || scanned.elements.iter().any(|element| !element.is_same()) {
        return Err(call.unknown("runs along the rows"));
    }
    let given: Vec<_> = scanned.initial.iter().chain(&scanned.elements).cloned().collect();
    let hides_rows = Some(Rc::new(call.unknown("looks at all rows for each")));
    let outputs = run(call, body, &given, hides_rows)?;
    let stacked = stacked(call, outputs.get(states..).unwrap_or_default(), &scanned.rounds)?;
    // What is the same in each round becomes the rows', which are consecutive along the new axis.
    let by_row = stacked.into_iter().map(|value| match (&value.spread, &value.dims) {
        (Spread::Same, Some(dims)) => match dims.iter().position(Product::has_rows) {
            Some(axis) => Value::rows(dims.clone(), axis),
            None => value,
        },
        (Spread::Mixed(_), _) => value,
        _ => Value::mixed(Rc::new(call.unknown("runs along the rows"))),
    });
    Ok(scanned.initial.iter().cloned().chain(by_row).collect())
}

/// Whether `output` is `input`, unchanged.
fn is_handed_on(nodes: &[Node<'_>], input: &str, output: &str) -> bool {
    let mut name = output;
    for node in nodes.iter().rev() {
        if node.operator == "Identity" && node.domain.is_empty() && node.outputs.first() == Some(&name) {
            name = node.inputs.first().copied().unwrap_or_default();
        }
    }
    name == input
}

fn stacked<'a>(
    call: &Call<'_, 'a>,
    outputs: &[Value<'a>],
    rounds: &Product,
) -> Result<Vec<Value<'a>>, Blame> {
    let along = call.integers("scan_output_axes")?.unwrap_or_default();
    let each = outputs.iter().enumerate().map(|(index, one)| {
        let axis = along.get(index).copied().unwrap_or(0);
        let rank = one.rank().map_or(1, |rank| rank + 1);
        Ok(stack(call, one, call.axis(axis, rank)?, rounds))
    });
    each.collect()
}

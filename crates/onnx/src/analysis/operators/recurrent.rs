//! Recurrent layers. With `layout` 0, the default, the first axis is time and the second the batch.

use super::family::{Family, MICROSOFT, ONNX};
use crate::analysis::call::{Call, Outcome};
use crate::analysis::lattice::{Dims, Product, Value};

const ATTRIBUTES: &[&str] = &[
    "activation_alpha",
    "activation_beta",
    "activations",
    "clip",
    "direction",
    "hidden_size",
    "input_forget",
    "layout",
    "linear_before_reset",
    "output_sequence",
];

pub(super) const FAMILIES: &[Family] = &[
    Family::new(ONNX, &["RNN", "GRU", "LSTM"], ATTRIBUTES, layer),
    // Its scales depend on all rows.
    Family::new(MICROSOFT, &["DynamicQuantizeLSTM"], ATTRIBUTES, |call: &Call<'_, '_>| {
        Err(call.dependent("takes its scale from all rows"))
    }),
];

fn layer<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    let is_long = call.node.operator == "LSTM";
    let outputs = if is_long { 3 } else { 2 };
    if call.given().iter().all(|value| value.is_same()) {
        return Ok(vec![Value::same(None); outputs]);
    }
    let by_batch = call.flag("layout", false)?;
    let batch = usize::from(!by_batch);
    // The axis of the batch in each input; the others are weights.
    let axes = [(0, batch), (4, 0), (5, batch), (6, batch)];
    let dims = call.dims(x)?;
    let rows = dims.get(batch).ok_or_else(|| call.malformed())?;
    match x.row_axis() {
        Some(axis) if axis == batch => {}
        Some(axis) if axis + batch == 1 => return Err(call.dependent("runs along the rows")),
        _ => return Err(call.unknown("has rows along an axis that can't be followed")),
    }
    for index in 1..call.inputs.len() {
        let Some(value) = call.optional(index) else { continue };
        let axis =
            axes.iter().find(|(input, _)| *input == index && (is_long || index < 6)).map(|(_, axis)| *axis);
        let fits = match axis {
            Some(axis) => value.row_axis() == Some(axis) && call.dims(value)?.get(axis) == Some(rows),
            None => value.is_same(),
        };
        if !fits {
            return Err(call.unknown("combines rows with a tensor that has others of its own"));
        }
    }
    let directions = Product::of(if call.text("direction")? == Some(b"bidirectional") { 2 } else { 1 });
    let hidden = call.integer("hidden_size")?.map_or_else(|| call.fresh(), Product::of);
    let time = dims[1 - batch].clone();
    let all: Dims = match by_batch {
        false => [time, directions.clone(), rows.clone(), hidden.clone()].into_iter().collect(),
        true => [rows.clone(), time, directions.clone(), hidden.clone()].into_iter().collect(),
    };
    let last: Dims = match by_batch {
        false => [directions, rows.clone(), hidden].into_iter().collect(),
        true => [rows.clone(), directions, hidden].into_iter().collect(),
    };
    let last = Value::rows(last, batch);
    Ok(vec![Value::rows(all, if by_batch { 0 } else { 2 }), last.clone(), last])
}

//! Operators of transformers, of ONNX and of the runtime's own domain, as in optimized models.

use super::elementwise::broadcast;
use super::family::{Family, MICROSOFT, ONNX};
use crate::analysis::call::{Call, Outcome};
use crate::analysis::lattice::{Blame, Dims, Product, Value};

pub(super) const FAMILIES: &[Family] = &[
    Family::new(
        MICROSOFT,
        &["Attention"],
        &[
            "do_rotary",
            "mask_filter_value",
            "num_heads",
            "past_present_share_buffer",
            "qkv_hidden_sizes",
            "rotary_embedding_dim",
            "scale",
            "unidirectional",
        ],
        |call| attention(call, Inputs { rows: &[0], masks: &[3], past: Some((4, 1)), bias: Some(5) }),
    ),
    Family::new(
        MICROSOFT,
        &["QAttention"],
        &[
            "do_rotary",
            "mask_filter_value",
            "num_heads",
            "past_present_share_buffer",
            "scale",
            "unidirectional",
        ],
        |call| attention(call, Inputs { rows: &[0], masks: &[5], past: Some((8, 1)), bias: None }),
    ),
    Family::new(
        MICROSOFT,
        &["MultiHeadAttention"],
        &["mask_filter_value", "num_heads", "scale", "unidirectional"],
        |call| attention(call, Inputs { rows: &[0, 1, 2, 6, 7], masks: &[4], past: None, bias: Some(5) }),
    ),
    Family::new(
        ONNX,
        &["Attention"],
        &[
            "is_causal",
            "kv_num_heads",
            "q_num_heads",
            "qk_matmul_output_mode",
            "scale",
            "softcap",
            "softmax_precision",
        ],
        |call| attention(call, Inputs { rows: &[0, 1, 2, 4, 5], masks: &[6], past: None, bias: Some(3) }),
    ),
    Family::new(MICROSOFT, &["EmbedLayerNormalization"], &["epsilon", "mask_index_type"], embed),
    Family::new(ONNX, &["RotaryEmbedding"], &["interleaved", "num_heads", "rotary_embedding_dim"], |call| {
        rotary(call, [1, 2], 3)
    }),
    Family::new(
        MICROSOFT,
        &["RotaryEmbedding"],
        &["interleaved", "num_heads", "rotary_embedding_dim", "scale"],
        |call| rotary(call, [2, 3], 1),
    ),
];

/// The inputs of an attention operator; the others are parameters.
struct Inputs {
    /// With rows along the first axis.
    rows: &'static [usize],
    /// The same, optional.
    masks: &'static [usize],
    /// Earlier keys and values, with rows along another axis.
    past: Option<(usize, usize)>,
    /// Added to the products, and broadcast.
    bias: Option<usize>,
}

fn foreign(call: &Call<'_, '_>) -> Blame {
    call.unknown("combines rows with a tensor that has others of its own")
}

/// # Errors
/// If `value` does not have `rows` along `axis`.
fn has_rows<'a>(call: &Call<'_, 'a>, value: &Value<'a>, axis: usize, rows: &Product) -> Result<(), Blame> {
    let fits = value.row_axis() == Some(axis) && call.dims(value)?.get(axis) == Some(rows);
    if fits { Ok(()) } else { Err(foreign(call)) }
}

fn attention<'a>(call: &Call<'_, 'a>, inputs: Inputs) -> Outcome<'a> {
    let count = call.node.outputs.len();
    if call.given().iter().all(|value| value.is_same()) {
        return Ok(vec![Value::same(None); count]);
    }
    let x = call.input(0)?;
    let dims = call.dims(x)?;
    let rows = dims.first().ok_or_else(|| call.malformed())?;
    // Only whole rows: with several numbers per row, they would be consecutive.
    if x.row_axis() != Some(0) || *rows != Product::rows() {
        return Err(foreign(call));
    }
    for (index, value) in call.inputs.iter().enumerate() {
        let Some(value) = value else { continue };
        match index {
            _ if inputs.rows.contains(&index) || inputs.masks.contains(&index) => {
                has_rows(call, value, 0, rows)?
            }
            _ if inputs.past.is_some_and(|(past, _)| past == index) => has_rows(call, value, 1, rows)?,
            _ if inputs.bias == Some(index) => {
                let stack: Dims = [rows.clone()].into_iter().chain((0..3).map(|_| call.fresh())).collect();
                if broadcast(call, &[&Value::rows(stack, 0), value])?.rank() != Some(4) {
                    return Err(foreign(call));
                }
            }
            _ if value.is_same() => {}
            _ => return Err(foreign(call)),
        }
    }
    let fresh = |rank: usize| (1..rank).map(|_| call.fresh());
    // Four dimensions if the queries are split by heads, else three.
    let by_heads = dims.len() == 4 && call.node.domain.is_empty();
    let made = match by_heads {
        true => call.row_wise(rows, dims[1..3].iter().cloned().chain([call.fresh()])),
        false => call.row_wise(rows, dims.get(1).cloned().into_iter().chain([call.fresh()])),
    };
    let state = match inputs.past {
        Some((_, axis)) => {
            let mut dims: Dims = (0..5).map(|_| call.fresh()).collect();
            dims[axis] = rows.clone();
            Value::rows(dims, axis)
        }
        None => call.row_wise(rows, fresh(4)),
    };
    Ok([made].into_iter().chain(vec![state; count.saturating_sub(1)]).collect())
}

/// Embeddings of words, positions and segments, added and normalized.
fn embed<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let ids = call.input(0)?;
    if call.given().iter().all(|value| value.is_same()) {
        return Ok(vec![Value::same(None); 3]);
    }
    let dims = call.dims(ids)?;
    let rows = dims.first().ok_or_else(|| call.malformed())?;
    for (index, value) in call.inputs.iter().enumerate() {
        let Some(value) = value else { continue };
        match index {
            0 | 1 | 7 => has_rows(call, value, 0, rows)?,
            8 if value.is_same() && call.dims(value)?.first().is_some_and(|dim| dim.is(1)) => {}
            8 => has_rows(call, value, 0, rows)?,
            _ if value.is_same() => {}
            _ => return Err(foreign(call)),
        }
    }
    let width = call.input(2)?.dims.as_ref().and_then(|dims| dims.get(1).cloned());
    let width = width.unwrap_or_else(|| call.fresh());
    let made = call.row_wise(rows, dims.get(1).cloned().into_iter().chain([width]));
    Ok(vec![made.clone(), call.row_wise(rows, []), made])
}

/// The first input, rotated by tables of cosines and sines.
fn rotary<'a>(call: &Call<'_, 'a>, tables: [usize; 2], positions: usize) -> Outcome<'a> {
    let x = call.input(0)?;
    let made = Value { numbers: None, constant: None, ..x.clone() };
    if call.given().iter().all(|value| value.is_same()) {
        return Ok(vec![made]);
    }
    let rows = call.dims(x)?.first().filter(|_| x.row_axis() == Some(0)).ok_or_else(|| foreign(call))?;
    let positions = call.optional(positions);
    for table in tables {
        let table = call.input(table)?;
        // Without positions there is a table per row.
        if positions.is_none() || !table.is_same() {
            has_rows(call, table, 0, rows)?;
        }
    }
    match positions {
        // A single number is the first position of all.
        Some(start)
            if start.is_same()
                && call.dims(start)?.iter().all(|dim| dim.is(1))
                && start.rank() == Some(1) => {}
        Some(positions) => has_rows(call, positions, 0, rows)?,
        None => {}
    }
    Ok(vec![made])
}

//! Normalization.

use super::elementwise::broadcast;
use super::family::{Family, MICROSOFT, ONNX};
use crate::analysis::call::{Call, Outcome};
use crate::analysis::lattice::{Blame, Dims, Product, Value};

pub(super) const FAMILIES: &[Family] = &[
    Family::new(ONNX, &["Hardmax", "LogSoftmax", "Softmax"], &["axis"], softmax),
    Family::new(
        ONNX,
        &["LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"],
        &["axis", "epsilon", "stash_type"],
        layer,
    ),
    Family::new(
        MICROSOFT,
        &["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"],
        &["epsilon"],
        skip_layer,
    ),
    Family::new(
        ONNX,
        &["InstanceNormalization", "GroupNormalization"],
        &["epsilon", "num_groups", "stash_type"],
        by_image,
    ),
    Family::new(ONNX, &["BatchNormalization"], &["epsilon", "momentum", "spatial", "training_mode"], batch),
    Family::new(ONNX, &["LpNormalization"], &["axis", "p"], lp),
    Family::new(ONNX, &["LRN"], &["alpha", "beta", "bias", "size"], lrn),
    Family::new(ONNX, &["MeanVarianceNormalization"], &["axes"], mean_variance),
];

fn over_rows(call: &Call<'_, '_>) -> Blame {
    call.dependent("normalises over the rows")
}

/// The first input, whose rows are not along one of `axes`.
fn along<'a>(call: &Call<'_, 'a>, axes: impl Fn(usize) -> bool) -> Outcome<'a> {
    let x = call.input(0)?;
    match x.row_axis() {
        Some(rows) if axes(rows) => Err(over_rows(call)),
        _ => Ok(vec![Value { numbers: None, constant: None, ..x.clone() }]),
    }
}

fn softmax<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    let Some(rank) = x.rank() else { return along(call, |_| true) };
    // Before version 13 all dimensions from the axis on are normalized together.
    let flattens = call.version < 13;
    let axis = call.integer("axis")?.unwrap_or(if flattens { 1 } else { -1 });
    if flattens && axis == rank as i64 {
        return along(call, |_| false);
    }
    let axis = call.axis(axis, rank)?;
    along(call, |rows| if flattens { rows >= axis } else { rows == axis })
}

fn layer<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    call.same_from(1)?;
    let x = call.input(0)?;
    let Some(dims) = &x.dims else { return Ok(vec![Value::same(None); 3]) };
    let axis = call.axis(call.integer("axis")?.unwrap_or(-1), dims.len())?;
    if x.row_axis().is_some_and(|rows| rows >= axis) {
        return Err(over_rows(call));
    }
    // Scale and bias must not have rows of their own.
    broadcast(call, &call.given())?;
    let means: Dims = dims
        .iter()
        .enumerate()
        .map(|(at, dim)| if at < axis { dim.clone() } else { Product::of(1) })
        .collect();
    let means = call.like_rows(x.row_axis(), means);
    Ok(vec![Value { numbers: None, constant: None, ..x.clone() }, means.clone(), means])
}

/// The sum of two inputs and a bias, normalized along the last axis.
fn skip_layer<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    call.same_from(2)?;
    let sum = broadcast(call, &call.given())?;
    let Some(dims) = &sum.dims else { return Ok(vec![Value::same(None); 4]) };
    let last = dims.len().checked_sub(1).ok_or_else(|| call.malformed())?;
    if sum.row_axis() == Some(last) {
        return Err(over_rows(call));
    }
    let mut means = dims.clone();
    means[last] = Product::of(1);
    let means = call.like_rows(sum.row_axis(), means);
    Ok(vec![sum.clone(), means.clone(), means, sum])
}

fn by_image<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    call.same_from(1)?;
    along(call, |rows| rows != 0)
}

fn batch<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    call.same_from(1)?;
    if call.version < 7 {
        return Err(call.unknown("is of a version that isn't known"));
    }
    let outputs = call.node.outputs.iter().filter(|name| !name.is_empty()).count();
    let trains = if call.version < 14 { outputs > 1 } else { call.flag("training_mode", false)? };
    if trains && !call.input(0)?.is_same() {
        return Err(call.dependent("normalises over the rows, as in training"));
    }
    if outputs > 1 {
        return Err(call.unknown("has more outputs than one"));
    }
    let by_channel = call.flag("spatial", true)?;
    along(call, |rows| rows == 1 || (rows > 1 && !by_channel))
}

fn lp<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let Some(rank) = call.input(0)?.rank() else { return along(call, |_| true) };
    let axis = call.axis(call.integer("axis")?.unwrap_or(-1), rank)?;
    along(call, |rows| rows == axis)
}

/// Over neighbouring channels.
fn lrn<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    along(call, |rows| rows == 1)
}

fn mean_variance<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let Some(rank) = call.input(0)?.rank() else { return along(call, |_| true) };
    let axes = call.integers("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    let axes: Vec<usize> = axes.iter().map(|axis| call.axis(*axis, rank)).collect::<Result<_, _>>()?;
    along(call, |rows| axes.contains(&rows))
}

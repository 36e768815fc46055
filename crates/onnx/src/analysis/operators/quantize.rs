//! Quantization: scales in the file are parameters, scales computed in a run depend on all rows.

use super::elementwise::{broadcast, unary};
use super::family::{Family, MICROSOFT, ONNX};
use super::linear::product;
use super::neural::{images, with_first};
use crate::analysis::call::{Call, Outcome};
use crate::analysis::lattice::{Blame, Product, Value};

const GEMM: &[&str] = &["alpha", "transA", "transB"];

pub(super) const FAMILIES: &[Family] = &[
    Family::new(
        ONNX,
        &["DequantizeLinear", "QuantizeLinear"],
        &["axis", "block_size", "output_dtype", "precision", "saturate"],
        linear,
    ),
    Family::new(MICROSOFT, &["DequantizeLinear", "QuantizeLinear"], &["axis", "saturate"], linear),
    Family::new(ONNX, &["DynamicQuantizeLinear"], &[], dynamic),
    Family::new(MICROSOFT, &["DynamicQuantizeMatMul"], &[], dynamic),
    Family::new(ONNX, &["MatMulInteger"], &[], |call| matrices(call, [0, 1], &[2])),
    Family::new(ONNX, &["QLinearMatMul"], &[], |call| matrices(call, [0, 3], &[1, 2, 6, 7])),
    Family::new(MICROSOFT, &["MatMulIntegerToFloat"], &[], |call| matrices(call, [0, 1], &[2, 4])),
    Family::new(MICROSOFT, &["QGemm"], GEMM, gemm),
    Family::new(MICROSOFT, &["QLinearAdd", "QLinearMul"], &[], |call| {
        parameters(call, &[0, 3])?;
        Ok(vec![broadcast(call, &[call.input(0)?, call.input(3)?])?])
    }),
    Family::new(MICROSOFT, &["QLinearLeakyRelu", "QLinearSigmoid"], &["alpha"], |call| {
        parameters(call, &[0])?;
        unary(call)
    }),
    Family::new(MICROSOFT, &["QLinearGlobalAveragePool"], &["channels_last"], global_pool),
    Family::new(
        MICROSOFT,
        &["MatMulNBits"],
        &["K", "N", "accuracy_level", "bits", "block_size", "weight_prepacked"],
        packed,
    ),
];

/// # Errors
/// If an input that is not one of `tensors` depends on rows.
fn parameters(call: &Call<'_, '_>, tensors: &[usize]) -> Result<(), Blame> {
    let others = call.inputs.iter().enumerate().filter(|(index, _)| !tensors.contains(index));
    match others.filter_map(|(_, value)| value.as_ref()).all(Value::is_same) {
        true => Ok(()),
        false => Err(call.unknown("has parameters that depend on rows")),
    }
}

fn is_single(value: &Value<'_>) -> bool {
    value.dims.as_ref().is_some_and(|dims| dims.iter().all(|dim| dim.is(1)))
}

fn linear<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    call.same_from(1)?;
    let (x, scale) = (call.input(0)?, call.input(1)?);
    if let (Some(rows), Some(rank)) = (x.row_axis(), x.rank())
        && !is_single(scale)
    {
        // A scale per index along an axis, or per block.
        if scale.rank() != Some(1) || call.axis(call.integer("axis")?.unwrap_or(1), rank)? == rows {
            return Err(call.unknown("has scales that can't be followed"));
        }
    }
    unary(call)
}

fn dynamic<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    match call.given().iter().all(|value| value.is_same()) {
        true => Ok(vec![Value::same(None); call.node.outputs.len()]),
        false => Err(call.dependent("takes its scale from all rows")),
    }
}

/// A product of quantized matrices. `single` are parameters that could be one per row on the left.
fn matrices<'a>(call: &Call<'_, 'a>, [a, b]: [usize; 2], single: &[usize]) -> Outcome<'a> {
    parameters(call, &[a, b])?;
    let (left, right) = (call.input(a)?, call.input(b)?);
    let singles = single.iter().filter_map(|index| call.optional(*index)).all(is_single);
    if !left.is_same() && !singles || !right.is_same() {
        return Err(call.unknown("has scales that can't be followed"));
    }
    Ok(vec![product(call, left, right)?])
}

fn gemm<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    parameters(call, &[0])?;
    if call.flag("transA", false)? {
        return Err(call.unknown("exchanges dimensions in a way that can't be followed"));
    }
    let x = call.input(0)?;
    if x.row_axis().is_some_and(|rows| Some(rows + 1) == x.rank()) {
        return Err(call.dependent("sums over the rows"));
    }
    let Some(dims) = images(call)? else { return Ok(vec![Value::same(None)]) };
    let place = usize::from(!call.flag("transB", false)?);
    let columns = call.input(3)?.dims.as_ref().and_then(|dims| dims.get(place).cloned());
    with_first(call, &dims, [columns.unwrap_or_else(|| call.fresh())].into_iter().collect())
}

fn global_pool<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    call.same_from(1)?;
    let Some(dims) = images(call)? else { return Ok(vec![Value::same(None)]) };
    let channels = if call.flag("channels_last", false)? { dims.len().saturating_sub(1) } else { 1 };
    let rest = dims.iter().enumerate().skip(1);
    let rest = rest.map(|(axis, dim)| if axis == channels { dim.clone() } else { Product::of(1) });
    with_first(call, &dims, rest.collect())
}

/// A product with weights of a few bits.
fn packed<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    call.same_from(1)?;
    let x = call.input(0)?;
    let Some(mut dims) = x.dims.clone() else { return Ok(vec![Value::same(None)]) };
    let last = dims.len().checked_sub(1).ok_or_else(|| call.malformed())?;
    if x.row_axis() == Some(last) {
        return Err(call.dependent("sums over the rows"));
    }
    dims[last] = call.integer("N")?.map_or_else(|| call.fresh(), Product::of);
    Ok(vec![call.like(x, dims)?])
}

//! Sums of products: matrix products and einsum.

use super::elementwise::broadcast;
use super::family::{Family, MICROSOFT, ONNX};
use crate::analysis::call::{Call, Outcome};
use crate::analysis::lattice::{Blame, Dims, Product, Spread, Value};

pub(super) const FAMILIES: &[Family] = &[
    Family::new(ONNX, &["MatMul"], &[], |call| Ok(vec![product(call, call.input(0)?, call.input(1)?)?])),
    Family::new(ONNX, &["Gemm"], &["alpha", "beta", "broadcast", "transA", "transB"], gemm),
    Family::new(
        MICROSOFT,
        &["FusedGemm"],
        &[
            "alpha",
            "beta",
            "transA",
            "transB",
            "activation",
            "activation_alpha",
            "activation_beta",
            "activation_gamma",
        ],
        gemm,
    ),
    Family::new(
        MICROSOFT,
        &["FusedMatMul", "TransposeMatMul"],
        &["alpha", "transA", "transB", "transBatchA", "transBatchB"],
        fused,
    ),
    Family::new(MICROSOFT, &["CDist"], &["metric"], distances),
    Family::new(ONNX, &["Einsum"], &["equation"], einsum),
    Family::new(ONNX, &["Det"], &[], determinant),
    Family::new(MICROSOFT, &["Inverse"], &[], inverse),
];

/// The product of `a` and `b` as stacks of matrices.
pub(super) fn product<'a>(call: &Call<'_, 'a>, a: &Value<'a>, b: &Value<'a>) -> Result<Value<'a>, Blame> {
    let (Some(left), Some(right)) = (&a.dims, &b.dims) else {
        return match a.is_same() && b.is_same() {
            true => Ok(Value::same(None)),
            false => Err(call.unknown("has an input of which the dimensions aren't known")),
        };
    };
    if left.is_empty() || right.is_empty() {
        return Err(call.malformed());
    }
    // A list is a row on the left and a column on the right, and that dimension is dropped from the result.
    let (rows_of, columns_of) = (left.len() > 1, right.len() > 1);
    let summed = [a.row_axis() == Some(left.len() - 1), b.row_axis() == Some(right.len().saturating_sub(2))];
    if summed.contains(&true) {
        return Err(call.dependent("sums over the rows"));
    }
    let stack = |value: &Value<'a>, dims: &Dims| {
        let kept: Dims = dims[..dims.len().saturating_sub(2)].iter().cloned().collect();
        let axis = value.row_axis().filter(|axis| *axis < kept.len());
        call.like_rows(axis, kept)
    };
    let stacked = broadcast(call, &[&stack(a, left), &stack(b, right)])?;
    let mut dims = stacked.dims.clone().unwrap_or_default();
    let mut axes: Vec<usize> = stacked.row_axis().into_iter().collect();
    if rows_of {
        if a.row_axis() == Some(left.len() - 2) {
            axes.push(dims.len());
        }
        dims.push(left[left.len() - 2].clone());
    }
    if columns_of {
        if b.row_axis() == Some(right.len() - 1) {
            axes.push(dims.len());
        }
        dims.push(right[right.len() - 1].clone());
    }
    match axes[..] {
        [] => Ok(Value::same(Some(dims))),
        [axis] => Ok(Value::rows(dims, axis)),
        _ => Err(call.dependent("pairs rows with each other")),
    }
}

/// `value` with its last two dimensions exchanged.
fn transposed<'a>(call: &Call<'_, 'a>, value: &Value<'a>) -> Result<Value<'a>, Blame> {
    let Some(mut dims) = value.dims.clone() else { return Ok(value.clone()) };
    let last = dims.len().checked_sub(1).ok_or_else(|| call.malformed())?;
    if last == 0 {
        return Ok(value.clone());
    }
    dims.swap(last, last - 1);
    let moved = |axis| {
        if axis == last {
            last - 1
        } else if axis + 1 == last {
            last
        } else {
            axis
        }
    };
    Ok(call.like_rows(value.row_axis().map(moved), dims))
}

fn gemm<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let turned = |index, name| {
        let value = call.input(index)?;
        if call.flag(name, false)? { transposed(call, value) } else { Ok(value.clone()) }
    };
    let product = product(call, &turned(0, "transA")?, &turned(1, "transB")?)?;
    Ok(vec![match call.optional(2) {
        Some(added) => broadcast(call, &[&product, added])?,
        None => product,
    }])
}

fn fused<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    if call.flag("transBatchA", false)? || call.flag("transBatchB", false)? {
        return Err(call.unknown("exchanges dimensions in a way that can't be followed"));
    }
    gemm(call)
}

/// Distances of each row on the left to each row on the right.
fn distances<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let right = transposed(call, call.input(1)?)?;
    Ok(vec![product(call, call.input(0)?, &right)?])
}

fn determinant<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    let Some(dims) = &x.dims else { return Ok(vec![Value::same(None)]) };
    let kept: Dims = dims[..dims.len().saturating_sub(2)].iter().cloned().collect();
    match x.row_axis() {
        Some(rows) if rows >= kept.len() => Err(call.dependent("sums over the rows")),
        rows => Ok(vec![call.like_rows(rows, kept)]),
    }
}

fn inverse<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    match (x.row_axis(), x.rank()) {
        (Some(rows), Some(rank)) if rows + 2 >= rank => Err(call.dependent("sums over the rows")),
        _ => Ok(vec![Value { numbers: None, constant: None, ..x.clone() }]),
    }
}

fn einsum<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let equation = call.text("equation")?.ok_or_else(|| call.malformed())?;
    let equation: Vec<u8> = equation.iter().filter(|byte| !byte.is_ascii_whitespace()).copied().collect();
    let text = std::str::from_utf8(&equation).map_err(|_| call.malformed())?;
    let (inputs, output) =
        text.split_once("->").ok_or_else(|| call.unknown("has an equation without a result"))?;
    let terms: Vec<&str> = inputs.split(',').collect();
    let values = call.given();
    if text.contains('.') || terms.len() != values.len() {
        return Err(call.unknown("has an equation that can't be followed"));
    }
    let mut sizes: Vec<(char, Product)> = Vec::new();
    let mut rows: Option<char> = None;
    for (term, value) in terms.iter().zip(&values) {
        let dims = call.dims(value)?;
        if term.len() != dims.len() {
            return Err(call.malformed());
        }
        for (axis, label) in term.chars().enumerate() {
            if value.row_axis() == Some(axis) {
                if rows.is_some_and(|rows| rows != label) {
                    return Err(call.dependent("pairs rows with each other"));
                }
                rows = Some(label);
            }
            let Some((_, size)) = sizes.iter_mut().find(|(other, _)| *other == label) else {
                sizes.push((label, dims[axis].clone()));
                continue;
            };
            match *size != dims[axis] {
                false => {}
                // A single element would be broadcast differently in the lone run and the joint run.
                true if size.has_rows() || dims[axis].has_rows() => {
                    return Err(call.unknown("pairs rows of unlike sizes"));
                }
                true => *size = if size.is(1) { dims[axis].clone() } else { call.fresh() },
            }
        }
    }
    if let Some(rows) = rows {
        // A tensor that is the same in every run must not have the rows' index, and an index must not repeat.
        for (term, value) in terms.iter().zip(&values) {
            let times = term.chars().filter(|label| *label == rows).count();
            if times > 1 || (times == 1) != matches!(value.spread, Spread::Rows { .. }) {
                return Err(call.unknown("pairs rows of unlike sizes"));
            }
        }
        if !output.contains(rows) {
            return Err(call.dependent("sums over the rows"));
        }
    }
    let size = |label| sizes.iter().find(|(other, _)| *other == label).map(|(_, size)| size.clone());
    let dims: Option<Dims> = output.chars().map(size).collect();
    let axis = rows.and_then(|rows| output.chars().position(|label| label == rows));
    Ok(vec![call.like_rows(axis, dims.ok_or_else(|| call.malformed())?)])
}

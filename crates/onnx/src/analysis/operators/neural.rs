//! Convolutions, pooling, and other operators on images and signals: rows are along the first axis, or not
//! followed.

use std::rc::Rc;

use smallvec::smallvec;

use super::family::{Family, MICROSOFT, ONNX};
use crate::analysis::call::{Call, Outcome};
use crate::analysis::lattice::{Blame, Dims, Product, Value};

const WINDOW: &[&str] = &[
    "auto_pad",
    "ceil_mode",
    "count_include_pad",
    "dilations",
    "group",
    "kernel_shape",
    "output_padding",
    "output_shape",
    "p",
    "pads",
    "storage_order",
    "strides",
];

pub(super) const FAMILIES: &[Family] = &[
    Family::new(ONNX, &["Conv", "ConvInteger"], WINDOW, |call| convolution(call, 1)),
    Family::new(
        MICROSOFT,
        &["FusedConv"],
        &[
            "auto_pad",
            "dilations",
            "group",
            "kernel_shape",
            "pads",
            "strides",
            "activation",
            "activation_params",
        ],
        fused,
    ),
    Family::new(ONNX, &["QLinearConv"], WINDOW, |call| convolution(call, 3)),
    Family::new(ONNX, &["ConvTranspose"], WINDOW, |call| convolution(call, 1)),
    Family::new(ONNX, &["AveragePool", "LpPool", "MaxPool"], WINDOW, pool),
    Family::new(ONNX, &["GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool"], &["p"], global_pool),
    Family::new(ONNX, &["DepthToSpace"], &["blocksize", "mode"], |call| blocks(call, true)),
    Family::new(ONNX, &["SpaceToDepth"], &["blocksize", "mode"], |call| blocks(call, false)),
    Family::new(ONNX, &["GridSample"], &["align_corners", "mode", "padding_mode"], grid_sample),
    Family::new(ONNX, &["AffineGrid"], &["align_corners"], affine_grid).counting(),
    Family::new(
        ONNX,
        &["DeformConv"],
        &["dilations", "group", "kernel_shape", "offset_group", "pads", "strides"],
        deformable,
    ),
    Family::new(ONNX, &["Col2Im"], &["dilations", "pads", "strides"], col2im),
    Family::new(ONNX, &["DFT"], &["axis", "inverse", "onesided"], dft),
    Family::new(ONNX, &["STFT"], &["onesided"], stft),
];

/// The dimensions of the first input, whose rows, if it has any, are along the first axis.
///
/// # Errors
/// If they are along another, or a tensor with rows has unknown dimensions.
pub(super) fn images<'a>(call: &Call<'_, 'a>) -> Result<Option<Dims>, Blame> {
    let x = call.input(0)?;
    match x.row_axis() {
        Some(0) => call.dims(x).map(|dims| Some(dims.clone())),
        Some(_) => Err(call.unknown("has rows along another axis than the first")),
        None => Ok(x.dims.clone()),
    }
}

/// A value with the first dimension of `dims`, and these others.
pub(super) fn with_first<'a>(call: &Call<'_, 'a>, dims: &Dims, rest: Dims) -> Outcome<'a> {
    let first = dims.first().ok_or_else(|| call.malformed())?;
    Ok(vec![call.row_wise(first, rest)])
}

/// `filters` is the input with the weights; they, and all others but the first, are parameters.
fn convolution<'a>(call: &Call<'_, 'a>, filters: usize) -> Outcome<'a> {
    call.same_from(1)?;
    let Some(dims) = images(call)? else { return Ok(vec![Value::same(None)]) };
    let weights = call.input(filters)?.dims.clone().unwrap_or_default();
    let turned = call.node.operator == "ConvTranspose";
    let group = Product::of(call.integer("group")?.unwrap_or(1));
    let channels = match turned {
        true => weights.get(1).and_then(|channels| channels.times(&group)),
        false => weights.first().cloned(),
    };
    let mut rest: Dims = smallvec![channels.unwrap_or_else(|| call.fresh())];
    let kernel: Vec<Option<i64>> = weights.iter().skip(2).map(Product::constant).collect();
    let sizes = dims.get(2..).unwrap_or_default();
    rest.extend(match turned {
        true => sizes.iter().map(|_| call.fresh()).collect(),
        false => windows(call, sizes, &kernel)?,
    });
    with_first(call, &dims, rest)
}

/// A convolution to which a fourth input is added.
fn fused<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let (x, added) = (call.input(0)?, call.optional(3));
    if call.input(1)?.is_same() && call.optional(2).is_none_or(Value::is_same) {
        let dims = images(call)?.unwrap_or_default();
        let first = added.map_or(dims.first(), |added| added.dims.as_ref().and_then(|dims| dims.first()));
        if added.is_none_or(|added| added.row_axis() == x.row_axis())
            && first == dims.first()
            && !dims.is_empty()
        {
            let weights = call.input(1)?.dims.clone().unwrap_or_default();
            let mut rest: Dims = smallvec![weights.first().cloned().unwrap_or_else(|| call.fresh())];
            let kernel: Vec<Option<i64>> = weights.iter().skip(2).map(Product::constant).collect();
            rest.extend(windows(call, dims.get(2..).unwrap_or_default(), &kernel)?);
            return with_first(call, &dims, rest);
        }
    }
    Err(call.unknown("has parameters that depend on rows"))
}

/// How many windows fit into each of `sizes`.
fn windows<'a>(call: &Call<'_, 'a>, sizes: &[Product], kernel: &[Option<i64>]) -> Result<Dims, Blame> {
    let list = |name| Ok::<_, Blame>(call.integers(name)?.unwrap_or_default());
    let (strides, pads, dilations) = (list("strides")?, list("pads")?, list("dilations")?);
    let auto = call.text("auto_pad")?.unwrap_or(b"NOTSET");
    let rounds_up = call.flag("ceil_mode", false)?;
    let at = |list: &[i64], axis: usize, default| list.get(axis).copied().unwrap_or(default);
    let fit = |axis: usize| -> Option<i64> {
        let (size, kernel) = (sizes[axis].constant()?, (*kernel.get(axis)?)?);
        let (stride, dilation) = (at(&strides, axis, 1), at(&dilations, axis, 1));
        if stride < 1 || rounds_up {
            return None;
        }
        let window = (kernel - 1).checked_mul(dilation)? + 1;
        match auto {
            b"SAME_UPPER" | b"SAME_LOWER" => Some((size + stride - 1) / stride),
            b"VALID" => Some((size - window) / stride + 1),
            _ => {
                let padded = size + at(&pads, axis, 0) + at(&pads, axis + sizes.len(), 0);
                Some((padded - window) / stride + 1)
            }
        }
    };
    Ok((0..sizes.len())
        .map(|axis| fit(axis).filter(|count| *count > 0).map_or_else(|| call.fresh(), Product::of))
        .collect())
}

fn pool<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let Some(dims) = images(call)? else { return Ok(vec![Value::same(None)]) };
    let kernel: Vec<_> = call.integers("kernel_shape")?.unwrap_or_default().into_iter().map(Some).collect();
    let mut rest: Dims = dims.get(1..2).unwrap_or_default().iter().cloned().collect();
    rest.extend(windows(call, dims.get(2..).unwrap_or_default(), &kernel)?);
    let mut made = with_first(call, &dims, rest)?;
    // Indices count over all rows.
    made.push(Value::mixed(Rc::new(call.unknown("counts places over all rows"))));
    Ok(made)
}

fn global_pool<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let Some(dims) = images(call)? else { return Ok(vec![Value::same(None)]) };
    let rest = dims
        .iter()
        .enumerate()
        .skip(1)
        .map(|(axis, dim)| if axis == 1 { dim.clone() } else { Product::of(1) });
    with_first(call, &dims, rest.collect())
}

fn blocks<'a>(call: &Call<'_, 'a>, to_space: bool) -> Outcome<'a> {
    let Some(dims) = images(call)? else { return Ok(vec![Value::same(None)]) };
    let block = Product::of(call.integer("blocksize")?.ok_or_else(|| call.malformed())?);
    let square = block.times(&block).ok_or_else(|| call.malformed())?;
    let scaled = |dim: &Product, factor: &Product, larger: bool| {
        let scaled = if larger { dim.times(factor) } else { dim.divided_by(factor) };
        scaled.unwrap_or_else(|| call.fresh())
    };
    let rest = dims.iter().enumerate().skip(1);
    let rest = rest.map(|(axis, dim)| match axis {
        1 => scaled(dim, &square, !to_space),
        _ => scaled(dim, &block, to_space),
    });
    with_first(call, &dims, rest.collect())
}

/// The number of rows if every input has them along its first axis; `None` if none has rows.
pub(super) fn all_by_rows<'a>(call: &Call<'_, 'a>) -> Result<Option<Product>, Blame> {
    let values = call.given();
    if values.iter().all(|value| value.is_same()) {
        return Ok(None);
    }
    let mut first = None;
    for value in values {
        let dim = call.dims(value)?.first().filter(|_| value.row_axis() == Some(0)).cloned();
        if dim.is_none() || first.as_ref().is_some_and(|first| Some(first) != dim.as_ref()) {
            return Err(call.unknown("combines rows with a tensor that has others of its own"));
        }
        first = dim;
    }
    Ok(first)
}

fn grid_sample<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let Some(rows) = all_by_rows(call)? else { return Ok(vec![Value::same(None)]) };
    let (x, grid) = (call.dims(call.input(0)?)?, call.dims(call.input(1)?)?);
    let places = grid.get(1..grid.len().saturating_sub(1)).unwrap_or_default();
    let rest: Dims = x.get(1..2).unwrap_or_default().iter().chain(places).cloned().collect();
    Ok(vec![call.row_wise(&rows, rest)])
}

fn affine_grid<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let (theta, size) = (call.input(0)?, call.input(1)?);
    let sizes: Option<Dims> = size.numbers.as_ref().and_then(|numbers| numbers.iter().cloned().collect());
    let (Some(dims), Some(sizes)) = (&theta.dims, sizes) else {
        return match theta.is_same() && size.is_same() {
            true => Ok(vec![Value::same(None)]),
            false => Err(call.unknown("has a shape that can't be followed")),
        };
    };
    if dims.first() != sizes.first() || !matches!(theta.row_axis(), None | Some(0)) {
        return Err(call.unknown("has a shape with other rows than its input"));
    }
    let spatial = sizes.get(2..).unwrap_or_default();
    let last = Product::of(spatial.len() as i64);
    with_first(call, dims, spatial.iter().cloned().chain([last]).collect())
}

fn deformable<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let (x, filters) = (call.input(0)?, call.input(1)?);
    if !filters.is_same() || !call.optional(3).is_none_or(Value::is_same) {
        return Err(call.unknown("has parameters that depend on rows"));
    }
    let Some(dims) = images(call)? else { return Ok(vec![Value::same(None)]) };
    for value in [call.optional(2), call.optional(4)].into_iter().flatten() {
        if value.row_axis() != x.row_axis() || call.dims(value)?.first() != dims.first() {
            return Err(call.unknown("combines rows with a tensor that has others of its own"));
        }
    }
    with_first(call, &dims, dims.iter().skip(1).map(|_| call.fresh()).collect())
}

fn col2im<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    call.same_from(1)?;
    let Some(dims) = images(call)? else { return Ok(vec![Value::same(None)]) };
    let shape = call.input(1)?.dims.as_ref().and_then(|dims| usize::try_from(dims.first()?.constant()?).ok());
    let rank = shape.ok_or_else(|| call.unknown("has a shape that can't be followed"))? + 1;
    with_first(call, &dims, (0..rank).map(|_| call.fresh()).collect())
}

/// Along an axis that is not the rows'.
fn dft<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    call.same_from(1)?;
    let Some(dims) = images(call)? else { return Ok(vec![Value::same(None)]) };
    let axis = match call.version {
        ..20 => Some(call.integer("axis")?.unwrap_or(1)),
        _ => call.optional(2).map_or(Some(-2), Value::constant_scalar),
    };
    let axis = call.axis(axis.ok_or_else(|| call.unknown("has axes that aren't constant"))?, dims.len())?;
    if axis == 0 && !call.input(0)?.is_same() {
        return Err(call.dependent("runs along the rows"));
    }
    with_first(call, &dims, dims.iter().skip(1).map(|_| call.fresh()).collect())
}

fn stft<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    call.same_from(1)?;
    let Some(dims) = images(call)? else { return Ok(vec![Value::same(None)]) };
    with_first(call, &dims, (0..3).map(|_| call.fresh()).collect())
}

//! Reductions along axes, and operators that run along one.

use smallvec::smallvec;

use super::family::{Family, ONNX};
use crate::analysis::call::{Call, Outcome};
use crate::analysis::lattice::{Dims, Product, Spread, Value};

pub(super) const FAMILIES: &[Family] = &[
    Family::new(
        ONNX,
        &[
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "ReduceSumSquare",
        ],
        &["axes", "keepdims", "noop_with_empty_axes"],
        reduce,
    )
    .counting(),
    Family::new(ONNX, &["ArgMax", "ArgMin"], &["axis", "keepdims", "select_last_index"], arg),
    Family::new(ONNX, &["TopK"], &["axis", "k", "largest", "sorted"], top_k),
    Family::new(ONNX, &["CumSum", "CumProd"], &["exclusive", "reverse"], cumulate),
];

fn reduce<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    if let (Some(numbers), Some(1), "ReduceProd", None) =
        (&x.numbers, x.rank(), call.node.operator, call.optional(1))
        && call.integers("axes")?.is_none_or(|axes| axes == [0])
    {
        let known: Option<Vec<Product>> = numbers.iter().cloned().collect();
        let product = known.and_then(|known| Product::of_all(&known));
        if product.is_some() || !matches!(x.spread, Spread::Counts) {
            let keeps = call.flag("keepdims", true)?;
            let dims = if keeps { smallvec![Product::of(1)] } else { Dims::new() };
            return Ok(vec![Value::of_numbers(dims, [product].into_iter().collect())]);
        }
    }
    if matches!(x.spread, Spread::Counts) {
        return Err(call.dependent("computes with the number of rows"));
    }
    let since = if call.node.operator == "ReduceSum" { 13 } else { 18 };
    let axes = call.axes(since, 1)?.filter(|axes| !axes.is_empty());
    if axes.is_none() && call.flag("noop_with_empty_axes", false)? {
        return Ok(vec![Value { numbers: None, constant: None, ..x.clone() }]);
    }
    reduced(call, axes)
}

fn arg<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let axis = call.integer("axis")?.unwrap_or(0);
    reduced(call, Some(vec![axis]))
}

/// The first input reduced along `axes`, or along all.
fn reduced<'a>(call: &Call<'_, 'a>, axes: Option<Vec<i64>>) -> Outcome<'a> {
    let x = call.input(0)?;
    let Some(dims) = &x.dims else { return Ok(vec![Value::same(None)]) };
    let axes: Vec<usize> = match axes {
        None => (0..dims.len()).collect(),
        Some(axes) => axes.iter().map(|axis| call.axis(*axis, dims.len())).collect::<Result<_, _>>()?,
    };
    if x.row_axis().is_some_and(|rows| axes.contains(&rows)) {
        return Err(call.dependent("reduces over the rows"));
    }
    let keeps = call.flag("keepdims", true)?;
    let mut made = Dims::new();
    let mut rows = None;
    for (axis, dim) in dims.iter().enumerate() {
        match (axes.contains(&axis), keeps) {
            (true, false) => continue,
            (true, true) => made.push(Product::of(1)),
            (false, _) => made.push(dim.clone()),
        }
        if x.row_axis() == Some(axis) {
            rows = Some(made.len() - 1);
        }
    }
    Ok(vec![call.like_rows(rows, made)])
}

fn top_k<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    call.same_from(1)?;
    let x = call.input(0)?;
    let Some(dims) = &x.dims else { return Ok(vec![Value::same(None); 2]) };
    let axis = call.axis(call.integer("axis")?.unwrap_or(-1), dims.len())?;
    if x.row_axis() == Some(axis) {
        return Err(call.dependent("sorts the rows"));
    }
    let count = if call.version < 10 { call.integer("k")? } else { call.input(1)?.constant_scalar() };
    let mut made = dims.clone();
    made[axis] = count.map(Product::of).filter(Product::is_size).unwrap_or_else(|| call.fresh());
    let made = call.like(x, made)?;
    Ok(vec![made.clone(), made])
}

fn cumulate<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    call.same_from(1)?;
    let x = call.input(0)?;
    if let (Some(rows), Some(dims)) = (x.row_axis(), &x.dims) {
        let axis =
            call.input(1)?.constant_scalar().ok_or_else(|| call.unknown("has axes that aren't constant"))?;
        if call.axis(axis, dims.len())? == rows {
            return Err(call.dependent("runs along the rows"));
        }
    }
    Ok(vec![Value { numbers: None, constant: None, ..x.clone() }])
}

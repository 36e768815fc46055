//! Constants, and tensors made of sizes.

use smallvec::smallvec;

use super::family::{Family, ONNX};
use crate::analysis::call::{Call, Outcome};
use crate::analysis::constant::constant;
use crate::analysis::lattice::{Dims, NUMBERS_MAX, Product, Spread, Value};
use crate::file::wire::Malformed;

pub(super) const FAMILIES: &[Family] = &[
    Family::new(
        ONNX,
        &["Constant"],
        &[
            "value",
            "value_int",
            "value_ints",
            "value_float",
            "value_floats",
            "value_string",
            "value_strings",
            "sparse_value",
        ],
        from_file,
    ),
    Family::new(ONNX, &["Shape"], &["start", "end"], shape).counting(),
    Family::new(ONNX, &["Size"], &[], size).counting(),
    Family::new(ONNX, &["ConstantOfShape"], &["value"], constant_of_shape).counting(),
    Family::new(ONNX, &["Range"], &["stash_type"], range).counting(),
    Family::new(ONNX, &["EyeLike"], &["dtype", "k"], eye_like),
    Family::new(
        ONNX,
        &["BlackmanWindow", "HammingWindow", "HannWindow"],
        &["output_datatype", "periodic"],
        |call| of_parameters(call, 1),
    ),
    Family::new(ONNX, &["MelWeightMatrix"], &["output_datatype"], |call| of_parameters(call, 2)),
];

fn from_file<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    if let Some(tensor) = call.tensor("value")? {
        return Ok(vec![constant(&tensor)]);
    }
    if let Some(integer) = call.integer("value_int")? {
        return Ok(vec![Value::scalar(Some(Product::of(integer)))]);
    }
    if let Some(integers) = call.integers("value_ints")? {
        let count = integers.len();
        let list = Value::list(integers.into_iter().map(|integer| Some(Product::of(integer))));
        return Ok(vec![if count > NUMBERS_MAX { Value { numbers: None, ..list } } else { list }]);
    }
    if let Some(attribute) = call.attribute("value_floats")? {
        let count = attribute.floats().map_err(|Malformed| call.malformed())?.len();
        return Ok(vec![Value::same(Some(smallvec![Product::of(count as i64)]))]);
    }
    if let Some(attribute) = call.attribute("value_strings")? {
        let count = attribute.texts().map_err(|Malformed| call.malformed())?.len();
        return Ok(vec![Value::same(Some(smallvec![Product::of(count as i64)]))]);
    }
    let scalar = call.attribute("value_float")?.is_some() || call.attribute("value_string")?.is_some();
    Ok(vec![Value::same(scalar.then(Dims::new))])
}

fn shape<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let Some(dims) = &call.input(0)?.dims else {
        return Ok(vec![Value::same(Some(smallvec![call.fresh()]))]);
    };
    let rank = dims.len() as i64;
    let place = |place: i64| (if place < 0 { place + rank } else { place }).clamp(0, rank) as usize;
    let start = place(call.integer("start")?.unwrap_or(0));
    let end = place(call.integer("end")?.unwrap_or(rank)).max(start);
    Ok(vec![Value::list(dims[start..end].iter().cloned().map(Some))])
}

fn size<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    let product = x.dims.as_ref().and_then(|dims| Product::of_all(dims));
    if product.is_none() && !x.is_same() {
        return Err(call.unknown("loses sight of the rows"));
    }
    Ok(vec![Value::scalar(product)])
}

/// The dimensions in the elements of `shape`. `None` if their number is unknown.
pub(super) fn dims_of<'a>(call: &Call<'_, 'a>, shape: &Value<'a>) -> Option<Dims> {
    if let Some(numbers) = &shape.numbers {
        return Some(numbers.iter().map(|number| number.clone().unwrap_or_else(|| call.fresh())).collect());
    }
    let [count] = &shape.dims.as_ref()?[..] else { return None };
    let count = usize::try_from(count.constant()?).ok().filter(|count| *count <= NUMBERS_MAX)?;
    Some((0..count).map(|_| call.fresh()).collect())
}

/// A tensor of these dimensions in which all rows are equal.
///
/// # Errors
/// If more than one of them contains the number of rows.
pub(super) fn alike<'a>(call: &Call<'_, 'a>, dims: Dims) -> Outcome<'a> {
    let counted: Vec<usize> = (0..dims.len()).filter(|axis| dims[*axis].has_rows()).collect();
    match counted[..] {
        [] => Ok(vec![Value::same(Some(dims))]),
        [axis] => Ok(vec![Value::rows(dims, axis)]),
        _ => Err(call.unknown("has rows along more than one axis")),
    }
}

fn constant_of_shape<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let shape = call.input(0)?;
    if shape.row_axis().is_some() {
        return Err(call.unknown("has a shape that depends on rows"));
    }
    let Some(dims) = dims_of(call, shape) else { return Ok(vec![Value::same(None)]) };
    let filled = match call.tensor("value")? {
        None => None,
        Some(tensor) => constant(&tensor).constant_scalar(),
    };
    let count = Product::of_all(&dims).and_then(|count| count.constant());
    match (filled, count.and_then(|count| usize::try_from(count).ok())) {
        (Some(filled), Some(count)) if count <= NUMBERS_MAX => {
            let numbers = vec![Some(Product::of(filled)); count];
            Ok(vec![Value::of_numbers(dims, numbers.into())])
        }
        _ => alike(call, dims),
    }
}

fn range<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let given = [call.input(0)?, call.input(1)?, call.input(2)?];
    if given.iter().any(|value| matches!(value.spread, Spread::Counts)) {
        return Err(call.dependent("numbers the rows"));
    }
    if given.iter().any(|value| !value.is_same()) {
        return Err(call.unknown("has a length that depends on rows"));
    }
    if let [Some(start), Some(limit), Some(step)] = given.map(Value::constant_scalar)
        && step != 0
    {
        let end = |number: &i64| if step > 0 { *number < limit } else { *number > limit };
        let numbers = std::iter::successors(Some(start), |number| number.checked_add(step)).take_while(end);
        let numbers: Vec<_> = numbers.take(NUMBERS_MAX + 1).map(|number| Some(Product::of(number))).collect();
        if numbers.len() <= NUMBERS_MAX {
            return Ok(vec![Value::list(numbers)]);
        }
    }
    // From 0 in steps of 1 it is as long as the limit says.
    let count = match (given[0].constant_scalar(), given[2].constant_scalar(), given[1].numbers.as_deref()) {
        (Some(0), Some(1), Some([Some(limit)])) if limit.is_size() => limit.clone(),
        _ => call.fresh(),
    };
    Ok(vec![Value::same(Some(smallvec![count]))])
}

fn eye_like<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    if !x.is_same() {
        return Err(call.dependent("numbers the rows"));
    }
    Ok(vec![Value::same(x.dims.clone())])
}

/// Depends on parameters alone.
fn of_parameters<'a>(call: &Call<'_, 'a>, rank: usize) -> Outcome<'a> {
    call.same_from(0)?;
    Ok(vec![Value::same(Some((0..rank).map(|_| call.fresh()).collect()))])
}

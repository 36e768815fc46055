//! Operators that take elements by index, concatenate and split.

use smallvec::smallvec;

use super::family::{Family, ONNX};
use crate::analysis::call::{Call, Outcome};
use crate::analysis::lattice::{Blame, Dims, NUMBERS_MAX, Product, Spread, Value};

pub(super) const FAMILIES: &[Family] = &[
    Family::new(ONNX, &["Concat"], &["axis"], concat).counting(),
    Family::new(ONNX, &["Split"], &["axis", "num_outputs", "split"], split).counting(),
    Family::new(ONNX, &["Gather"], &["axis"], gather).counting(),
    Family::new(ONNX, &["GatherElements"], &["axis"], gather_elements),
    Family::new(ONNX, &["GatherND"], &["batch_dims"], gather_nd),
    Family::new(ONNX, &["Scatter", "ScatterElements"], &["axis", "reduction"], scatter_elements),
    Family::new(ONNX, &["ScatterND"], &["reduction"], scatter_nd),
    Family::new(ONNX, &["Compress"], &["axis"], compress),
    Family::new(ONNX, &["NonZero"], &[], non_zero),
    Family::new(ONNX, &["Unique"], &["axis", "sorted"], unique),
    Family::new(ONNX, &["NonMaxSuppression"], &["center_point_box"], non_zero),
    Family::new(ONNX, &["OneHot"], &["axis"], one_hot),
    Family::new(ONNX, &["ReverseSequence"], &["batch_axis", "time_axis"], reverse_sequence),
    Family::new(ONNX, &["Trilu"], &["upper"], trilu),
];

fn by_number(call: &Call<'_, '_>) -> Blame {
    call.dependent("takes rows by their number")
}

fn concat<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let values = call.given();
    let axis = call.integer("axis")?.unwrap_or(1);
    let lists: Option<Vec<_>> =
        values.iter().map(|value| value.numbers.as_ref().filter(|_| value.rank() == Some(1))).collect();
    if let Some(lists) = lists
        && lists.iter().map(|list| list.len()).sum::<usize>() <= NUMBERS_MAX
    {
        return Ok(vec![Value::list(lists.iter().flat_map(|list| list.iter().cloned()))]);
    }
    if values.iter().any(|value| matches!(value.spread, Spread::Counts)) {
        return Err(call.dependent("computes with the number of rows"));
    }
    let rows = values.iter().find_map(|value| value.row_axis());
    if rows.is_none() && values.iter().any(|value| value.dims.is_none()) {
        return Ok(vec![Value::same(None)]);
    }
    let all: Vec<&Dims> = values.iter().map(|value| call.dims(value)).collect::<Result<_, _>>()?;
    let first = *all.first().ok_or_else(|| call.malformed())?;
    let axis = call.axis(axis, first.len())?;
    if all.iter().any(|dims| dims.len() != first.len()) {
        return Err(call.malformed());
    }
    if let Some(rows) = rows {
        if rows == axis {
            return Err(call.unknown("joins rows with others"));
        }
        if values.iter().any(|value| value.row_axis() != Some(rows))
            || all.iter().any(|dims| dims[rows] != first[rows])
        {
            return Err(call.unknown("joins rows with a tensor that has others of its own"));
        }
    }
    let mut dims = first.clone();
    let sum = all[1..].iter().try_fold(first[axis].clone(), |sum, next| sum.plus(&next[axis]));
    dims[axis] = sum.unwrap_or_else(|| call.fresh());
    Ok(vec![call.like_rows(rows, dims)])
}

fn split<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    let count = call.node.outputs.len();
    let Some(dims) = &x.dims else {
        return if x.is_same() { Ok(vec![Value::same(None); count]) } else { Err(call.malformed()) };
    };
    let axis = call.axis(call.integer("axis")?.unwrap_or(0), dims.len())?;
    if x.row_axis() == Some(axis) {
        return Err(call.unknown("splits the rows"));
    }
    let sizes = match call.version {
        ..13 => call.integers("split")?.filter(|sizes| !sizes.is_empty()),
        _ => match call.optional(1) {
            None => None,
            Some(sizes) if sizes.is_same() => sizes.constants().or(Some(Vec::new())),
            Some(_) => return Err(call.unknown("splits by what depends on rows")),
        },
    };
    let whole = dims[axis].divided_by(&Product::of(count as i64)).filter(|_| sizes.is_none());
    let mut start = 0;
    (0..count)
        .map(|part| {
            let size = sizes.as_ref().and_then(|sizes| sizes.get(part)).map(|size| Product::of(*size));
            let size = size.or_else(|| whole.clone());
            let length = size.as_ref().and_then(|size| usize::try_from(size.constant()?).ok());
            let numbers = x.numbers.as_ref().filter(|_| dims.len() == 1);
            if let (Some(numbers), Some(length)) = (numbers, length)
                && let Some(part) = numbers.get(start..start + length)
            {
                start += length;
                return Ok(Value::list(part.iter().cloned()));
            }
            let mut dims = dims.clone();
            dims[axis] = size.unwrap_or_else(|| call.fresh());
            call.like(x, dims)
        })
        .collect()
}

fn gather<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let (data, places) = (call.input(0)?, call.input(1)?);
    let axis = call.integer("axis")?.unwrap_or(0);
    if matches!(places.spread, Spread::Counts) {
        return Err(by_number(call));
    }
    if let (Some(numbers), Some(1), Some(dims), Some(chosen)) =
        (&data.numbers, data.rank(), &places.dims, places.constants())
    {
        let count = numbers.len() as i64;
        let taken = chosen.iter().map(|place| {
            usize::try_from(if *place < 0 { place + count } else { *place })
                .ok()
                .and_then(|place| numbers.get(place))
        });
        let taken: Option<Vec<_>> = taken.map(|number| number.cloned()).collect();
        return Ok(vec![Value::of_numbers(dims.clone(), taken.ok_or_else(|| call.malformed())?.into())]);
    }
    if matches!(data.spread, Spread::Counts) {
        return Err(call.dependent("computes with the number of rows"));
    }
    if data.is_same() && places.is_same() && (data.dims.is_none() || places.dims.is_none()) {
        return Ok(vec![Value::same(None)]);
    }
    let (from, by) = (call.dims(data)?, call.dims(places)?);
    let axis = call.axis(axis, from.len())?;
    let rows = match (data.row_axis(), places.row_axis()) {
        (None, None) => None,
        (None, Some(rows)) => Some(axis + rows),
        (Some(rows), None) if rows < axis => Some(rows),
        (Some(rows), None) if rows > axis => Some(rows - 1 + by.len()),
        (Some(_), None) if places.constants().is_some() => return Err(by_number(call)),
        _ => return Err(call.unknown("takes from rows by what can't be followed")),
    };
    let dims = from[..axis].iter().chain(by).chain(&from[axis + 1..]).cloned().collect();
    Ok(vec![call.like_rows(rows, dims)])
}

fn gather_elements<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let (data, places) = (call.input(0)?, call.input(1)?);
    match (data.row_axis(), places.row_axis()) {
        (None, None) => Ok(vec![Value::same(places.dims.clone())]),
        (Some(rows), Some(other)) if rows == other => {
            let (from, by) = (call.dims(data)?, call.dims(places)?);
            if call.axis(call.integer("axis")?.unwrap_or(0), from.len())? == rows {
                return Err(by_number(call));
            }
            if from[rows] != by[rows] {
                return Err(call.unknown("pairs rows of unlike sizes"));
            }
            Ok(vec![Value::rows(by.clone(), rows)])
        }
        _ => Err(call.unknown("takes from rows by what can't be followed")),
    }
}

fn gather_nd<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let (data, places) = (call.input(0)?, call.input(1)?);
    if data.is_same() && places.is_same() && (data.dims.is_none() || places.dims.is_none()) {
        return Ok(vec![Value::same(None)]);
    }
    let (from, by) = (call.dims(data)?, call.dims(places)?);
    let batch = usize::try_from(call.integer("batch_dims")?.unwrap_or(0)).map_err(|_| call.malformed())?;
    let depth = by.last().and_then(|depth| usize::try_from(depth.constant()?).ok());
    let (Some(depth), Some(last)) = (depth, by.len().checked_sub(1)) else {
        return match data.is_same() && places.is_same() {
            true => Ok(vec![Value::same(None)]),
            false => Err(call.unknown("takes from rows by what can't be followed")),
        };
    };
    let rest = from.get(batch + depth..).ok_or_else(|| call.malformed())?;
    let rows = match (data.row_axis(), places.row_axis()) {
        (None, None) => None,
        (None, Some(rows)) if rows >= batch && rows < last => Some(rows),
        (Some(rows), None) if batch == 0 && rows >= depth => Some(last + rows - depth),
        (Some(_), None) if batch == 0 => return Err(by_number(call)),
        (Some(rows), Some(other)) if rows == other && rows < batch && from[rows] == by[rows] => Some(rows),
        _ => return Err(call.unknown("takes from rows by what can't be followed")),
    };
    Ok(vec![call.like_rows(rows, by[..last].iter().chain(rest).cloned().collect())])
}

fn scatter_elements<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let (data, places, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let lost = || call.unknown("writes to rows what can't be followed");
    let Some(rows) = data.row_axis() else {
        call.same_from(1)?;
        return Ok(vec![Value::same(data.dims.clone())]);
    };
    let dims = call.dims(data)?;
    if call.axis(call.integer("axis")?.unwrap_or(0), dims.len())? == rows {
        return Err(lost());
    }
    for value in [places, updates] {
        if value.row_axis() != Some(rows) || call.dims(value)?.get(rows) != Some(&dims[rows]) {
            return Err(lost());
        }
    }
    Ok(vec![Value::rows(dims.clone(), rows)])
}

fn scatter_nd<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let (data, places, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let Some(rows) = data.row_axis() else {
        call.same_from(1)?;
        return Ok(vec![Value::same(data.dims.clone())]);
    };
    let lost = || call.unknown("writes to rows what can't be followed");
    let (dims, by) = (call.dims(data)?, call.dims(places)?);
    let depth = by.last().and_then(|depth| usize::try_from(depth.constant()?).ok()).ok_or_else(lost)?;
    // Updates for whole rows, at the same places in each.
    let there = (by.len() - 1 + rows).checked_sub(depth);
    let fits = rows >= depth
        && places.is_same()
        && updates.row_axis() == there
        && call.dims(updates)?.get(updates.row_axis().unwrap_or(0)) == Some(&dims[rows]);
    if fits { Ok(vec![Value::rows(dims.clone(), rows)]) } else { Err(lost()) }
}

fn compress<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let (x, condition) = (call.input(0)?, call.input(1)?);
    let axis = call.integer("axis")?;
    match (&x.dims, axis) {
        _ if !condition.is_same() => Err(call.dependent("drops rows")),
        (Some(dims), Some(axis)) => {
            let axis = call.axis(axis, dims.len())?;
            if x.row_axis() == Some(axis) {
                return Err(by_number(call));
            }
            // The runtime reads past the end if there are more conditions than elements.
            let count = condition.dims.as_ref().and_then(|dims| dims.first()?.constant());
            if !x.is_same() && count.zip(dims[axis].constant()).is_none_or(|(count, size)| count > size) {
                return Err(call.unknown("takes from rows by what can't be followed"));
            }
            let mut dims = dims.clone();
            dims[axis] = call.fresh();
            Ok(vec![call.like(x, dims)?])
        }
        _ if !x.is_same() => Err(call.unknown("takes from rows by what can't be followed")),
        (_, None) => Ok(vec![Value::same(Some(smallvec![call.fresh()]))]),
        _ => Ok(vec![Value::same(None)]),
    }
}

/// Lists indices over all rows.
fn non_zero<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    match call.given().iter().all(|value| value.is_same()) {
        true => Ok(vec![Value::same(Some(smallvec![call.fresh(), call.fresh()]))]),
        false => Err(call.dependent("lists what it finds in all rows")),
    }
}

fn unique<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    match call.input(0)?.is_same() {
        true => Ok(vec![Value::same(None); call.node.outputs.len()]),
        false => Err(call.dependent("lists what it finds in all rows")),
    }
}

fn one_hot<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    call.same_from(1)?;
    let x = call.input(0)?;
    let Some(dims) = &x.dims else { return Ok(vec![Value::same(None)]) };
    let axis = call.axis(call.integer("axis")?.unwrap_or(-1), dims.len() + 1)?;
    let depth = call.input(1)?.constant_scalar().map(Product::of).filter(Product::is_size);
    let mut made = dims.clone();
    made.insert(axis, depth.unwrap_or_else(|| call.fresh()));
    Ok(vec![call.like_rows(x.row_axis().map(|rows| rows + usize::from(axis <= rows)), made)])
}

fn reverse_sequence<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let (x, lengths) = (call.input(0)?, call.input(1)?);
    if x.is_same() && lengths.is_same() {
        return Ok(vec![Value::same(x.dims.clone())]);
    }
    let dims = call.dims(x)?;
    let batch = call.axis(call.integer("batch_axis")?.unwrap_or(1), dims.len())?;
    let time = call.axis(call.integer("time_axis")?.unwrap_or(0), dims.len())?;
    match (x.row_axis(), lengths.row_axis()) {
        (Some(rows), _) if rows == time => Err(call.dependent("runs along the rows")),
        (Some(rows), Some(0)) if rows == batch && call.dims(lengths)?[0] == dims[rows] => {
            Ok(vec![Value::rows(dims.clone(), rows)])
        }
        _ => Err(call.unknown("pairs rows of unlike sizes")),
    }
}

fn trilu<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    call.same_from(1)?;
    let x = call.input(0)?;
    match (x.row_axis(), x.rank()) {
        (Some(rows), Some(rank)) if rows + 2 >= rank => Err(call.dependent("numbers the rows")),
        _ => Ok(vec![Value { numbers: None, constant: None, ..x.clone() }]),
    }
}

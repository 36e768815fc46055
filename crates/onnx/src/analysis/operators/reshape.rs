//! Operators that keep the elements and change the dimensions, and those that repeat elements.

use smallvec::smallvec;

use super::family::{Family, ONNX};
use super::sizes::alike;
use crate::analysis::call::{Call, Outcome};
use crate::analysis::lattice::{Dims, NUMBERS_MAX, Product, Spread, Value};

pub(super) const FAMILIES: &[Family] = &[
    Family::new(ONNX, &["Reshape"], &["shape", "allowzero"], reshape).counting(),
    Family::new(ONNX, &["Flatten"], &["axis"], flatten).counting(),
    Family::new(ONNX, &["Squeeze"], &["axes"], squeeze).counting(),
    Family::new(ONNX, &["Unsqueeze"], &["axes"], unsqueeze).counting(),
    Family::new(ONNX, &["Transpose"], &["perm"], transpose).counting(),
    Family::new(ONNX, &["Expand"], &[], expand).counting(),
    Family::new(ONNX, &["Tile"], &[], tile).counting(),
];

/// `x` with other dimensions, and rows along `axis`.
fn placed<'a>(call: &Call<'_, 'a>, x: &Value<'a>, dims: Dims, axis: usize) -> Outcome<'a> {
    match (&x.spread, &x.numbers) {
        (Spread::Rows { .. }, _) if dims.get(axis).is_some_and(Product::has_rows) => {
            Ok(vec![Value::rows(dims, axis)])
        }
        (Spread::Same | Spread::Counts, Some(numbers)) => Ok(vec![Value::of_numbers(dims, numbers.clone())]),
        (Spread::Same, None) => Ok(vec![Value::same(Some(dims))]),
        _ => Err(call.unknown("loses sight of the rows")),
    }
}

/// `x`, row-major, with other dimensions. Rows stay consecutive if as many elements precede them.
pub(super) fn reflowed<'a>(call: &Call<'_, 'a>, x: &Value<'a>, dims: Dims) -> Outcome<'a> {
    let Some(old) = x.row_axis() else { return placed(call, x, dims, 0) };
    let lost = || call.unknown("reshapes rows into what can't be followed");
    let counted: Vec<usize> = (0..dims.len()).filter(|axis| dims[*axis].has_rows()).collect();
    let [new] = counted[..] else { return Err(lost()) };
    let before = Product::of_all(&call.dims(x)?[..old]);
    if before.is_none() || before != Product::of_all(&dims[..new]) {
        return Err(lost());
    }
    placed(call, x, dims, new)
}

fn reshape<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    let target = match call.version {
        ..5 => {
            let shape = call.integers("shape")?.ok_or_else(|| call.malformed())?;
            Value::list(shape.into_iter().map(|size| Some(Product::of(size))))
        }
        _ => call.input(1)?.clone(),
    };
    let lost = || call.unknown("reshapes rows into what can't be followed");
    let Some(target_numbers) = &target.numbers else {
        // For a constant only the dimensions are lost.
        let rank = target.dims.as_ref().and_then(|dims| usize::try_from(dims.first()?.constant()?).ok());
        let dims = rank.map(|rank| (0..rank).map(|_| call.fresh()).collect());
        return if x.is_same() && target.is_same() { Ok(vec![Value::same(dims)]) } else { Err(lost()) };
    };
    let keeps_zeros = call.flag("allowzero", false)?;
    let Some(own) = &x.dims else {
        let counts = target_numbers.iter().flatten().any(Product::has_rows);
        return if counts || !x.is_same() {
            Err(lost())
        } else {
            Ok(vec![Value::same(Some(target_numbers.iter().map(|_| call.fresh()).collect()))])
        };
    };
    let (mut dims, mut inferred, mut guessed) = (Dims::new(), None, false);
    for (axis, size) in target_numbers.iter().enumerate() {
        dims.push(match size {
            Some(size) if size.is(-1) => {
                inferred = Some(axis);
                Product::of(1)
            }
            Some(size) if size.is(0) && !keeps_zeros => {
                own.get(axis).ok_or_else(|| call.malformed())?.clone()
            }
            Some(size) if size.is_size() => size.clone(),
            Some(_) => return Err(lost()),
            // It may be a size, 0 or -1: harmless if it can't be that of the rows.
            None if own.get(axis).is_some_and(Product::has_rows) => return Err(lost()),
            None => {
                guessed = true;
                call.fresh()
            }
        });
    }
    let counted = dims.iter().any(Product::has_rows);
    if guessed && !counted && x.row_axis().is_some() {
        return Err(lost());
    }
    if let Some(axis) = inferred {
        let all = Product::of_all(own).filter(|_| !guessed);
        let rest = Product::of_all(&dims);
        let whole = all.zip(rest).and_then(|(all, rest)| all.divided_by(&rest));
        // In the lone run it must be an integer; in the joint run it is that times the number of rows.
        let times = if x.row_axis().is_some() && !counted { Product::rows() } else { Product::of(1) };
        let guess = call.fresh().times(&times);
        dims[axis] = whole.or(guess).ok_or_else(lost)?;
    }
    reflowed(call, x, dims)
}

fn flatten<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    let Some(dims) = &x.dims else {
        return if x.is_same() {
            Ok(vec![Value::same(Some(smallvec![call.fresh(), call.fresh()]))])
        } else {
            Err(call.malformed())
        };
    };
    let axis = call.integer("axis")?.unwrap_or(1);
    let axis = if axis == dims.len() as i64 { dims.len() } else { call.axis(axis, dims.len())? };
    let part = |dims: &[Product]| Product::of_all(dims).ok_or_else(|| call.unknown("is too large"));
    let flat = smallvec![part(&dims[..axis])?, part(&dims[axis..])?];
    reflowed(call, x, flat)
}

fn squeeze<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    let Some(dims) = &x.dims else {
        return if x.is_same() { Ok(vec![Value::same(None)]) } else { Err(call.malformed()) };
    };
    let gone: Vec<usize> = match call.axes(13, 1)? {
        Some(axes) => axes.iter().map(|axis| call.axis(*axis, dims.len())).collect::<Result<_, _>>()?,
        None if x.row_axis().is_some() => {
            return Err(call.unknown("drops the dimension of the rows where there is one"));
        }
        None if dims.iter().all(|dim| dim.constant().is_some()) => {
            (0..dims.len()).filter(|axis| dims[*axis].is(1)).collect()
        }
        None if x.is_same() => return Ok(vec![Value::same(None)]),
        None => return Err(call.malformed()),
    };
    let axis = x.row_axis().unwrap_or(0);
    if x.row_axis().is_some() && gone.contains(&axis) {
        return Err(call.unknown("drops the dimension of the rows"));
    }
    let kept = (0..dims.len()).filter(|axis| !gone.contains(axis)).map(|axis| dims[axis].clone()).collect();
    placed(call, x, kept, axis - gone.iter().filter(|other| **other < axis).count())
}

fn unsqueeze<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    let axes = call.axes(13, 1)?.ok_or_else(|| call.malformed())?;
    let Some(dims) = &x.dims else {
        return if x.is_same() { Ok(vec![Value::same(None)]) } else { Err(call.malformed()) };
    };
    let rank = dims.len() + axes.len();
    let new: Vec<usize> = axes.iter().map(|axis| call.axis(*axis, rank)).collect::<Result<_, _>>()?;
    let (mut made, mut old, mut place) = (Dims::new(), dims.iter().enumerate(), 0);
    for axis in 0..rank {
        if new.contains(&axis) {
            made.push(Product::of(1));
            continue;
        }
        let (index, dim) = old.next().ok_or_else(|| call.malformed())?;
        if Some(index) == x.row_axis() {
            place = axis;
        }
        made.push(dim.clone());
    }
    placed(call, x, made, place)
}

fn transpose<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    let Some(dims) = &x.dims else {
        return if x.is_same() { Ok(vec![Value::same(None)]) } else { Err(call.malformed()) };
    };
    let rank = dims.len();
    let order: Vec<usize> = match call.integers("perm")? {
        Some(order) => order.iter().map(|axis| call.axis(*axis, rank)).collect::<Result<_, _>>()?,
        None => (0..rank).rev().collect(),
    };
    if order.len() != rank {
        return Err(call.malformed());
    }
    let made = order.iter().map(|axis| dims[*axis].clone()).collect();
    let axis = order.iter().position(|axis| Some(*axis) == x.row_axis()).unwrap_or(0);
    let sizes: Option<Vec<i64>> = order.iter().map(|axis| dims[*axis].constant()).collect();
    let moved = |place: &mut [i64]| {
        let new = place.to_vec();
        order.iter().zip(new).for_each(|(axis, number)| place[*axis] = number);
    };
    if let Some(moved) = sizes.and_then(|sizes| x.rearranged(&sizes, moved)) {
        return Ok(vec![moved]);
    }
    match x.spread {
        Spread::Counts if rank > 1 => Err(call.unknown("loses sight of the rows")),
        _ if rank > 1 => placed(call, &Value { numbers: None, ..x.clone() }, made, axis),
        _ => placed(call, x, made, axis),
    }
}

fn expand<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let (x, shape) = (call.input(0)?, call.input(1)?);
    let Some(sizes) = &shape.numbers else {
        let same = x.is_same() && shape.is_same();
        return if same {
            Ok(vec![Value::same(None)])
        } else {
            Err(call.unknown("has a shape that can't be followed"))
        };
    };
    let own = call.dims(x)?;
    let rank = own.len().max(sizes.len());
    let mut made = Dims::new();
    for axis in 0..rank {
        let old = (axis + own.len()).checked_sub(rank).map(|axis| &own[axis]);
        let new = (axis + sizes.len()).checked_sub(rank).map(|axis| sizes[axis].as_ref());
        made.push(match (old, new) {
            (Some(old), None) => old.clone(),
            (old, Some(Some(new))) if old.is_none_or(|old| old.is(1) || old == new) => new.clone(),
            (Some(old), Some(Some(new))) if new.is(1) => old.clone(),
            // Another size matches the rows of the joint run by chance, and that of the lone run always.
            (Some(old), Some(new)) if old.has_rows() || new.is_some_and(Product::has_rows) => {
                return Err(call.unknown("has a shape with other rows than its input"));
            }
            (Some(old), _) if old.constant().is_some_and(|old| old > 1) => old.clone(),
            (_, Some(Some(new))) if new.constant().is_some_and(|new| new > 1) => new.clone(),
            _ => call.fresh(),
        });
    }
    if !made.iter().all(Product::is_size) {
        return Err(call.malformed());
    }
    let count = Product::of_all(&made).and_then(|count| usize::try_from(count.constant()?).ok());
    match (x.numbers.as_deref(), count) {
        (Some([only]), Some(count)) if count <= NUMBERS_MAX => {
            Ok(vec![Value::of_numbers(made, vec![only.clone(); count].into())])
        }
        _ if matches!(x.spread, Spread::Counts) => Err(call.dependent("computes with the number of rows")),
        _ => alike(call, made),
    }
}

fn tile<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let (x, repeats) = (call.input(0)?, call.input(1)?);
    let Some(own) = x.dims.as_ref().filter(|_| !matches!(x.spread, Spread::Counts)) else {
        return if x.is_same() && repeats.is_same() {
            Ok(vec![Value::same(None)])
        } else {
            Err(call.malformed())
        };
    };
    let Some(times) = repeats.numbers.as_ref().filter(|times| times.len() == own.len()) else {
        return match x.is_same() && repeats.is_same() {
            true => Ok(vec![Value::same(Some(own.iter().map(|_| call.fresh()).collect()))]),
            false => Err(call.unknown("repeats by what can't be followed")),
        };
    };
    let mut made = Dims::new();
    for (axis, (size, times)) in own.iter().zip(times.iter()).enumerate() {
        let once = times.as_ref().is_some_and(|times| times.is(1));
        if Some(axis) == x.row_axis() && !once {
            return Err(call.unknown("repeats the rows"));
        }
        made.push(match times {
            Some(times) => size.times(times).filter(Product::is_size).ok_or_else(|| call.malformed())?,
            None => call.fresh(),
        });
    }
    alike(call, made)
}

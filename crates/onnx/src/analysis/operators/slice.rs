//! Slicing and padding.

use super::family::{Family, ONNX};
use crate::analysis::call::{Call, Outcome};
use crate::analysis::lattice::{Blame, Dims, Product, Spread, Value};

pub(super) const FAMILIES: &[Family] = &[
    Family::new(ONNX, &["Slice"], &["starts", "ends", "axes"], slice).counting(),
    Family::new(ONNX, &["Pad"], &["mode", "pads", "paddings", "value"], pad),
    Family::new(ONNX, &["CenterCropPad"], &["axes"], center_crop_pad).counting(),
];

/// Past the end of any dimension: exporters write such numbers for "all".
const END: i64 = 1_000_000_000;

/// The slice of one axis.
#[derive(Clone, Debug)]
struct Cut {
    axis: usize,
    start: Option<Product>,
    end: Option<Product>,
    step: Option<i64>,
}

impl Cut {
    /// Whether it leaves `size` unchanged.
    fn keeps(&self, size: &Product) -> bool {
        let all = |end: &Product| end == size || end.constant().is_some_and(|end| end >= END);
        self.step == Some(1)
            && self.start.as_ref().is_some_and(|start| start.is(0))
            && self.end.as_ref().is_some_and(all)
    }

    /// The first index, the number of indices that remain of `size`, and the step.
    fn range(&self, size: &Product) -> Option<(i64, i64, i64)> {
        let (size, step) = (size.constant()?, self.step?);
        let (start, end) = (self.start.as_ref()?.constant()?, self.end.as_ref()?.constant()?);
        if step < 0 && end >= END {
            // Backwards, the standard clamps the largest integers to the last index; ONNX Runtime goes to the
            // first.
            return None;
        }
        let place = |place: i64| if place < 0 { place + size } else { place };
        let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
        let (start, end) =
            (place(start).clamp(low, high), if end < -size { low } else { place(end).clamp(low, high) });
        let count = match step {
            0 => return None,
            1.. => (end - start + step - 1).div_euclid(step),
            _ => (start - end - step - 1).div_euclid(-step),
        };
        Some((start, count.max(0), step))
    }
}

fn cuts<'a>(call: &Call<'_, 'a>, rank: usize) -> Result<Vec<Cut>, Blame> {
    let constants =
        |list: Vec<i64>| list.into_iter().map(|number| Some(Product::of(number))).collect::<Vec<_>>();
    let (starts, ends, axes, steps) = if call.version < 10 {
        let list = |name| call.integers(name);
        let needed = |name| list(name)?.map(constants).ok_or_else(|| call.malformed());
        (needed("starts")?, needed("ends")?, list("axes")?, None)
    } else {
        let ends_of = |index| {
            let value = call.input(index)?;
            let count = value.numbers.as_ref().map(|numbers| numbers.to_vec());
            let unknown = || {
                let count =
                    value.dims.as_ref().and_then(|dims| usize::try_from(dims.first()?.constant()?).ok());
                count.filter(|_| value.is_same()).map(|count| vec![None; count.min(rank)])
            };
            count.or_else(unknown).ok_or_else(|| call.unknown("cuts by what can't be followed"))
        };
        let constant = |index| match call.optional(index) {
            None => Ok(None),
            Some(value) => {
                value.constants().map(Some).ok_or_else(|| call.unknown("cuts by what can't be followed"))
            }
        };
        (ends_of(1)?, ends_of(2)?, constant(3)?, constant(4)?)
    };
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    if ends.len() != starts.len() || axes.len() != starts.len() {
        return Err(call.malformed());
    }
    let each = starts.into_iter().zip(ends).zip(axes).enumerate();
    each.map(|(index, ((start, end), axis))| {
        let step = steps.as_ref().map_or(Some(1), |steps| steps.get(index).copied());
        Ok(Cut { axis: call.axis(axis, rank)?, start, end, step })
    })
    .collect()
}

fn slice<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    let Some(dims) = &x.dims else {
        return if x.is_same() && call.same_from(1).is_ok() {
            Ok(vec![Value::same(None)])
        } else {
            Err(call.malformed())
        };
    };
    let cuts = cuts(call, dims.len())?;
    if let Some(cut) = cut_numbers(x, dims, &cuts) {
        return Ok(vec![cut]);
    }
    if matches!(x.spread, Spread::Counts) {
        return Err(call.dependent("computes with the number of rows"));
    }
    let mut made = dims.clone();
    for cut in &cuts {
        if cut.keeps(&dims[cut.axis]) {
            continue;
        }
        if x.row_axis() == Some(cut.axis) {
            let known = cut
                .start
                .as_ref()
                .zip(cut.end.as_ref())
                .is_some_and(|(start, end)| start.constant().is_some() && end.constant().is_some());
            return Err(match known && x.block().is_some_and(|block| block.is(1)) {
                true => call.dependent("takes rows by their number"),
                false => call.unknown("cuts the rows"),
            });
        }
        // A size is cut by as many rows as there are.
        if [&cut.start, &cut.end].into_iter().flatten().any(Product::has_rows) {
            return Err(call.dependent("computes with the number of rows"));
        }
        made[cut.axis] =
            cut.range(&dims[cut.axis]).map_or_else(|| call.fresh(), |(_, count, _)| Product::of(count));
    }
    Ok(vec![call.like(x, made)?])
}

/// The remaining elements, if they are known.
fn cut_numbers<'a>(x: &Value<'a>, dims: &Dims, cuts: &[Cut]) -> Option<Value<'a>> {
    x.numbers.as_ref()?;
    let mut sizes: Vec<i64> = dims.iter().map(Product::constant).collect::<Option<_>>()?;
    let ranges: Vec<_> =
        cuts.iter().map(|cut| Some((cut.axis, cut.range(&dims[cut.axis])?))).collect::<Option<_>>()?;
    for (axis, (_, count, _)) in &ranges {
        sizes[*axis] = *count;
    }
    x.rearranged(&sizes, |place| {
        for (axis, (start, _, step)) in &ranges {
            place[*axis] = start + place[*axis] * step;
        }
    })
}

fn pad<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    call.same_from(1)?;
    let x = call.input(0)?;
    let pads = match call.version {
        1 => call.integers("paddings")?,
        2..11 => call.integers("pads")?,
        _ => call.input(1)?.constants(),
    };
    let Some(dims) = &x.dims else { return Ok(vec![Value::same(None)]) };
    let axes = match call.optional(3) {
        None => (0..dims.len()).collect::<Vec<_>>(),
        Some(axes) => {
            let axes = axes.constants().ok_or_else(|| call.unknown("has axes that aren't constant"))?;
            axes.iter().map(|axis| call.axis(*axis, dims.len())).collect::<Result<_, _>>()?
        }
    };
    let mut made = dims.clone();
    for (index, axis) in axes.iter().enumerate() {
        let ends = pads.as_ref().and_then(|pads| Some((*pads.get(index)?, *pads.get(index + axes.len())?)));
        made[*axis] = match ends {
            Some((0, 0)) => continue,
            _ if x.row_axis() == Some(*axis) => return Err(call.unknown("adds to the rows")),
            Some((before, after)) => dims[*axis]
                .plus(&Product::of(before + after))
                .filter(Product::is_size)
                .unwrap_or_else(|| call.fresh()),
            None => call.fresh(),
        };
    }
    Ok(vec![call.like(x, made)?])
}

fn center_crop_pad<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let (x, shape) = (call.input(0)?, call.input(1)?);
    let (Some(dims), Some(sizes)) = (&x.dims, &shape.numbers) else {
        return Err(call.unknown("cuts by what can't be followed"));
    };
    let axes = match call.integers("axes")? {
        None => (0..dims.len()).collect::<Vec<_>>(),
        Some(axes) => axes.iter().map(|axis| call.axis(*axis, dims.len())).collect::<Result<_, _>>()?,
    };
    let mut made: Dims = dims.clone();
    for (axis, size) in axes.into_iter().zip(sizes.iter()) {
        if size.as_ref() != Some(&dims[axis]) {
            if x.row_axis() == Some(axis) || size.as_ref().is_some_and(Product::has_rows) {
                return Err(call.unknown("cuts the rows"));
            }
            made[axis] = size.clone().filter(Product::is_size).unwrap_or_else(|| call.fresh());
        }
    }
    Ok(vec![call.like(x, made)?])
}

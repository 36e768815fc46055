//! Resampling, which must not scale the rows' axis.

use super::family::{Family, ONNX};
use crate::analysis::call::{Call, Outcome};
use crate::analysis::lattice::{Blame, Value};
use crate::file::onnx::types;
use crate::file::wire::Malformed;

pub(super) const FAMILIES: &[Family] = &[
    Family::new(ONNX, &["Upsample"], &["mode", "scales"], upsample),
    Family::new(
        ONNX,
        &["Resize"],
        &[
            "antialias",
            "axes",
            "coordinate_transformation_mode",
            "cubic_coeff_a",
            "exclude_outside",
            "extrapolation_value",
            "keep_aspect_ratio_policy",
            "mode",
            "nearest_mode",
        ],
        resize,
    )
    .counting(),
];

fn upsample<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let scales = match call.version {
        ..9 => match call.attribute("scales")? {
            Some(attribute) => Some(attribute.floats().map_err(|Malformed| call.malformed())?),
            None => None,
        },
        _ => floats(call, call.input(1)?)?,
    };
    let x = call.input(0)?;
    let kept = |rows: usize| Ok(scales.as_ref().is_some_and(|scales| scales.get(rows) == Some(&1.0)));
    scaled(call, x, kept)
}

fn resize<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let x = call.input(0)?;
    let rank = x.rank().unwrap_or(0);
    let axes = match call.integers("axes")? {
        Some(axes) => axes.iter().map(|axis| call.axis(*axis, rank)).collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).collect(),
    };
    let (scales, sizes) = if call.version < 11 { (1, usize::MAX) } else { (2, 3) };
    let given = |index| call.optional(index).filter(|value| !is_empty(value));
    let proportional = call.text("keep_aspect_ratio_policy")?.is_some_and(|policy| policy != b"stretch");
    let crops = call.text("coordinate_transformation_mode")? == Some(b"tf_crop_and_resize");
    if !call.optional(1).is_none_or(Value::is_same) {
        return Err(call.unknown("has parameters that depend on rows"));
    }
    let kept = |rows: usize| {
        let Some(place) = axes.iter().position(|axis| *axis == rows) else { return Ok(true) };
        if proportional || crops {
            return Ok(false);
        }
        match (given(sizes), given(scales)) {
            (Some(sizes), _) => {
                let numbers = sizes.numbers.as_deref().unwrap_or_default();
                let size = numbers.get(place).and_then(Option::as_ref);
                let counted = numbers.iter().flatten().filter(|number| number.has_rows()).count();
                Ok(counted == 1 && size.is_some() && size == x.dims.as_ref().and_then(|dims| dims.get(rows)))
            }
            (None, Some(scales)) => {
                Ok(floats(call, scales)?.is_some_and(|scales| scales.get(place) == Some(&1.0)))
            }
            (None, None) => Ok(false),
        }
    };
    if x.row_axis().is_none() && !call.given().iter().all(|value| value.is_same()) {
        return Err(call.unknown("has a shape that can't be followed"));
    }
    scaled(call, x, kept)
}

fn is_empty(value: &Value<'_>) -> bool {
    value.dims.as_ref().is_some_and(|dims| dims.iter().any(|dim| dim.is(0)))
}

/// `x` with other sizes, except along the rows' axis, of which `kept` says whether it is unchanged.
fn scaled<'a>(
    call: &Call<'_, 'a>,
    x: &Value<'a>,
    kept: impl Fn(usize) -> Result<bool, Blame>,
) -> Outcome<'a> {
    let Some(dims) = &x.dims else { return Ok(vec![Value::same(None)]) };
    if let Some(rows) = x.row_axis()
        && !kept(rows)?
    {
        return Err(call.unknown("scales the rows"));
    }
    let sizes = dims.iter().enumerate();
    let made = sizes.map(|(axis, dim)| if x.row_axis() == Some(axis) { dim.clone() } else { call.fresh() });
    Ok(vec![call.like(x, made.collect())?])
}

/// The elements of a constant of 32-bit floats.
fn floats<'a>(call: &Call<'_, 'a>, value: &Value<'a>) -> Result<Option<Vec<f32>>, Blame> {
    let Some(tensor) = value.constant.as_ref().filter(|tensor| tensor.data_type == types::FLOAT) else {
        return Ok(None);
    };
    let data = tensor.numbers().map_err(|Malformed| call.malformed())?;
    Ok(data.map(|data| data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
}

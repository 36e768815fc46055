//! JSON values as tensor elements.
//!
//! Reads a value and an element type, hands on the protocol's raw form. Does not know where the value comes from.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use half::{bf16, f16};
use serde_json::Value;

use crate::{DataType, Error, ErrorKind, Input, MISSING, Result, Shape, is_float, shown, texts};

#[cold]
fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message.into())
}

/// Appends to `shape` the lengths of the first array of each level, for at most `rank` levels.
pub fn measure(value: &Value, rank: usize, shape: &mut Shape) {
    if let (Value::Array(items), 1..) = (value, rank) {
        shape.push(items.len() as u64);
        if let Some(first) = items.first() {
            measure(first, rank - 1, shape);
        }
    }
}

/// The expected elements.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Their type.
    pub datatype: DataType,
    /// Whether null is a missing BYTES element.
    pub missing: bool,
}

impl Kind {
    /// The expected elements of an input.
    pub fn of(input: Input<'_>) -> Kind {
        Kind { datatype: input.spec.datatype, missing: input.takes_missing_text() }
    }
}

/// Why a value is not a valid element.
#[derive(Debug)]
pub enum Unfit {
    /// It is null and may not be missing; the index of the element.
    Null(u64),
    /// Anything else.
    Other(Error),
}

impl Unfit {
    /// The error for null as the element after those in `data`.
    #[cold]
    pub fn null_after(data: &[u8], datatype: DataType) -> Unfit {
        Unfit::Null(match datatype.size() {
            Some(size) => (data.len() / size) as u64,
            None => texts(data).count() as u64,
        })
    }
}

impl From<Error> for Unfit {
    fn from(error: Error) -> Unfit {
        Unfit::Other(error)
    }
}

impl From<Unfit> for Error {
    fn from(unfit: Unfit) -> Error {
        match unfit {
            Unfit::Null(element) => invalid(format!("element {element} is null; fill it in")),
            Unfit::Other(error) => error,
        }
    }
}

/// Appends the elements of `value`, whose arrays are nested as `shape`, to `data`.
///
/// # Errors
/// If arrays of a level differ in length, or an element is not one of `kind`.
pub fn push_all(value: &Value, shape: &[u64], kind: Kind, data: &mut Vec<u8>) -> Result<(), Unfit> {
    let Some((length, inner)) = shape.split_first() else {
        return push(value, kind, data);
    };
    match value {
        Value::Array(items) if items.len() as u64 == *length => {
            items.iter().try_for_each(|item| push_all(item, inner, kind, data))
        }
        Value::Array(items) => Err(invalid(format!(
            "an array has {} entries where another of its level has {length}",
            items.len()
        ))
        .into()),
        _ => Err(invalid("a value stands where others of its level are arrays").into()),
    }
}

macro_rules! integer {
    ($value:expr, $type:ty, $datatype:expr, $data:expr) => {{
        let number = $value.as_i64().map(i128::from).or_else(|| $value.as_u64().map(i128::from));
        let whole = number.and_then(|number| <$type>::try_from(number).ok());
        let whole = whole.ok_or_else(|| unfit($value, $datatype))?;
        $data.extend_from_slice(&whole.to_le_bytes());
    }};
}

macro_rules! float {
    ($value:expr, $datatype:expr, $data:expr, $convert:expr) => {{
        let number = float($value, $datatype)?;
        let converted = $convert(number);
        if number.is_finite() && !converted.is_finite() {
            return Err(unfit($value, $datatype).into());
        }
        $data.extend_from_slice(&converted.to_le_bytes());
    }};
}

/// Appends the one element `value` to `data`. Null is NaN or a missing element.
///
/// # Errors
/// If it is not one of `kind`.
pub fn push(value: &Value, kind: Kind, data: &mut Vec<u8>) -> Result<(), Unfit> {
    let datatype = kind.datatype;
    if value.is_null() && !is_float(datatype) {
        if !kind.missing {
            return Err(Unfit::null_after(data, datatype));
        }
        data.extend_from_slice(&MISSING.to_le_bytes());
        return Ok(());
    }
    match datatype {
        DataType::Bool => match value {
            Value::Bool(truth) => data.push(u8::from(*truth)),
            _ => return Err(unfit(value, datatype).into()),
        },
        DataType::Uint8 => integer!(value, u8, datatype, data),
        DataType::Uint16 => integer!(value, u16, datatype, data),
        DataType::Uint32 => integer!(value, u32, datatype, data),
        DataType::Uint64 => integer!(value, u64, datatype, data),
        DataType::Int8 => integer!(value, i8, datatype, data),
        DataType::Int16 => integer!(value, i16, datatype, data),
        DataType::Int32 => integer!(value, i32, datatype, data),
        DataType::Int64 => integer!(value, i64, datatype, data),
        DataType::Fp16 => float!(value, datatype, data, f16::from_f64),
        DataType::Fp32 => float!(value, datatype, data, |value| value as f32),
        DataType::Fp64 => float!(value, datatype, data, |value| value),
        DataType::Bf16 => float!(value, datatype, data, bf16::from_f64),
        DataType::Bytes => match value {
            Value::String(text) => push_bytes(text.as_bytes(), data)?,
            // As in TensorFlow Serving's protocol and KServe V1.
            Value::Object(members) if members.len() == 1 && members.contains_key("b64") => {
                let text = members["b64"].as_str().unwrap_or_default();
                let bytes = STANDARD
                    .decode(text)
                    .map_err(|error| invalid(format!("'b64' is not valid base64: {error}")))?;
                push_bytes(&bytes, data)?;
            }
            // Objects and arrays are elements as JSON text.
            other => push_bytes(other.to_string().as_bytes(), data)?,
        },
    }
    Ok(())
}

/// Appends one BYTES element.
///
/// # Errors
/// `InvalidInput` if its length does not fit the prefix.
pub fn push_bytes(element: &[u8], data: &mut Vec<u8>) -> Result<()> {
    let length = u32::try_from(element.len()).ok().filter(|length| *length < MISSING);
    let length = length.ok_or_else(|| invalid("an element has 4 GiB or more"))?;
    data.extend_from_slice(&length.to_le_bytes());
    data.extend_from_slice(element);
    Ok(())
}

/// A number; null is NaN, which JSON lacks.
fn float(value: &Value, datatype: DataType) -> Result<f64> {
    match value {
        Value::Null => Ok(f64::NAN),
        value => value.as_f64().ok_or_else(|| unfit(value, datatype)),
    }
}

#[cold]
fn unfit(value: &Value, datatype: DataType) -> Error {
    invalid(format!("{} is not a valid {datatype}", shown(&value.to_string())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bytes(value: &Value, rank: usize, datatype: DataType) -> Result<(Shape, Vec<u8>)> {
        bytes_of(value, rank, Kind { datatype, missing: false }).map_err(Error::from)
    }

    fn bytes_of(value: &Value, rank: usize, kind: Kind) -> Result<(Shape, Vec<u8>), Unfit> {
        let (mut shape, mut data) = (Shape::new(), Vec::new());
        measure(value, rank, &mut shape);
        push_all(value, &shape, kind, &mut data)?;
        Ok((shape, data))
    }

    #[test]
    fn nested_arrays_become_a_shape_and_elements() {
        let (shape, data) = bytes(&json!([[1, 2], [3, 4], [5, 6]]), 2, DataType::Int16).unwrap();
        assert_eq!(shape[..], [3, 2]);
        assert_eq!(data, [1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0]);
        let (shape, data) = bytes(&json!(["a", {"b": 1}]), 1, DataType::Bytes).unwrap();
        assert_eq!((shape[0], &data[..]), (2, &b"\x01\0\0\0a\x07\0\0\0{\"b\":1}"[..]));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let message = |value, rank, datatype| bytes(&value, rank, datatype).unwrap_err().message().to_owned();
        assert!(message(json!([[1], [2, 3]]), 2, DataType::Int8).contains("has 2 entries"));
        assert!(message(json!([[1], 2]), 2, DataType::Int8).contains("others of its level"));
        assert_eq!(message(json!(300), 0, DataType::Uint8), "300 is not a valid UINT8");
        assert_eq!(message(json!("x"), 0, DataType::Fp32), "\"x\" is not a valid FP32");
    }

    #[test]
    fn null_is_nan_or_missing_or_names_its_place() {
        let null = |value, datatype, missing| bytes_of(&value, 2, Kind { datatype, missing });
        let (_, data) = null(json!([[1, null]]), DataType::Fp64, false).unwrap();
        assert!(f64::from_le_bytes(data[8..].try_into().unwrap()).is_nan());
        let (_, data) = null(json!([["a", null]]), DataType::Bytes, true).unwrap();
        assert_eq!(data, b"\x01\0\0\0a\xff\xff\xff\xff");
        for (value, datatype, missing, place) in [
            (json!([[1, 2], [3, null]]), DataType::Int64, true, 3),
            (json!([[true], [null]]), DataType::Bool, false, 1),
            (json!([["a", "bb"], [null, "c"]]), DataType::Bytes, false, 2),
        ] {
            // Where integers are meant no schema makes null one of them.
            let kind = Kind { datatype, missing: missing && datatype == DataType::Bytes };
            let unfit = bytes_of(&value, 2, kind).unwrap_err();
            assert!(matches!(unfit, Unfit::Null(found) if found == place), "{unfit:?}");
        }
        let (_, data) = null(json!([[{"a": null}]]), DataType::Bytes, true).unwrap();
        assert_eq!(data, b"\x0a\0\0\0{\"a\":null}");
    }

    #[test]
    fn a_number_beyond_the_type_is_not_infinity() {
        assert!(bytes(&json!(1e39), 0, DataType::Fp32).is_err());
        assert!(bytes(&json!(65520), 0, DataType::Fp16).is_err());
        assert!(bytes(&json!(1e39), 0, DataType::Fp64).is_ok());
    }
}

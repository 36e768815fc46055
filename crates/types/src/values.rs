//! Plain JSON values as the elements of a tensor.
//!
//! Reads a value and an element type, writes the protocol's raw form. Knows nothing of where a value was written.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use half::{bf16, f16};
use serde_json::Value;

use crate::{DataType, Error, ErrorKind, Result, Shape};

/// Longest part of a text from outside that a message repeats.
const SHOWN_CHARS: usize = 64;

/// A text from outside, cut to what belongs into a message.
pub fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cold]
fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message.into())
}

/// Adds to `shape` the lengths of the first array of each level, for `rank` levels at most.
pub fn measure(value: &Value, rank: usize, shape: &mut Shape) {
    if let (Value::Array(items), 1..) = (value, rank) {
        shape.push(items.len() as u64);
        if let Some(first) = items.first() {
            measure(first, rank - 1, shape);
        }
    }
}

/// Adds to `data` the elements of `value`, whose arrays are nested as `shape` says.
///
/// # Errors
/// `InvalidInput` where the arrays of a level differ in length, or an element is none of `datatype`.
pub fn push_all(value: &Value, shape: &[u64], datatype: DataType, data: &mut Vec<u8>) -> Result<()> {
    let Some((length, inner)) = shape.split_first() else {
        return push(value, datatype, data);
    };
    match value {
        Value::Array(items) if items.len() as u64 == *length => {
            items.iter().try_for_each(|item| push_all(item, inner, datatype, data))
        }
        Value::Array(items) => Err(invalid(format!(
            "an array has {} entries where another of its level has {length}",
            items.len()
        ))),
        _ => Err(invalid("a value stands where others of its level are arrays")),
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

/// Adds to `data` the one element that `value` is.
///
/// # Errors
/// `InvalidInput` where it is none of `datatype`.
pub fn push(value: &Value, datatype: DataType, data: &mut Vec<u8>) -> Result<()> {
    match datatype {
        DataType::Bool => match value {
            Value::Bool(truth) => data.push(u8::from(*truth)),
            _ => return Err(unfit(value, datatype)),
        },
        DataType::Uint8 => integer!(value, u8, datatype, data),
        DataType::Uint16 => integer!(value, u16, datatype, data),
        DataType::Uint32 => integer!(value, u32, datatype, data),
        DataType::Uint64 => integer!(value, u64, datatype, data),
        DataType::Int8 => integer!(value, i8, datatype, data),
        DataType::Int16 => integer!(value, i16, datatype, data),
        DataType::Int32 => integer!(value, i32, datatype, data),
        DataType::Int64 => integer!(value, i64, datatype, data),
        DataType::Fp16 => data.extend_from_slice(&f16::from_f64(float(value, datatype)?).to_le_bytes()),
        DataType::Fp32 => data.extend_from_slice(&(float(value, datatype)? as f32).to_le_bytes()),
        DataType::Fp64 => data.extend_from_slice(&float(value, datatype)?.to_le_bytes()),
        DataType::Bf16 => data.extend_from_slice(&bf16::from_f64(float(value, datatype)?).to_le_bytes()),
        DataType::Bytes => match value {
            Value::String(text) => push_bytes(text.as_bytes(), data)?,
            // As TensorFlow Serving's protocol and KServe's first write bytes.
            Value::Object(members) if members.len() == 1 && members.contains_key("b64") => {
                let text = members["b64"].as_str().unwrap_or_default();
                let bytes =
                    STANDARD.decode(text).map_err(|error| invalid(format!("'b64' is no base64: {error}")))?;
                push_bytes(&bytes, data)?;
            }
            // JSON is an element as it stands.
            other => push_bytes(other.to_string().as_bytes(), data)?,
        },
    }
    Ok(())
}

/// Adds one BYTES element.
///
/// # Errors
/// `InvalidInput` where it is longer than its length can say.
pub fn push_bytes(element: &[u8], data: &mut Vec<u8>) -> Result<()> {
    let length = u32::try_from(element.len()).map_err(|_| invalid("an element is longer than 4 GiB"))?;
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
    invalid(format!("{} is no {datatype}", shown(&value.to_string())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bytes(value: &Value, rank: usize, datatype: DataType) -> Result<(Shape, Vec<u8>)> {
        let (mut shape, mut data) = (Shape::new(), Vec::new());
        measure(value, rank, &mut shape);
        push_all(value, &shape, datatype, &mut data)?;
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
        assert_eq!(message(json!(300), 0, DataType::Uint8), "300 is no UINT8");
        assert_eq!(message(json!("x"), 0, DataType::Fp32), "\"x\" is no FP32");
    }
}

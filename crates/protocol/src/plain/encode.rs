//! Responses as plain JSON.
//!
//! Reads a response, hands on the value of the only output, or an object with the value of each. Does not know the request.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use half::{bf16, f16};
use inferd_types::{DataType, Error, ErrorKind, InferResponse, Result, Signature, Tensor, texts};
use serde_json::{Map, Value};

/// Encodes a response. If the request was one row, so is the response, unless its outputs are not batched.
///
/// NaN and the infinities are null; BYTES that are not UTF-8 are in base64.
///
/// # Errors
/// `Internal` if the response does not match the signature.
pub fn encode(signature: &Signature, response: &InferResponse, one_row: bool) -> Result<Vec<u8>> {
    let mut values = Map::new();
    for (spec, tensor) in pairs(signature, response)? {
        let value = value_of(tensor);
        let value = match value {
            Value::Array(mut rows) if one_row && rows.len() == 1 => rows.pop().unwrap_or_default(),
            value => value,
        };
        values.insert(spec.to_owned(), value);
    }
    let value = if values.len() == 1 { single(values) } else { Value::Object(values) };
    Ok(value.to_string().into_bytes())
}

/// Encodes a response as `{"predictions": [...]}`: one row each, an object by output name if there are several.
///
/// # Errors
/// `Internal` if the response does not match the signature, or its outputs differ in rows.
pub fn encode_predictions(signature: &Signature, response: &InferResponse) -> Result<Vec<u8>> {
    let mut columns = Vec::new();
    for (name, tensor) in pairs(signature, response)? {
        columns.push((name, value_of(tensor)));
    }
    let predictions = if columns.len() == 1 {
        columns.pop().map(|(_, column)| column).unwrap_or_default()
    } else {
        Value::Array(transposed(columns)?)
    };
    let whole = Map::from_iter([("predictions".to_owned(), predictions)]);
    Ok(Value::Object(whole).to_string().into_bytes())
}

fn pairs<'a>(
    signature: &'a Signature,
    response: &'a InferResponse,
) -> Result<impl Iterator<Item = (&'a str, &'a Tensor)>> {
    if signature.outputs.len() != response.outputs.len() {
        return Err(Error::new(ErrorKind::Internal, "the response lacks an output of the signature"));
    }
    Ok(signature.outputs.iter().zip(&response.outputs).map(|(spec, tensor)| (&*spec.name, tensor)))
}

fn single(values: Map<String, Value>) -> Value {
    values.into_iter().next().map(|(_, value)| value).unwrap_or_default()
}

fn transposed(columns: Vec<(&str, Value)>) -> Result<Vec<Value>> {
    let mut rows: Vec<Map<String, Value>> = Vec::new();
    for (place, (name, column)) in columns.into_iter().enumerate() {
        let Value::Array(column) = column else {
            return Err(Error::new(ErrorKind::Internal, format!("output '{name}' has no rows")));
        };
        if place == 0 {
            rows.resize_with(column.len(), Map::new);
        }
        if rows.len() != column.len() {
            return Err(Error::new(ErrorKind::Internal, format!("output '{name}' differs in rows")));
        }
        for (row, value) in rows.iter_mut().zip(column) {
            row.insert(name.to_owned(), value);
        }
    }
    Ok(rows.into_iter().map(Value::Object).collect())
}

/// A tensor as nested arrays.
fn value_of(tensor: &Tensor) -> Value {
    nested(&tensor.shape, &mut elements_of(tensor).into_iter())
}

fn nested(shape: &[u64], elements: &mut impl Iterator<Item = Value>) -> Value {
    match shape.split_first() {
        None => elements.next().unwrap_or_default(),
        Some((length, inner)) => Value::Array((0..*length).map(|_| nested(inner, elements)).collect()),
    }
}

fn elements_of(tensor: &Tensor) -> Vec<Value> {
    let data = &tensor.data[..];
    match tensor.datatype {
        DataType::Bool => each(data, |[byte]| Value::Bool(byte != 0)),
        DataType::Uint8 => each(data, |bytes| u8::from_le_bytes(bytes).into()),
        DataType::Uint16 => each(data, |bytes| u16::from_le_bytes(bytes).into()),
        DataType::Uint32 => each(data, |bytes| u32::from_le_bytes(bytes).into()),
        DataType::Uint64 => each(data, |bytes| u64::from_le_bytes(bytes).into()),
        DataType::Int8 => each(data, |bytes| i8::from_le_bytes(bytes).into()),
        DataType::Int16 => each(data, |bytes| i16::from_le_bytes(bytes).into()),
        DataType::Int32 => each(data, |bytes| i32::from_le_bytes(bytes).into()),
        DataType::Int64 => each(data, |bytes| i64::from_le_bytes(bytes).into()),
        // Via its text: the shortest digits that give the number back, which those of its FP64 are not.
        DataType::Fp16 => each(data, |bytes| short(f16::from_le_bytes(bytes).to_f32())),
        DataType::Bf16 => each(data, |bytes| short(bf16::from_le_bytes(bytes).to_f32())),
        DataType::Fp32 => each(data, |bytes| short(f32::from_le_bytes(bytes))),
        DataType::Fp64 => each(data, |bytes| f64::from_le_bytes(bytes).into()),
        DataType::Bytes => texts(data).map(text_of).collect(),
    }
}

fn short(value: f32) -> Value {
    if !value.is_finite() {
        return Value::Null;
    }
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

fn each<const N: usize>(data: &[u8], value: impl Fn([u8; N]) -> Value) -> Vec<Value> {
    data.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)).collect()
}

/// Null is a missing text, as in a pipeline that returns one of its inputs.
fn text_of(element: Option<&[u8]>) -> Value {
    match element.map(|element| (std::str::from_utf8(element), element)) {
        None => Value::Null,
        Some((Ok(text), _)) => text.into(),
        Some((Err(_), bytes)) => STANDARD.encode(bytes).into(),
    }
}

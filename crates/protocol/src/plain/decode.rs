//! Plain values into tensors: what they are follows from the signature, how many rows there are from their nesting.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use half::f16;
use inferd_types::{DataType, Error, ErrorKind, Result, Shape, Signature, TensorSpec};
use serde_json::{Map, Value};

use super::Plain;
use crate::Limits;
use crate::check::{Input, Inputs, invalid, names, shown};

/// One part of a form.
#[derive(Clone, Debug)]
pub struct Part {
    /// The input that it is for.
    pub name: String,
    /// Its content.
    pub data: Bytes,
    /// Whether its content is JSON rather than the bytes themselves.
    pub json: bool,
}

/// Decodes plain JSON: the value of the only input, or an object with the value of each.
///
/// A value that is nested one level less than the input's shape is one row. `{"b64": "…"}` is bytes, as in TensorFlow
/// Serving's protocol and KServe's first.
///
/// # Errors
/// `InvalidInput` that says what was expected.
pub fn decode(body: &[u8], signature: &Signature, limits: &Limits) -> Result<Plain> {
    let value = parse(body, limits).map_err(|error| match &signature.inputs[..] {
        [only] if only.datatype == DataType::Bytes => invalid(format!(
            "{}; text or a file as it is needs its Content-Type, such as image/png",
            error.message()
        )),
        _ => error,
    })?;
    match (value, &signature.inputs[..]) {
        // An object is a row of JSON where the model takes text, and names its inputs where it takes something else.
        (Value::Object(members), [only]) if members.len() == 1 && members.contains_key(&*only.name) => {
            by_name(members, signature)
        }
        (Value::Object(members), [only]) if only.datatype != DataType::Bytes => by_name(members, signature),
        (value, [only]) => by_name(Map::from_iter([(only.name.to_string(), value)]), signature),
        (Value::Object(members), _) => by_name(members, signature),
        _ => Err(invalid(format!(
            "an object with a value for each input is expected: {}",
            names(&signature.inputs)
        ))),
    }
}

/// Decodes `{"instances": [...]}`: a row each, an object by input name where the model takes several.
///
/// # Errors
/// `InvalidInput` that says what was expected.
pub fn decode_instances(body: &[u8], signature: &Signature, limits: &Limits) -> Result<Plain> {
    let Value::Object(mut members) = parse(body, limits)? else {
        return Err(invalid("an object with the member 'instances' is expected"));
    };
    let Some(Value::Array(instances)) = members.remove("instances") else {
        return Err(invalid("'instances' is expected: an array of rows"));
    };
    let named = |instance: &Value| match (instance, &signature.inputs[..]) {
        (Value::Object(row), [only]) => row.len() == 1 && row.contains_key(&*only.name),
        (_, [_]) => false,
        _ => true,
    };
    if !instances.first().is_some_and(named) {
        let [only] = &signature.inputs[..] else {
            return Err(invalid("'instances' has no rows; at least one is expected"));
        };
        return whole(Map::from_iter([(only.name.to_string(), Value::Array(instances))]), signature);
    }
    let mut columns: Map<String, Value> = Map::new();
    for (row, instance) in instances.into_iter().enumerate() {
        let Value::Object(instance) = instance else {
            let known = names(&signature.inputs);
            return Err(invalid(format!("instances[{row}] is no object; one with {known} is expected")));
        };
        for (name, value) in instance {
            match columns.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
                Value::Array(column) => column.push(value),
                _ => return Err(Error::new(ErrorKind::Internal, "a column is no array")),
            }
        }
    }
    whole(columns, signature)
}

/// Decodes a raw body: one row of the only input, which must be BYTES.
///
/// # Errors
/// `InvalidInput` where the model takes something else.
pub fn decode_element(body: &[u8], signature: &Signature) -> Result<Plain> {
    match &signature.inputs[..] {
        [only] if only.datatype == DataType::Bytes => {
            let mut inputs = Inputs::new(signature);
            put_element(&mut inputs, only, body)?;
            finish(inputs, true)
        }
        inputs => Err(invalid(format!(
            "a raw body is one BYTES element, but the model takes {}; send JSON",
            names(inputs)
        ))),
    }
}

/// Decodes the parts of a form: one row, each input a part.
///
/// # Errors
/// `InvalidInput` that says what was expected.
pub fn decode_parts(parts: Vec<Part>, signature: &Signature, limits: &Limits) -> Result<Plain> {
    let mut inputs = Inputs::new(signature);
    for part in parts {
        let spec = spec_of(signature, &part.name)?;
        if spec.datatype == DataType::Bytes && !part.json {
            put_element(&mut inputs, spec, &part.data)?;
        } else {
            let value = parse(&part.data, limits).map_err(|error| error.within(Input(spec)))?;
            put(&mut inputs, spec, &value, true)?;
        }
    }
    finish(inputs, true)
}

fn parse(body: &[u8], limits: &Limits) -> Result<Value> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| invalid(format!("the body is not JSON: {error}")))?;
    let max = limits.json_depth_max;
    if depth(&value) > max {
        return Err(invalid(format!("the body is nested deeper than json_depth_max = {max}")));
    }
    Ok(value)
}

/// Levels of arrays and objects. Recursion ends where the parser's own limit (128) does.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn by_name(members: Map<String, Value>, signature: &Signature) -> Result<Plain> {
    let mut one_row = None;
    for (name, value) in &members {
        let spec = spec_of(signature, name)?;
        let levels = nesting(value, spec);
        let rank = spec.shape.len();
        let row = match levels {
            levels if levels == rank => false,
            levels if levels + 1 == rank => true,
            _ => {
                return Err(invalid(format!(
                    "input '{name}' is nested {levels} levels deep; {rank} are expected for rows, {} for one row",
                    rank.saturating_sub(1)
                )));
            }
        };
        if *one_row.get_or_insert(row) != row {
            return Err(invalid("some inputs are one row and others are rows; all must be the same"));
        }
    }
    let one_row = one_row.unwrap_or(false);
    let mut inputs = Inputs::new(signature);
    for (name, value) in &members {
        put(&mut inputs, spec_of(signature, name)?, value, one_row)?;
    }
    finish(inputs, one_row)
}

/// Values that have the dimension of rows.
fn whole(members: Map<String, Value>, signature: &Signature) -> Result<Plain> {
    let mut inputs = Inputs::new(signature);
    for (name, value) in &members {
        put(&mut inputs, spec_of(signature, name)?, value, false)?;
    }
    finish(inputs, false)
}

fn spec_of<'a>(signature: &'a Signature, name: &str) -> Result<&'a TensorSpec> {
    signature.inputs.iter().find(|spec| &*spec.name == name).ok_or_else(|| {
        invalid(format!("unknown input '{}'; the model takes {}", shown(name), names(&signature.inputs)))
    })
}

/// Levels of arrays above the first element, as many as can be dimensions.
fn nesting(value: &Value, spec: &TensorSpec) -> usize {
    let mut levels = 0;
    let mut value = value;
    while let Value::Array(items) = value {
        levels += 1;
        // What is nested deeper in text is an element of JSON itself.
        match items.first() {
            Some(first) if spec.datatype != DataType::Bytes || levels < spec.shape.len() => value = first,
            _ => break,
        }
    }
    levels
}

fn put(inputs: &mut Inputs<'_>, spec: &TensorSpec, value: &Value, one_row: bool) -> Result<()> {
    let index = inputs.claim(&spec.name)?;
    let rank = spec.shape.len() - usize::from(one_row);
    let mut shape = Shape::new();
    let mut data = Vec::new();
    if one_row {
        shape.push(1);
    }
    measure(value, rank, &mut shape);
    let start = usize::from(one_row);
    flatten(value, &shape[start.min(shape.len())..], spec, &mut data)
        .map_err(|error| error.within(Input(spec)))?;
    inputs.check(index, spec.datatype.name(), &shape)?;
    inputs.put(index, shape, data.into())
}

/// The lengths of the first array of each level.
fn measure(value: &Value, rank: usize, shape: &mut Shape) {
    if let (Value::Array(items), 1..) = (value, rank) {
        shape.push(items.len() as u64);
        if let Some(first) = items.first() {
            measure(first, rank - 1, shape);
        }
    }
}

fn flatten(value: &Value, shape: &[u64], spec: &TensorSpec, data: &mut Vec<u8>) -> Result<()> {
    let Some((length, inner)) = shape.split_first() else {
        return element(value, spec.datatype, data);
    };
    match value {
        Value::Array(items) if items.len() as u64 == *length => {
            items.iter().try_for_each(|item| flatten(item, inner, spec, data))
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

fn element(value: &Value, datatype: DataType, data: &mut Vec<u8>) -> Result<()> {
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
        DataType::Bf16 => {
            return Err(invalid("BF16 has no form in JSON; use /v2 with binary tensors"));
        }
        DataType::Bytes => match value {
            Value::String(text) => push_element(text.as_bytes(), data)?,
            Value::Object(members) if members.len() == 1 && members.contains_key("b64") => {
                let text = members["b64"].as_str().unwrap_or_default();
                let bytes =
                    STANDARD.decode(text).map_err(|error| invalid(format!("'b64' is no base64: {error}")))?;
                push_element(&bytes, data)?;
            }
            // JSON is an element as it stands.
            other => push_element(other.to_string().as_bytes(), data)?,
        },
    }
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

fn push_element(element: &[u8], data: &mut Vec<u8>) -> Result<()> {
    let length = u32::try_from(element.len()).map_err(|_| invalid("an element is longer than 4 GiB"))?;
    data.extend_from_slice(&length.to_le_bytes());
    data.extend_from_slice(element);
    Ok(())
}

/// Takes the whole of `element` as the only element of the input.
fn put_element(inputs: &mut Inputs<'_>, spec: &TensorSpec, element: &[u8]) -> Result<()> {
    let index = inputs.claim(&spec.name)?;
    let shape: Shape = spec.shape.iter().map(|_| 1).collect();
    inputs.check(index, spec.datatype.name(), &shape)?;
    let mut data = Vec::with_capacity(element.len() + 4);
    push_element(element, &mut data)?;
    inputs.put(index, shape, data.into())
}

fn finish(inputs: Inputs<'_>, one_row: bool) -> Result<Plain> {
    let (inputs, _) = inputs.finish()?;
    Ok(Plain { inputs, one_row })
}

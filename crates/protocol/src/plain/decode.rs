//! Plain values into tensors: what they are follows from the signature, how many rows there are from their nesting.

use bytes::Bytes;
use inferd_types::values::{measure, push_all, push_bytes};
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

/// Decodes plain JSON: the value of the only input (or the only one without a default), or an object with the value of
/// each.
///
/// A value that is nested one level less than the input's shape is one row. `{"b64": "…"}` is bytes, as in TensorFlow
/// Serving's protocol and KServe's first.
///
/// # Errors
/// `InvalidInput` that says what was expected.
pub fn decode(body: &[u8], signature: &Signature, limits: &Limits) -> Result<Plain> {
    let value = parse(body, limits).map_err(|error| match signature.lone_input() {
        Some(only) if only.datatype == DataType::Bytes => invalid(format!(
            "{}; text or a file as it is needs its Content-Type, such as image/png",
            error.message()
        )),
        _ => error,
    })?;
    match (value, signature.lone_input()) {
        // An object is a row of JSON where the model takes text, and names its inputs where it takes something else.
        (Value::Object(members), Some(only)) if names_inputs(&members, only, signature) => {
            by_name(members, signature)
        }
        (Value::Object(members), Some(only)) if only.datatype != DataType::Bytes => {
            by_name(members, signature)
        }
        (value, Some(only)) => by_name(Map::from_iter([(only.name.to_string(), value)]), signature),
        (Value::Object(members), None) => by_name(members, signature),
        _ => Err(invalid(format!(
            "an object with a value for each input is expected: {}",
            names(&signature.inputs)
        ))),
    }
}

/// Whether an object's members are inputs, with `only` among them, rather than those of a row of JSON.
fn names_inputs(members: &Map<String, Value>, only: &TensorSpec, signature: &Signature) -> bool {
    let known = |name: &String| signature.inputs.iter().any(|spec| *spec.name == **name);
    members.contains_key(&*only.name) && members.keys().all(known)
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
    let named = |instance: &Value| match (instance, signature.lone_input()) {
        (Value::Object(row), Some(only)) => names_inputs(row, only, signature),
        (_, only) => only.is_none(),
    };
    if !instances.first().is_some_and(named) {
        let Some(only) = signature.lone_input() else {
            return Err(invalid("'instances' has no rows; at least one is expected"));
        };
        return whole(Map::from_iter([(only.name.to_string(), Value::Array(instances))]), signature);
    }
    let rows = instances.len();
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
    // Else a row's value would become another row's.
    let partial =
        |(_, column): &(&String, &Value)| column.as_array().is_none_or(|column| column.len() != rows);
    if let Some((name, _)) = columns.iter().find(partial) {
        return Err(invalid(format!(
            "'{}' is given in some of the instances; give it in all of them or in none",
            shown(name)
        )));
    }
    whole(columns, signature)
}

/// Decodes a raw body: one row of the only input (or the only one without a default), which must be BYTES.
///
/// # Errors
/// `InvalidInput` where the model takes something else.
pub fn decode_element(body: &[u8], signature: &Signature) -> Result<Plain> {
    match signature.lone_input() {
        Some(only) if only.datatype == DataType::Bytes => {
            let mut inputs = Inputs::new(signature);
            put_element(&mut inputs, only, body)?;
            finish(inputs, true)
        }
        _ => Err(invalid(format!(
            "a raw body is one BYTES element, but the model takes {}; send JSON",
            names(&signature.inputs)
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
    // Nothing was given: every input is its default, once.
    let one_row = one_row.unwrap_or(true);
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

fn flatten(value: &Value, shape: &[u64], spec: &TensorSpec, data: &mut Vec<u8>) -> Result<()> {
    if spec.datatype == DataType::Bf16 {
        return Err(invalid("BF16 has no form in JSON; use /v2 with binary tensors"));
    }
    push_all(value, shape, spec.datatype, data)
}

/// Takes the whole of `element` as the only element of the input.
fn put_element(inputs: &mut Inputs<'_>, spec: &TensorSpec, element: &[u8]) -> Result<()> {
    let index = inputs.claim(&spec.name)?;
    let shape: Shape = spec.shape.iter().map(|_| 1).collect();
    inputs.check(index, spec.datatype.name(), &shape)?;
    let mut data = Vec::with_capacity(element.len() + 4);
    push_bytes(element, &mut data)?;
    inputs.put(index, shape, data.into())
}

fn finish(inputs: Inputs<'_>, one_row: bool) -> Result<Plain> {
    let (inputs, _) = inputs.finish()?;
    Ok(Plain { inputs, one_row })
}

//! Plain values to tensors.
//!
//! Reads JSON, raw bytes and forms, hands on tensors: types come from the signature, the number of rows from the nesting.
//! Knows nothing of content types.

use bytes::Bytes;
use inferd_types::values::{Kind, Unfit, measure, push_all, push_bytes};
use inferd_types::{DataType, Input, Result, Shape, Signature, Tensor, TensorSpec, shown};
use serde_json::{Map, Value};
use smallvec::SmallVec;

use super::records;
use crate::check::{Inputs, names};
use crate::invalid::invalid;
use crate::limits::Limits;

/// A request that matches the signature it was decoded for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Every input of the signature, in its order.
    pub inputs: SmallVec<[Tensor; 2]>,
    /// Whether it was one row, written without the batch dimension: so is its response.
    pub one_row: bool,
}

/// One part of a form.
#[derive(Clone, Debug)]
pub struct Part {
    /// The input.
    pub name: String,
    /// Its content.
    pub data: Bytes,
    /// Whether its content is JSON instead of raw bytes.
    pub json: bool,
}

/// Decodes plain JSON: the value of the only (or only required) input, an object with the value of each input, or
/// rows as objects by column.
///
/// A value that is nested one level less than the input's shape is one row. `{"b64": "…"}` is bytes, as in
/// TensorFlow Serving's protocol and KServe V1. Null is NaN, or a missing text.
///
/// # Errors
/// `InvalidInput` with what was expected.
pub fn decode(body: &[u8], signature: &Signature, limits: &Limits) -> Result<Plain> {
    let value = parse(body, limits).map_err(|error| match signature.lone_input() {
        Some(only) if only.datatype == DataType::Bytes => invalid(format!(
            "{}; text or a file as it is needs its Content-Type, such as image/png",
            error.message()
        )),
        _ => error,
    })?;
    let lone = lone(signature);
    let value = match value {
        Value::Array(rows) => match records_by(&rows, lone, signature, Objects::AreElements) {
            Some(by) => return of_records(rows, by, signature),
            None => Value::Array(rows),
        },
        value => value,
    };
    match (value, lone) {
        (Value::Object(members), Some(only)) if records::names_inputs(&members, only, signature) => {
            by_name(members, signature)
        }
        (Value::Object(members), Some(only)) if !only.columns().is_empty() => {
            let (rows, one_row) = records::row(members, only, signature)?;
            Ok(Plain { one_row, ..whole(one(only, rows), signature)? })
        }
        // An object is a row of JSON if the model takes text, and names inputs otherwise.
        (Value::Object(members), Some(only)) if only.spec.datatype != DataType::Bytes => {
            by_name(members, signature)
        }
        (value, Some(only)) => by_name(one(only, value), signature),
        (Value::Object(members), None) => by_name(members, signature),
        _ => Err(invalid(format!(
            "an object with a value for each input, or an array of objects with a row each, is expected: {}",
            names(&signature.inputs)
        ))),
    }
}

/// Decodes `{"instances": [...]}`: one row each, an object by input or column if the model takes several.
///
/// # Errors
/// `InvalidInput` with what was expected.
pub fn decode_instances(body: &[u8], signature: &Signature, limits: &Limits) -> Result<Plain> {
    let Value::Object(mut members) = parse(body, limits)? else {
        return Err(invalid("an object with the member 'instances' is expected"));
    };
    let Some(Value::Array(instances)) = members.remove("instances") else {
        return Err(invalid("'instances' is expected: an array of rows"));
    };
    let lone = lone(signature);
    if let Some(by) = records_by(&instances, lone, signature, Objects::AreRows) {
        return of_records(instances, by, signature);
    }
    match lone {
        Some(only) => whole(one(only, Value::Array(instances)), signature),
        None if instances.is_empty() => Err(invalid("'instances' has no rows; at least one is expected")),
        None => {
            let known = names(&signature.inputs);
            Err(invalid(format!("instances[0] is not an object; one with {known} is expected")))
        }
    }
}

/// The only input, or the only required one.
fn lone(signature: &Signature) -> Option<Input<'_>> {
    let only = signature.lone_input()?;
    let index = signature.inputs.iter().position(|spec| spec.name == only.name)?;
    Some(signature.input(index))
}

fn one(input: Input<'_>, value: Value) -> Map<String, Value> {
    Map::from_iter([(input.spec.name.to_string(), value)])
}

/// The meaning of objects if the only input takes text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Objects {
    /// Elements of that input, as JSON text.
    AreElements,
    /// Rows by input.
    AreRows,
}

/// The meaning of the keys of rows.
enum By<'s> {
    /// The columns of this input.
    Columns(Input<'s>),
    Inputs,
}

/// What the keys of `rows` name; `None` if rows are not objects, or objects are elements of an input.
fn records_by<'s>(
    rows: &[Value],
    lone: Option<Input<'s>>,
    signature: &Signature,
    objects: Objects,
) -> Option<By<'s>> {
    let Value::Object(first) = rows.first()? else { return None };
    let Some(only) = lone else { return Some(By::Inputs) };
    if records::names_inputs(first, only, signature) {
        let text = only.spec.datatype == DataType::Bytes && only.schema.is_none();
        return (!text || objects == Objects::AreRows).then_some(By::Inputs);
    }
    (!only.columns().is_empty()).then_some(By::Columns(only))
}

fn of_records(rows: Vec<Value>, by: By<'_>, signature: &Signature) -> Result<Plain> {
    let members = match by {
        By::Columns(matrix) => one(matrix, records::rows(rows, matrix, signature)?),
        By::Inputs => records::inputs(rows, signature)?,
    };
    whole(members, signature)
}

/// Decodes a raw body: one row of the only (or only required) input, which must be BYTES.
///
/// # Errors
/// `InvalidInput` if the model takes something else.
pub fn decode_element(body: &[u8], signature: &Signature) -> Result<Plain> {
    match signature.lone_input() {
        Some(only) if only.datatype == DataType::Bytes => {
            let mut inputs = Inputs::new(signature);
            put_element(&mut inputs, &only.name, body)?;
            finish(inputs, true)
        }
        _ => Err(invalid(format!(
            "a raw body is one BYTES element, but the model takes {}; send JSON",
            names(&signature.inputs)
        ))),
    }
}

/// Decodes the parts of a form: one row, one part per input.
///
/// # Errors
/// `InvalidInput` with what was expected.
pub fn decode_parts(parts: Vec<Part>, signature: &Signature, limits: &Limits) -> Result<Plain> {
    let mut inputs = Inputs::new(signature);
    for part in parts {
        let spec = spec_of(signature, &part.name)?;
        if spec.datatype == DataType::Bytes && !part.json {
            put_element(&mut inputs, &part.name, &part.data)?;
        } else {
            let here = format_args!("input '{}'", spec.name);
            let value = parse(&part.data, limits).map_err(|error| error.within(here))?;
            put(&mut inputs, &part.name, &value, true)?;
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

/// Levels of arrays and objects. Recursion is bounded by the parser's own limit (128).
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn by_name(mut members: Map<String, Value>, signature: &Signature) -> Result<Plain> {
    let known = |name: &str| signature.inputs.iter().any(|spec| *spec.name == *name);
    members.retain(|name, _| known(name) || !records::ignores(signature, name));
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
        put(&mut inputs, name, value, one_row)?;
    }
    finish(inputs, one_row)
}

/// Values with the batch dimension.
fn whole(members: Map<String, Value>, signature: &Signature) -> Result<Plain> {
    let mut inputs = Inputs::new(signature);
    for (name, value) in &members {
        put(&mut inputs, name, value, false)?;
    }
    finish(inputs, false)
}

fn spec_of<'a>(signature: &'a Signature, name: &str) -> Result<&'a TensorSpec> {
    signature.inputs.iter().find(|spec| &*spec.name == name).ok_or_else(|| {
        invalid(format!("unknown input '{}'; the model takes {}", shown(name), names(&signature.inputs)))
    })
}

/// Levels of arrays above the first element, at most the rank.
fn nesting(value: &Value, spec: &TensorSpec) -> usize {
    let mut levels = 0;
    let mut value = value;
    while let Value::Array(items) = value {
        levels += 1;
        // Deeper nesting in text is an element of JSON.
        match items.first() {
            Some(first) if spec.datatype != DataType::Bytes || levels < spec.shape.len() => value = first,
            _ => break,
        }
    }
    levels
}

fn put(inputs: &mut Inputs<'_>, name: &str, value: &Value, one_row: bool) -> Result<()> {
    let index = inputs.claim(name)?;
    let input = inputs.input(index);
    let datatype = input.spec.datatype;
    if datatype == DataType::Bf16 {
        return Err(invalid("BF16 has no form in JSON; use /v2 with binary tensors").within(input));
    }
    let mut shape = Shape::new();
    if one_row {
        shape.push(1);
    }
    let start = shape.len();
    measure(value, input.spec.shape.len().saturating_sub(start), &mut shape);
    let mut data = Vec::new();
    push_all(value, &shape[start..], Kind::of(input), &mut data).map_err(|unfit| match unfit {
        Unfit::Null(element) => input.null(datatype, &shape, element),
        Unfit::Other(error) => error.within(input),
    })?;
    let claim = inputs.check(index, datatype.name(), &shape)?;
    inputs.put(claim, shape, data.into())
}

/// Adds `element` as the only element of the input.
fn put_element(inputs: &mut Inputs<'_>, name: &str, element: &[u8]) -> Result<()> {
    let index = inputs.claim(name)?;
    let spec = inputs.spec(index);
    let shape: Shape = spec.shape.iter().map(|_| 1).collect();
    let claim = inputs.check(index, spec.datatype.name(), &shape)?;
    let mut data = Vec::with_capacity(element.len() + 4);
    push_bytes(element, &mut data)?;
    inputs.put(claim, shape, data.into())
}

fn finish(inputs: Inputs<'_>, one_row: bool) -> Result<Plain> {
    Ok(Plain { inputs: inputs.finish()?.tensors, one_row })
}

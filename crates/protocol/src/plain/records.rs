//! Rows as objects: by the columns of a matrix, or by input.
//!
//! Reads JSON objects and a signature, hands on the value of each input, with all its rows. Ignored columns are
//! skipped. Knows nothing of bodies and of tensors.

use inferd_types::{Error, Input, Result, Signature, listed, shown};
use serde_json::{Map, Value};

use crate::invalid::invalid;

/// Whether the keys of an object are inputs, including `only`, instead of those of a JSON element or columns.
pub(super) fn names_inputs(members: &Map<String, Value>, only: Input<'_>, signature: &Signature) -> bool {
    let known = |name: &String| {
        let is = |other: &str| *other == **name;
        signature.inputs.iter().any(|spec| is(&spec.name)) || ignores(signature, name)
    };
    // A column may have the input's name, but no column of one row is an array.
    let named = members.get(&*only.spec.name);
    named.is_some_and(|value| only.columns().is_empty() || value.is_array()) && members.keys().all(known)
}

/// Whether the model ignores the column `name`.
pub(super) fn ignores(signature: &Signature, name: &str) -> bool {
    signature.extras.ignored_columns.iter().any(|column| **column == *"*" || **column == *name)
}

/// One row of a matrix from an object by column; of lists of equal length, a row for each of their elements. Also
/// whether it was one row.
///
/// # Errors
/// `InvalidInput` with the columns that are missing or unknown.
pub(super) fn row(
    members: Map<String, Value>,
    input: Input<'_>,
    signature: &Signature,
) -> Result<(Value, bool)> {
    let values = in_order(members, input, signature, "the row")?;
    if !values.iter().any(Value::is_array) {
        return Ok((Value::Array(vec![Value::Array(values)]), true));
    }
    let mut rows: Vec<Vec<Value>> = Vec::new();
    for (place, (column, name)) in values.into_iter().zip(input.columns()).enumerate() {
        let Value::Array(column) = column else {
            return Err(invalid(format!(
                "column '{name}' has one value where another has a list; give every column as many"
            )));
        };
        if place == 0 {
            rows.resize_with(column.len(), Vec::new);
        } else if rows.len() != column.len() {
            return Err(invalid(format!(
                "column '{name}' has {} values where another has {}; give every column as many",
                column.len(),
                rows.len()
            )));
        }
        rows.iter_mut().zip(column).for_each(|(row, value)| row.push(value));
    }
    Ok((rows.into_iter().map(Value::Array).collect(), false))
}

/// Rows of a matrix from objects by column.
///
/// # Errors
/// `InvalidInput` with the row and the columns that are missing or unknown.
pub(super) fn rows(objects: Vec<Value>, input: Input<'_>, signature: &Signature) -> Result<Value> {
    let row = |(place, object)| {
        let values = in_order(members(place, object)?, input, signature, &format!("row {place}"))?;
        match values.iter().position(Value::is_array) {
            Some(column) => Err(invalid(format!(
                "row {place}, column {column} ('{}') of {input} is an array; one value is expected",
                input.columns()[column]
            ))),
            None => Ok(Value::Array(values)),
        }
    };
    objects.into_iter().enumerate().map(row).collect()
}

/// The values of `members` in the order of the columns.
fn in_order(
    mut members: Map<String, Value>,
    input: Input<'_>,
    signature: &Signature,
    place: &str,
) -> Result<Vec<Value>> {
    let columns = input.columns();
    let values: Vec<Option<Value>> = columns.iter().map(|column| members.remove(&**column)).collect();
    members.retain(|name, _| !ignores(signature, name));
    let missing =
        || columns.iter().zip(&values).filter(|(_, value)| value.is_none()).map(|(column, _)| &**column);
    if missing().next().is_some() || !members.is_empty() {
        let known = columns.iter().map(|column| &**column);
        return Err(unlike(place, missing().collect(), &members, known));
    }
    Ok(values.into_iter().flatten().collect())
}

/// The error for rows whose columns are not the model's.
#[cold]
fn unlike<'n>(
    place: &str,
    missing: Vec<&str>,
    foreign: &Map<String, Value>,
    known: impl ExactSizeIterator<Item = &'n str>,
) -> Error {
    let foreign: Vec<&str> = foreign.keys().map(String::as_str).collect();
    invalid(format!(
        "{place}: missing columns: {}; columns that the model does not have: {}; its columns are {}",
        listed(missing.into_iter()),
        listed(foreign.into_iter()),
        listed(known)
    ))
}

/// The values of every input from objects by input: all rows of each.
///
/// # Errors
/// `InvalidInput` with the row that is not an object, or the inputs that are missing or unknown.
pub(super) fn inputs(objects: Vec<Value>, signature: &Signature) -> Result<Map<String, Value>> {
    let count = objects.len();
    let mut columns: Map<String, Value> = Map::new();
    for (place, object) in objects.into_iter().enumerate() {
        for (name, value) in members(place, object)? {
            if let Value::Array(column) = columns.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
                column.push(value);
            }
        }
    }
    let known = |name: &str| signature.inputs.iter().any(|spec| *spec.name == *name);
    columns.retain(|name, _| known(name) || !ignores(signature, name));
    let needed =
        signature.inputs.iter().enumerate().filter(|(index, _)| signature.default_of(*index).is_none());
    let missing: Vec<&str> =
        needed.map(|(_, spec)| &*spec.name).filter(|name| !columns.contains_key(*name)).collect();
    if !missing.is_empty() || columns.keys().any(|name| !known(name)) {
        columns.retain(|name, _| !known(name));
        let known = signature.inputs.iter().map(|spec| &*spec.name);
        return Err(unlike("the rows", missing, &columns, known));
    }
    // Otherwise a row's value would become another row's.
    let partial =
        |(_, column): &(&String, &Value)| column.as_array().is_none_or(|column| column.len() != count);
    if let Some((name, _)) = columns.iter().find(partial) {
        return Err(invalid(format!(
            "'{}' is given in some of the rows; give it in all of them or in none",
            shown(name)
        )));
    }
    Ok(columns)
}

fn members(place: usize, object: Value) -> Result<Map<String, Value>> {
    match object {
        Value::Object(members) => Ok(members),
        _ => Err(invalid(format!(
            "row {place} is not an object, unlike the first row; give all rows the same form"
        ))),
    }
}

//! Generated example values of a signature: small, and valid as they are.
//!
//! Reads tensor descriptions, hands on JSON. Knows nothing of what the values mean to the model.

use inferd_types::{DataType, Input, TensorSpec};
use serde_json::{Map, Value, json};

/// Maximum number of elements of an example that is readable and fast to show.
const ELEMENTS_MAX: u64 = 256;
/// Size of free dimensions: the same for all, since inputs often share one.
const FREE: u64 = 3;

/// Whether a row of each tensor is small enough for an example.
pub(super) fn fits(tensors: &[Input<'_>]) -> bool {
    tensors.iter().all(|tensor| row_of(tensor.spec).iter().product::<u64>() <= ELEMENTS_MAX)
}

/// Plain values: of the only tensor, or an object; `rows` of them, or one row without the batch dimension.
pub(super) fn plain(tensors: &[Input<'_>], rows: Option<u64>) -> Value {
    let value = |tensor: &Input<'_>| {
        let mut shape = row_of(tensor.spec);
        // A tensor whose first dimension is fixed has no batch dimension.
        match rows {
            Some(rows) if !tensor.spec.shape.is_empty() => shape.insert(0, rows_of(tensor.spec, rows)),
            _ => {}
        }
        nested(&shape, &element(*tensor))
    };
    match tensors {
        [only] => value(only),
        tensors => Value::Object(
            tensors.iter().map(|tensor| (tensor.spec.name.to_string(), value(tensor))).collect::<Map<_, _>>(),
        ),
    }
}

/// One row of a matrix, by column name.
pub(super) fn columns(matrix: Input<'_>) -> Value {
    let column = |name: &std::sync::Arc<str>| (name.to_string(), element(matrix));
    Value::Object(matrix.columns().iter().map(column).collect())
}

/// Tensors of the Open Inference Protocol, of one row each.
pub(super) fn tensors(tensors: &[Input<'_>]) -> Value {
    let tensor = |tensor: &Input<'_>| {
        let spec = tensor.spec;
        let mut shape = row_of(spec);
        if !spec.shape.is_empty() {
            shape.insert(0, rows_of(spec, 1));
        }
        let elements = usize::try_from(shape.iter().product::<u64>()).unwrap_or_default();
        let data = vec![element(*tensor); elements];
        json!({"name": &*spec.name, "shape": shape, "datatype": spec.datatype.name(), "data": data})
    };
    tensors.iter().map(tensor).collect()
}

fn rows_of(spec: &TensorSpec, rows: u64) -> u64 {
    spec.shape.first().and_then(|dim| u64::try_from(*dim).ok()).unwrap_or(rows)
}

/// The shape of one row.
fn row_of(spec: &TensorSpec) -> Vec<u64> {
    spec.shape.iter().skip(1).map(|dim| u64::try_from(*dim).unwrap_or(FREE)).collect()
}

fn nested(shape: &[u64], element: &Value) -> Value {
    match shape.split_first() {
        None => element.clone(),
        Some((length, inner)) => (0..*length).map(|_| nested(inner, element)).collect(),
    }
}

fn element(tensor: Input<'_>) -> Value {
    match tensor.spec.datatype {
        DataType::Bool => json!(true),
        DataType::Fp16 | DataType::Fp32 | DataType::Fp64 | DataType::Bf16 => {
            json!(tensor.schema.and_then(|schema| schema.largest).unwrap_or(0.5).min(0.5))
        }
        DataType::Bytes => json!("text"),
        _ => json!(1),
    }
}

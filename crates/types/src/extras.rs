//! What a model declares about its tensors besides types and shapes: optional inputs, class labels, schemas.
//!
//! Reads what a worker reports and what the operator sets, hands on tensors for inputs that a request omitted.
//! Knows nothing of wire formats.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::values::{Kind, measure, push, push_all};
use crate::{
    Error, ErrorKind, Input, InputSchema, Result, Shape, Tensor, TensorSpec, Verdict, element_count,
};

/// Most bytes generated for an omitted input: a request of few bytes may have many rows.
const FILLED_MAX_BYTES: usize = 64 << 20;

/// Signature facts that the protocol has no field for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Extras {
    /// Defaults of optional inputs. An input has at most one.
    pub defaults: Vec<InputDefault>,
    /// Class labels of outputs. An output has at most one.
    pub labels: Vec<OutputLabels>,
    /// Schemas of inputs. An input has at most one.
    pub schemas: Vec<InputSchema>,
    /// Columns of a client's data frame that the model ignores; `*` stands for any.
    pub ignored_columns: Vec<Arc<str>>,
    /// The batching verdict, if the worker has one.
    pub verdict: Option<Verdict>,
}

/// The default of an optional input: one row if its dimension 0 is free, else the whole tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputDefault {
    /// The input's name.
    pub input: Arc<str>,
    /// The dimensions; those of a row begin with 1.
    pub shape: Vec<u64>,
    /// The elements, in the protocol's raw form.
    #[serde(with = "numbers")]
    pub data: Bytes,
}

/// Bytes in JSON: a list of numbers.
mod numbers {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(data: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        data[..].serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(Bytes::from)
    }
}

/// The class labels of an output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputLabels {
    /// The output's name.
    pub output: Arc<str>,
    /// By class index; classes past the end have no label.
    pub names: Vec<Arc<str>>,
    /// The file that they come from, as the settings name it.
    pub file: Option<String>,
}

impl InputDefault {
    /// The default that `value` describes. A scalar stands for every element of a row.
    ///
    /// # Errors
    /// `InvalidInput` if it does not match the input.
    pub fn of_value(input: Input<'_>, value: &Value) -> Result<InputDefault> {
        let (spec, kind) = (input.spec, Kind::of(input));
        let free_rows = spec.shape.first().is_some_and(|rows| *rows < 0);
        let dims = &spec.shape[usize::from(free_rows)..];
        let (mut shape, mut data) = (Shape::new(), Vec::new());
        measure(value, dims.len(), &mut shape);
        if shape.is_empty() && !dims.is_empty() {
            let fixed: Option<Shape> = dims.iter().map(|dim| u64::try_from(*dim).ok()).collect();
            let Some(fixed) = fixed else {
                return Err(invalid(format!(
                    "one value does not say the size of a row of {:?}; write it as a list",
                    spec.shape
                )));
            };
            push(value, kind, &mut data)?;
            data = repeated(&data, element_count(&fixed)?)?;
            shape = fixed;
        } else {
            push_all(value, &shape, kind, &mut data)?;
        }
        if free_rows {
            shape.insert(0, 1);
        }
        let default = InputDefault { input: spec.name.clone(), shape: shape.to_vec(), data: data.into() };
        default.check(input)?;
        Ok(default)
    }

    /// # Errors
    /// `InvalidInput` if it is not a valid tensor of the input, or not one row where rows are free.
    pub(crate) fn check(&self, input: Input<'_>) -> Result<()> {
        let spec = input.spec;
        let one_row = spec.shape.first().is_none_or(|rows| *rows >= 0) || self.shape.first() == Some(&1);
        if !spec.accepts(&self.shape) || !one_row {
            let row = spec.shape.first().is_some_and(|rows| *rows < 0);
            let (found, wanted) = match row {
                true => (self.shape.get(1..).unwrap_or_default(), &spec.shape[1..]),
                false => (&self.shape[..], &spec.shape[..]),
            };
            let what = if row { "a row of it" } else { "it" };
            return Err(invalid(format!(
                "it has the shape {found:?} but {what} is {wanted:?} (-1 stands for any size)"
            )));
        }
        input.tensor(Shape::from_slice(&self.shape), self.data.clone()).map(drop)
    }

    /// The tensor of `spec` for a request of `rows` rows.
    ///
    /// # Errors
    /// `InvalidInput` if it would be larger than the limit.
    pub fn tensor(&self, spec: &TensorSpec, rows: u64) -> Result<Tensor> {
        let (mut shape, mut data) = (Shape::from_slice(&self.shape), self.data.clone());
        if spec.shape.first().is_some_and(|dim| *dim < 0) && rows != 1 {
            data = repeated(&data, rows)
                .map_err(|error| error.within(format_args!("input '{}' is left out", spec.name)))?
                .into();
            shape[0] = rows;
        }
        Ok(Tensor { datatype: spec.datatype, shape, data })
    }
}

fn repeated(data: &[u8], times: u64) -> Result<Vec<u8>> {
    let times = usize::try_from(times)
        .ok()
        .filter(|times| data.len().checked_mul(*times).is_some_and(|bytes| bytes <= FILLED_MAX_BYTES));
    match times {
        Some(times) => Ok(data.repeat(times)),
        None => Err(invalid(format!(
            "its default would take more than {} MiB; send it, or fewer rows",
            FILLED_MAX_BYTES >> 20
        ))),
    }
}

#[cold]
fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Batching, DataType, Signature};

    fn spec(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: name.into(), datatype, shape: shape.to_vec() }
    }

    fn signature() -> Signature {
        Signature {
            inputs: vec![spec("x", DataType::Fp32, &[-1, 4]), spec("top", DataType::Int16, &[-1, 2])],
            outputs: Vec::new(),
            batching: Batching::On,
            decoupled: false,
            extras: Extras::default(),
        }
    }

    #[test]
    fn one_value_stands_for_every_element_of_a_row_and_a_list_for_itself() {
        let of = |shape: &[i64], value| {
            let spec = spec("x", DataType::Int8, shape);
            InputDefault::of_value(Input { spec: &spec, schema: None }, &value)
        };
        let seen =
            |shape: &[i64], value| of(shape, value).map(|default| (default.shape, default.data.to_vec()));
        assert_eq!(seen(&[-1, 2], json!(7)).unwrap(), (vec![1, 2], vec![7, 7]));
        assert_eq!(seen(&[-1], json!(7)).unwrap(), (vec![1], vec![7]));
        assert_eq!(seen(&[-1, -1], json!([1, 2, 3])).unwrap(), (vec![1, 3], vec![1, 2, 3]));
        assert_eq!(seen(&[2], json!(7)).unwrap(), (vec![2], vec![7, 7]));
        assert_eq!(seen(&[], json!(7)).unwrap(), (vec![], vec![7]));
        let refusal = |shape: &[i64], value| of(shape, value).unwrap_err().message().to_owned();
        assert!(refusal(&[-1, -1], json!(7)).contains("write it as a list"));
        assert!(refusal(&[-1, 2], json!([1])).contains("[1] but a row of it is [2]"));
        assert!(refusal(&[-1, 2], json!([1, 300])).contains("300 is not a valid INT8"));
    }

    #[test]
    fn a_default_has_the_rows_of_what_was_sent() {
        let mut signature = signature();
        let default = InputDefault::of_value(signature.input(1), &json!([1, 2])).unwrap();
        signature.extras.defaults.push(default);
        assert_eq!(signature.lone_input().map(|spec| &*spec.name), Some("x"));
        let x = Tensor::new(DataType::Fp32, Shape::from_slice(&[2, 4]), vec![0; 32].into()).unwrap();
        let filled = signature.left_out(1, [Some(&x), None]).unwrap().unwrap();
        assert_eq!((&filled.shape[..], &filled.data[..]), (&[2, 2][..], &[1, 0, 2, 0, 1, 0, 2, 0][..]));
        let alone = signature.left_out(1, [None, None]).unwrap().unwrap();
        assert_eq!(alone.shape[..], [1, 2]);
        assert_eq!(signature.left_out(0, [None, None]).unwrap(), None);
        let many = Tensor { shape: Shape::from_slice(&[1 << 40, 4]), ..x };
        assert!(signature.left_out(1, [Some(&many), None]).unwrap_err().message().contains("fewer rows"));
    }

    #[test]
    fn schemas_are_of_inputs_that_there_are_and_of_each_at_most_one() {
        let schema = |input: &str, columns: &[&str]| InputSchema {
            input: input.into(),
            columns: columns.iter().map(|name| (*name).into()).collect(),
            missing: true,
            largest: None,
        };
        let checked = |schemas: Vec<InputSchema>| {
            let mut signature = signature();
            signature.extras.schemas = schemas;
            signature.check_schemas()
        };
        let names = ["a", "b", "c", "d"];
        assert_eq!(checked(vec![schema("top", &[]), schema("x", &names)]), Ok(()));
        assert!(checked(vec![schema("y", &[])]).unwrap_err().contains("input 'y', which it does not have"));
        assert!(checked(vec![schema("x", &[]), schema("x", &[])]).unwrap_err().contains("two schemas"));
        let said = checked(vec![schema("x", &names[..3])]).unwrap_err();
        assert!(said.starts_with("the schema of input 'x': it names 3 columns"), "{said}");
    }

    #[test]
    fn a_default_keeps_to_the_schema() {
        let mut signature = signature();
        let strict = InputSchema { input: "x".into(), columns: Vec::new(), missing: false, largest: None };
        signature.extras.schemas.push(strict);
        let refused = InputDefault::of_value(signature.input(0), &json!([1, 2, null, 4])).unwrap_err();
        assert!(refused.message().starts_with("row 0, column 2 of input 'x' is missing (NaN)"), "{refused}");
    }

    #[test]
    fn extras_cross_as_json() {
        let mut signature = signature();
        signature.extras.defaults.push(InputDefault {
            input: "top".into(),
            shape: vec![1, 2],
            data: vec![1; 4].into(),
        });
        let text = serde_json::to_string(&signature).unwrap();
        assert!(text.contains("\"data\":[1,1,1,1]"), "{text}");
        assert_eq!(serde_json::from_str::<Signature>(&text).unwrap(), signature);
    }
}

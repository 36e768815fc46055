//! What an input takes beside its type: the names of its columns, missing values, a greatest magnitude.
//!
//! Reads a signature's schemas and the elements of tensors, hands on refusals that name row and column. Rows and columns
//! count from 0.
//! Does not know how the elements were written.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use crate::values::shown;
use crate::{
    DataType, Error, ErrorKind, MISSING, Result, Shape, Signature, Tensor, TensorSpec, element_count, texts,
};

/// Most names that a message lists.
const LISTED_MAX: usize = 20;

/// What messages about missing values end with.
const NO_MISSING: &str = "the model takes no missing values: fill it in, or leave the row out";

/// What an input of a model of tables takes, beside its type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSchema {
    /// The input's name.
    pub input: Arc<str>,
    /// The names of the columns of dimension 1, in their order; empty where they have none.
    #[serde(default)]
    pub columns: Vec<Arc<str>>,
    /// Whether a missing value (NaN of numbers, null of text) is a value to the model. Without a schema NaN reaches
    /// the model as it is, and text can't be missing.
    pub missing: bool,
    /// The greatest magnitude that the model takes; what is greater, infinity too, is refused. `None`: anything.
    #[serde(default)]
    pub largest: Option<f64>,
}

impl InputSchema {
    /// # Errors
    /// `InvalidInput` where it can't be a schema of `spec`.
    pub(crate) fn fit(&self, spec: &TensorSpec) -> Result<()> {
        let (columns, shape) = (self.columns.len(), &spec.shape);
        let matrix = shape.len() == 2 && u64::try_from(shape[1]) == Ok(columns as u64);
        if columns > 0 && !matrix {
            return Err(invalid(format!(
                "it names {columns} columns but its shape is {shape:?}; as many names as dimension 1 has are expected"
            )));
        }
        let Some(largest) = self.largest else { return Ok(()) };
        if !is_float(spec.datatype) || !largest.is_finite() || largest < 0.0 {
            return Err(invalid(format!(
                "its greatest magnitude is {largest}; a number of 0 or more is expected, of an input of floats"
            )));
        }
        Ok(())
    }
}

/// One input of a signature, as what is said and checked of its elements needs it.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Its name, type and shape.
    pub spec: &'a TensorSpec,
    /// What else is known of it.
    pub schema: Option<&'a InputSchema>,
}

impl Signature {
    /// What is known of the input at `index` beside its type.
    pub fn schema_of(&self, index: usize) -> Option<&InputSchema> {
        let name = &self.inputs.get(index)?.name;
        let schemas = &self.extras.schemas;
        // Most models have one for each input, in the same order.
        let here = schemas.get(index).filter(|schema| schema.input == *name);
        here.or_else(|| schemas.iter().find(|schema| schema.input == *name))
    }

    /// The input at `index`, which is one of the signature's.
    pub fn input(&self, index: usize) -> Input<'_> {
        Input { spec: &self.inputs[index], schema: self.schema_of(index) }
    }
}

impl<'a> Input<'a> {
    /// Whether its text may be missing.
    pub fn takes_missing_text(self) -> bool {
        self.spec.datatype == DataType::Bytes && self.schema.is_some_and(|schema| schema.missing)
    }

    /// The names of its columns; empty where they have none.
    pub fn columns(self) -> &'a [Arc<str>] {
        self.schema.map_or(&[], |schema| &schema.columns)
    }

    /// The place of an element of a tensor of `shape`: `row 3, column 1 ('age') of input 'x'`.
    pub fn place(self, shape: &[u64], element: u64) -> String {
        let name = &self.spec.name;
        let inner = element_count(shape.get(1..).unwrap_or_default()).unwrap_or(0).max(1);
        let (row, within) = (element / inner, element % inner);
        match shape.len() {
            0 => format!("input '{name}'"),
            1 => format!("row {row} of input '{name}'"),
            2 => match usize::try_from(within).ok().and_then(|column| self.columns().get(column)) {
                Some(column) => format!("row {row}, column {within} ('{column}') of input '{name}'"),
                None => format!("row {row}, column {within} of input '{name}'"),
            },
            _ => format!("row {row}, element {within} of input '{name}'"),
        }
    }

    /// The error for an element that is null in JSON, where `sent` is the type that it was sent as.
    #[cold]
    pub fn null(self, sent: DataType, shape: &[u64], element: u64) -> Error {
        let place = self.place(shape, element);
        let wanted = self.spec.datatype;
        invalid(match sent {
            DataType::Bytes if self.schema.is_some() => format!("{place} is null; {NO_MISSING}"),
            DataType::Bytes => format!(
                "{place} is null; the model takes no missing text: fill it in, or write \"null\" in quotes if that text \
                 is meant"
            ),
            sent if sent != wanted && is_float(wanted) => {
                format!(
                    "{place} is null, which is no {sent}; send the input as {wanted}, whose null is NaN, or fill it in"
                )
            }
            sent => format!("{place} is null, which is no {sent}; fill it in, or leave the row out"),
        })
    }

    /// The tensor of this input that `data` is, held to the schema.
    ///
    /// # Errors
    /// `InvalidInput` where the number of bytes or elements does not fit the shape, an element is missing that must not
    /// be, or one is too large.
    pub fn tensor(self, shape: Shape, data: Bytes) -> Result<Tensor> {
        let datatype = self.spec.datatype;
        if let Err(error) = Tensor::check(datatype, &shape, &data, self.takes_missing_text()) {
            return Err(self.missing_text(&shape, &data).unwrap_or_else(|| error.within(self)));
        }
        let tensor = Tensor { datatype, shape, data };
        self.check(&tensor)?;
        Ok(tensor)
    }

    /// Holds the elements of `tensor`, which is one of this input, to the schema.
    ///
    /// # Errors
    /// `InvalidInput` with the first element that is missing and must not be, or is too large.
    #[inline]
    pub fn check(self, tensor: &Tensor) -> Result<()> {
        let Some(schema) = self.schema else { return Ok(()) };
        match self.refused(schema, tensor) {
            None => Ok(()),
            Some((element, value)) => Err(self.refusal(schema, tensor, element as u64, value)),
        }
    }

    /// The first element of `tensor` that `schema` does not take.
    fn refused(self, schema: &InputSchema, tensor: &Tensor) -> Option<(usize, f64)> {
        let data = &tensor.data[..];
        match tensor.datatype {
            DataType::Fp16 => first(schema, data, |bytes| f16::from_le_bytes(bytes).to_f64()),
            DataType::Bf16 => first(schema, data, |bytes| bf16::from_le_bytes(bytes).to_f64()),
            DataType::Fp32 => first(schema, data, |bytes| f32::from_le_bytes(bytes).into()),
            DataType::Fp64 => first(schema, data, f64::from_le_bytes),
            DataType::Bytes if !schema.missing => {
                texts(data).position(|text| text.is_none()).map(|element| (element, f64::NAN))
            }
            _ => None,
        }
    }

    #[cold]
    fn refusal(self, schema: &InputSchema, tensor: &Tensor, element: u64, value: f64) -> Error {
        let place = self.place(&tensor.shape, element);
        invalid(match (tensor.datatype, schema.largest) {
            (DataType::Bytes, _) => format!("{place} is missing; {NO_MISSING}"),
            (_, Some(largest)) if !value.is_nan() => {
                // The shortest digits that give the number back in its own type.
                let (value, largest) = match tensor.datatype {
                    DataType::Fp64 => (format!("{value:?}"), format!("{largest:?}")),
                    _ => (format!("{:?}", value as f32), format!("{:?}", largest as f32)),
                };
                format!(
                    "{place} is {value}, and the model takes no magnitude above {largest}; scale it, or leave the row out"
                )
            }
            _ => format!("{place} is missing (NaN); {NO_MISSING}"),
        })
    }

    /// The error for the first missing element of `data`, where this input takes none.
    #[cold]
    fn missing_text(self, shape: &[u64], data: &[u8]) -> Option<Error> {
        if self.spec.datatype != DataType::Bytes || self.takes_missing_text() {
            return None;
        }
        let element = texts(data).position(|text| text.is_none())?;
        let place = self.place(shape, element as u64);
        Some(invalid(format!("{place} is missing (its length is {MISSING:#x}); {NO_MISSING}")))
    }
}

impl fmt::Display for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "input '{}'", self.spec.name)
    }
}

/// The first element that `schema` does not take, with its value.
#[inline]
fn first<const N: usize>(
    schema: &InputSchema,
    data: &[u8],
    value: impl Fn([u8; N]) -> f64 + Copy,
) -> Option<(usize, f64)> {
    let largest = schema.largest.unwrap_or(f64::INFINITY);
    match (schema.missing, schema.largest) {
        (true, None) => None,
        // NaN is above nothing, and nothing is at least NaN.
        (true, Some(_)) => find(data, value, |value| value.abs() > largest),
        (false, _) => find(data, value, |value| !(value.abs() <= largest)),
    }
}

#[inline]
fn find<const N: usize>(
    data: &[u8],
    value: impl Fn([u8; N]) -> f64,
    refused: impl Fn(f64) -> bool,
) -> Option<(usize, f64)> {
    let elements = data.as_chunks::<N>().0;
    // `fold` and not `any`: without an early exit the loop becomes a handful of vector instructions.
    if !elements.iter().fold(false, |any, element| any | refused(value(*element))) {
        return None;
    }
    let values = elements.iter().map(|element| value(*element));
    values.enumerate().find(|(_, value)| refused(*value))
}

/// Whether elements of `datatype` may be NaN.
pub fn is_float(datatype: DataType) -> bool {
    matches!(datatype, DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64)
}

/// `'a', 'b'`, as messages list names; of many the first few.
pub fn listed<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> String {
    let more = names.len().saturating_sub(LISTED_MAX);
    let mut list: Vec<String> = names.take(LISTED_MAX).map(|name| format!("'{}'", shown(name))).collect();
    if more > 0 {
        list.push(format!("{more} more"));
    }
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

#[cold]
fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Batching, Extras};

    fn signature(datatype: DataType, shape: &[i64], schema: Option<InputSchema>) -> Signature {
        Signature {
            inputs: vec![TensorSpec { name: "x".into(), datatype, shape: shape.to_vec() }],
            outputs: Vec::new(),
            batching: Batching::On,
            decoupled: false,
            extras: Extras { schemas: schema.into_iter().collect(), ..Extras::default() },
        }
    }

    fn schema(columns: &[&str], missing: bool, largest: Option<f64>) -> InputSchema {
        let columns = columns.iter().map(|name| (*name).into()).collect();
        InputSchema { input: "x".into(), columns, missing, largest }
    }

    fn fp64(values: &[f64]) -> Bytes {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// What a matrix of two columns is refused with.
    fn refusal(schema: InputSchema, values: &[f64]) -> Option<String> {
        let signature = signature(DataType::Fp64, &[-1, 2], Some(schema));
        let shape = Shape::from_slice(&[values.len() as u64 / 2, 2]);
        signature.input(0).tensor(shape, fp64(values)).err().map(|error| error.message().to_owned())
    }

    #[test]
    fn what_is_missing_or_too_large_is_named_by_row_and_column() {
        let named = |missing, largest| schema(&["age", "income"], missing, largest);
        let (nan, infinity) = (f64::NAN, f64::INFINITY);
        let said = refusal(named(false, None), &[0.0, 1.0, 2.0, nan]).unwrap();
        assert!(said.starts_with(
            "row 1, column 1 ('income') of input 'x' is missing (NaN); the model takes no missing"
        ));
        assert!(said.ends_with("fill it in, or leave the row out"), "{said}");
        let said = refusal(schema(&[], true, Some(10.0)), &[nan, 11.5]).unwrap();
        assert!(said.starts_with(
            "row 0, column 1 of input 'x' is 11.5, and the model takes no magnitude above 10.0"
        ));
        assert!(refusal(named(true, Some(10.0)), &[-infinity, 0.0]).unwrap().contains("is -inf, and"));
        assert!(refusal(named(false, Some(10.0)), &[0.0, nan]).unwrap().contains("missing (NaN)"));
        assert_eq!(refusal(named(true, Some(10.0)), &[nan, -10.0]), None);
        assert_eq!(refusal(named(false, None), &[infinity, -infinity]), None);
        assert_eq!(refusal(named(true, None), &[nan, infinity]), None);
    }

    #[test]
    fn floats_of_every_size_are_held_to_the_schema() {
        let limited = |missing| Some(schema(&[], missing, Some(100.0)));
        for (datatype, good, nan, large) in [
            (
                DataType::Fp16,
                f16::ONE.to_le_bytes().to_vec(),
                f16::NAN.to_le_bytes().to_vec(),
                f16::from_f32(101.0).to_le_bytes().to_vec(),
            ),
            (
                DataType::Bf16,
                bf16::ONE.to_le_bytes().to_vec(),
                bf16::NAN.to_le_bytes().to_vec(),
                bf16::INFINITY.to_le_bytes().to_vec(),
            ),
            (
                DataType::Fp32,
                1f32.to_le_bytes().to_vec(),
                f32::NAN.to_le_bytes().to_vec(),
                101f32.to_le_bytes().to_vec(),
            ),
        ] {
            let taken = |missing, elements: [&Vec<u8>; 2]| {
                let signature = signature(datatype, &[-1], limited(missing));
                let data = elements.into_iter().flatten().copied().collect();
                signature.input(0).tensor(Shape::from_slice(&[2]), data).is_ok()
            };
            assert!(taken(false, [&good, &good]) && taken(true, [&good, &nan]), "{datatype}");
            assert!(!taken(false, [&good, &nan]) && !taken(true, [&good, &large]), "{datatype}");
        }
    }

    #[test]
    fn text_is_missing_only_where_the_schema_takes_that() {
        let data = Bytes::from_static(b"\x01\0\0\0a\xff\xff\xff\xff");
        let tensor = |schema| {
            let signature = signature(DataType::Bytes, &[-1], schema);
            signature.input(0).tensor(Shape::from_slice(&[2]), data.clone())
        };
        assert!(tensor(Some(schema(&[], true, None))).is_ok());
        for none in [None, Some(schema(&[], false, None))] {
            let said = tensor(none).unwrap_err().message().to_owned();
            assert!(said.starts_with("row 1 of input 'x' is missing (its length is 0xffffffff)"), "{said}");
        }
        let wide = signature(DataType::Bytes, &[-1, 2], None);
        let cut = wide.input(0).tensor(Shape::from_slice(&[1, 2]), Bytes::from_static(b"\x02\0\0\0a"));
        assert!(cut.unwrap_err().message().starts_with("input 'x': BYTES element 0 runs past the end"));
    }

    #[test]
    fn null_says_what_may_be_sent_instead() {
        let null = |datatype, sent, schema| {
            let signature = signature(datatype, &[-1, 2], schema);
            signature.input(0).null(sent, &[2, 2], 2).message().to_owned()
        };
        let (whole, float, text) = (DataType::Int64, DataType::Fp64, DataType::Bytes);
        assert!(
            null(whole, whole, Some(schema(&["a", "b"], true, None)))
                .starts_with("row 1, column 0 ('a') of input 'x' is null, which is no INT64; fill")
        );
        assert!(null(float, whole, None).contains("send the input as FP64, whose null is NaN"));
        assert!(null(text, text, None).contains("write \"null\" in quotes"));
        assert!(null(text, text, Some(schema(&[], false, None))).contains("takes no missing values"));
    }

    #[test]
    fn a_place_is_said_as_far_as_the_shape_goes() {
        let signature = signature(DataType::Fp32, &[], None);
        let place = |shape: &[u64], element| signature.input(0).place(shape, element);
        assert_eq!(place(&[], 0), "input 'x'");
        assert_eq!(place(&[4], 3), "row 3 of input 'x'");
        assert_eq!(place(&[4, 3], 7), "row 2, column 1 of input 'x'");
        assert_eq!(place(&[2, 2, 2], 5), "row 1, element 1 of input 'x'");
        assert_eq!(place(&[0, 0], 0), "row 0, column 0 of input 'x'");
    }

    #[test]
    fn a_schema_fits_its_input() {
        let fit = |datatype, shape: &[i64], schema: InputSchema| {
            schema
                .fit(&signature(datatype, shape, None).inputs[0])
                .map_err(|error| error.message().to_owned())
        };
        assert!(fit(DataType::Bytes, &[-1, 2], schema(&["a", "b"], true, None)).is_ok());
        assert!(fit(DataType::Fp16, &[-1], schema(&[], false, Some(0.0))).is_ok());
        for shape in [&[-1][..], &[-1, 3], &[-1, -1], &[-1, 2, 1]] {
            let said = fit(DataType::Fp32, shape, schema(&["a", "b"], true, None)).unwrap_err();
            assert!(said.contains("names 2 columns"), "{said}");
        }
        for (datatype, largest) in
            [(DataType::Int64, 1.0), (DataType::Fp32, -1.0), (DataType::Fp32, f64::INFINITY)]
        {
            assert!(fit(datatype, &[-1], schema(&[], true, Some(largest))).is_err(), "{datatype} {largest}");
        }
    }

    #[test]
    fn of_many_names_a_few_are_listed() {
        assert_eq!(listed([].into_iter()), "none");
        assert_eq!(listed(["a", "b"].into_iter()), "'a', 'b'");
        let many = vec!["name"; 1000];
        assert!(listed(many.iter().copied()).ends_with("'name', 980 more"));
    }

    proptest! {
        #[test]
        fn the_first_element_that_is_refused_is_found(values in prop::collection::vec(any::<f64>(), 0..70), limit in any::<f64>()) {
            let largest = limit.is_finite().then(|| limit.abs());
            for missing in [false, true] {
                let takes = |value: &f64| match value.is_nan() {
                    true => missing,
                    false => largest.is_none_or(|largest| value.abs() <= largest),
                };
                let expected = values.iter().position(|value| !takes(value));
                let signature = signature(DataType::Fp64, &[-1], Some(schema(&[], missing, largest)));
                let tensor = signature.input(0).tensor(Shape::from_slice(&[values.len() as u64]), fp64(&values));
                let found = tensor.err().map(|error| error.message().to_owned());
                prop_assert_eq!(found.is_some(), expected.is_some());
                if let (Some(found), Some(expected)) = (found, expected) {
                    let begin = format!("row {expected} of input");
                    prop_assert!(found.starts_with(&begin), "{}", found);
                }
            }
        }
    }
}

//! What an input accepts besides its type: column names, missing values, a largest magnitude.
//!
//! Reads a signature's schemas and the elements of tensors, hands on refusals that name row and column, both
//! counted from 0. Does not know how the elements were encoded.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use crate::widening::{Inexact, widen};
use crate::{
    DataType, Error, ErrorKind, MISSING, Result, Shape, Tensor, TensorSpec, element_count, shown, texts,
};

/// Most names that a message lists.
const LISTED_MAX: usize = 20;

/// The end of messages about missing values.
const NO_MISSING: &str = "the model takes no missing values: fill it in, or leave the row out";

/// What an input of a tabular model accepts besides its type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSchema {
    /// The input's name.
    pub input: Arc<str>,
    /// The names of the columns along dimension 1, in order; empty if they have none.
    #[serde(default)]
    pub columns: Vec<Arc<str>>,
    /// Whether the model accepts missing values (NaN in floats, null in text). Without a schema, NaN reaches the
    /// model unchanged, and text can't be missing.
    pub missing: bool,
    /// The largest magnitude that the model accepts; larger values, infinity too, are refused. `None`: any.
    #[serde(default)]
    pub largest: Option<f64>,
}

impl InputSchema {
    /// # Errors
    /// `InvalidInput` if it does not match `spec`.
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

/// One input of a signature with its schema, for checks and messages.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Its name, type and shape.
    pub spec: &'a TensorSpec,
    /// Its schema.
    pub schema: Option<&'a InputSchema>,
}

impl<'a> Input<'a> {
    /// Whether its text may be missing.
    pub fn takes_missing_text(self) -> bool {
        self.spec.datatype == DataType::Bytes && self.schema.is_some_and(|schema| schema.missing)
    }

    /// The names of its columns; empty if they have none.
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
                    "{place} is null, which is not a valid {sent}; send the input as {wanted}, whose null is NaN, or fill it in"
                )
            }
            sent => format!("{place} is null, which is not a valid {sent}; fill it in, or leave the row out"),
        })
    }

    /// The tensor of this input whose elements were sent as `sent`: the same type, or one that is widened to it. It
    /// takes at most eight times the bytes of `data`.
    ///
    /// # Errors
    /// As for [`Input::tensor`]; `InvalidInput` if a BOOL is neither 0 nor 1, or an element would be rounded.
    pub fn receive(self, sent: DataType, shape: Shape, data: Bytes) -> Result<Tensor> {
        let datatype = self.spec.datatype;
        if sent == datatype {
            let tensor = self.tensor(shape, data)?;
            if datatype == DataType::Bool {
                self.check_bools(&tensor.data)?;
            }
            return Ok(tensor);
        }
        Tensor::check(sent, &shape, &data, false).map_err(|error| error.within(self))?;
        if sent == DataType::Bool {
            self.check_bools(&data)?;
        }
        match widen(sent, datatype, &data) {
            Ok(wide) => self.tensor(shape, wide.into()),
            Err(inexact) => Err(self.inexact(sent, &shape, inexact)),
        }
    }

    fn check_bools(self, data: &[u8]) -> Result<()> {
        // `fold` and not `any`: without an early exit the loop becomes a handful of vector instructions.
        if data.iter().fold(0, |all, byte| all | byte) > 1 {
            return Err(invalid(format!("{self} has a BOOL that is neither 0 nor 1")));
        }
        Ok(())
    }

    #[cold]
    fn inexact(self, sent: DataType, shape: &[u64], inexact: Inexact) -> Error {
        let Inexact { index, value, nearest } = inexact;
        let (place, datatype) = (self.place(shape, index as u64), self.spec.datatype);
        let digits = if datatype == DataType::Fp32 { f32::MANTISSA_DIGITS } else { f64::MANTISSA_DIGITS };
        invalid(format!(
            "{place} is {value} of {sent}, which {datatype} would round to {nearest}; send whole numbers up to 2**{digits}, \
             or round it yourself and send {datatype}"
        ))
    }

    /// The tensor of this input with `data`, checked against the schema.
    ///
    /// # Errors
    /// `InvalidInput` if the number of bytes or elements does not match the shape, an element is missing that must
    /// not be, or one is too large.
    pub fn tensor(self, shape: Shape, data: Bytes) -> Result<Tensor> {
        let datatype = self.spec.datatype;
        if let Err(error) = Tensor::check(datatype, &shape, &data, self.takes_missing_text()) {
            return Err(self.missing_text(&shape, &data).unwrap_or_else(|| error.within(self)));
        }
        let tensor = Tensor { datatype, shape, data };
        self.check(&tensor)?;
        Ok(tensor)
    }

    /// Checks the elements of `tensor`, one of this input, against the schema.
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

    /// The first element of `tensor` that `schema` refuses.
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
                // The shortest digits that parse to the same number in its own type.
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

/// The first element that `schema` refuses, with its value.
#[inline]
fn first<const N: usize>(
    schema: &InputSchema,
    data: &[u8],
    value: impl Fn([u8; N]) -> f64 + Copy,
) -> Option<(usize, f64)> {
    let largest = schema.largest.unwrap_or(f64::INFINITY);
    match (schema.missing, schema.largest) {
        (true, None) => None,
        // NaN is greater than nothing.
        (true, Some(_)) => find(data, value, |value| value.abs() > largest),
        (false, _) => find(data, value, |value| value.is_nan() | (value.abs() > largest)),
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

/// `'a', 'b'`, as messages list names; the first few of many.
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
mod tests;

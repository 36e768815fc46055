//! Typed contents of a gRPC input to the bytes of a tensor.
//!
//! Reads `InferTensorContents`, hands on little-endian bytes. Does not check their number: the check of the shape
//! does.

use bytes::Bytes;
use inferd_types::values::push_bytes;
use inferd_types::{DataType, Result};

use crate::invalid::invalid;
use crate::pb::inference::InferTensorContents;

/// The elements of `contents` as the raw form of `datatype`.
///
/// # Errors
/// `InvalidInput` if another list than the datatype's is filled, an element is out of range, or the datatype has no
/// typed form.
pub(super) fn encode(datatype: DataType, contents: InferTensorContents) -> Result<Bytes> {
    let expected = field(datatype)?;
    if let Some(filled) = filled(&contents).into_iter().find(|name| *name != expected) {
        return Err(invalid(format!(
            "{datatype} contents are expected in {expected} but {filled} is filled"
        )));
    }
    match datatype {
        DataType::Bool => Ok(contents.bool_contents.into_iter().map(u8::from).collect()),
        DataType::Int8 => {
            narrow(datatype, &contents.int_contents, |value| i8::try_from(value).map(i8::to_le_bytes))
        }
        DataType::Int16 => {
            narrow(datatype, &contents.int_contents, |value| i16::try_from(value).map(i16::to_le_bytes))
        }
        DataType::Int32 => Ok(wide(&contents.int_contents, |value| value.to_le_bytes())),
        DataType::Int64 => Ok(wide(&contents.int64_contents, |value| value.to_le_bytes())),
        DataType::Uint8 => {
            narrow(datatype, &contents.uint_contents, |value| u8::try_from(value).map(u8::to_le_bytes))
        }
        DataType::Uint16 => {
            narrow(datatype, &contents.uint_contents, |value| u16::try_from(value).map(u16::to_le_bytes))
        }
        DataType::Uint32 => Ok(wide(&contents.uint_contents, |value| value.to_le_bytes())),
        DataType::Uint64 => Ok(wide(&contents.uint64_contents, |value| value.to_le_bytes())),
        DataType::Fp32 => Ok(wide(&contents.fp32_contents, |value| value.to_le_bytes())),
        DataType::Fp64 => Ok(wide(&contents.fp64_contents, |value| value.to_le_bytes())),
        DataType::Bytes => texts(&contents.bytes_contents),
        DataType::Fp16 | DataType::Bf16 => Err(no_typed_form(datatype)),
    }
}

/// The list for elements of `datatype`.
fn field(datatype: DataType) -> Result<&'static str> {
    Ok(match datatype {
        DataType::Bool => "bool_contents",
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "int_contents",
        DataType::Int64 => "int64_contents",
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => "uint_contents",
        DataType::Uint64 => "uint64_contents",
        DataType::Fp32 => "fp32_contents",
        DataType::Fp64 => "fp64_contents",
        DataType::Bytes => "bytes_contents",
        DataType::Fp16 | DataType::Bf16 => return Err(no_typed_form(datatype)),
    })
}

fn no_typed_form(datatype: DataType) -> inferd_types::Error {
    invalid(format!("{datatype} has no typed contents; send it in raw_input_contents"))
}

/// The names of the lists that are not empty.
fn filled(contents: &InferTensorContents) -> impl IntoIterator<Item = &'static str> + use<> {
    [
        ("bool_contents", contents.bool_contents.is_empty()),
        ("int_contents", contents.int_contents.is_empty()),
        ("int64_contents", contents.int64_contents.is_empty()),
        ("uint_contents", contents.uint_contents.is_empty()),
        ("uint64_contents", contents.uint64_contents.is_empty()),
        ("fp32_contents", contents.fp32_contents.is_empty()),
        ("fp64_contents", contents.fp64_contents.is_empty()),
        ("bytes_contents", contents.bytes_contents.is_empty()),
    ]
    .into_iter()
    .filter(|(_, empty)| !empty)
    .map(|(name, _)| name)
}

fn wide<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Bytes {
    let mut out = Vec::with_capacity(values.len() * N);
    values.iter().for_each(|value| out.extend_from_slice(&bytes(*value)));
    out.into()
}

fn narrow<T: Copy + std::fmt::Display, E, const N: usize>(
    datatype: DataType,
    values: &[T],
    bytes: impl Fn(T) -> Result<[u8; N], E>,
) -> Result<Bytes> {
    let mut out = Vec::with_capacity(values.len() * N);
    for (index, value) in values.iter().enumerate() {
        let element = bytes(*value)
            .map_err(|_| invalid(format!("contents[{index}]: {value} is out of range for {datatype}")))?;
        out.extend_from_slice(&element);
    }
    Ok(out.into())
}

fn texts(elements: &[Bytes]) -> Result<Bytes> {
    let mut out = Vec::with_capacity(elements.iter().map(|element| element.len() + 4).sum());
    for element in elements {
        push_bytes(element, &mut out)?;
    }
    Ok(out.into())
}

//! Tensors between the wire and the arena, in the protocol's raw form.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{DataType, Error, ErrorKind, Result};

/// The length prefix of a missing BYTES element; no bytes follow it.
pub const MISSING: u32 = u32::MAX;

/// The dimensions of a concrete tensor, outermost first. Never negative.
pub type Shape = SmallVec<[u64; 4]>;

/// One tensor. Its index in the [`crate::Signature`] identifies it.
///
/// `data` is row-major and little-endian, exactly the protocol's raw form: `element_count · size` bytes, or for
/// BYTES each element prefixed with its length in four bytes, which is [`MISSING`] for a missing one. Clones share
/// the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The element type.
    pub datatype: DataType,
    /// The dimensions.
    pub shape: Shape,
    /// The elements.
    pub data: Bytes,
}

impl Tensor {
    /// A tensor whose data was checked against its shape. No element is missing.
    ///
    /// # Errors
    /// `InvalidInput` if the shape overflows or does not match the number of bytes or elements.
    pub fn new(datatype: DataType, shape: Shape, data: Bytes) -> Result<Tensor> {
        Tensor::checked(datatype, shape, data, false)
    }

    /// The same, but BYTES elements may be missing.
    ///
    /// # Errors
    /// As for [`Tensor::new`].
    pub fn with_missing(datatype: DataType, shape: Shape, data: Bytes) -> Result<Tensor> {
        Tensor::checked(datatype, shape, data, true)
    }

    fn checked(datatype: DataType, shape: Shape, data: Bytes, missing: bool) -> Result<Tensor> {
        Tensor::check(datatype, &shape, &data, missing)?;
        Ok(Tensor { datatype, shape, data })
    }

    /// Checks `data` against `shape`; `missing` says whether BYTES elements may be missing.
    ///
    /// # Errors
    /// As for [`Tensor::new`].
    pub fn check(datatype: DataType, shape: &[u64], data: &[u8], missing: bool) -> Result<()> {
        let count = element_count(shape)?;
        let wrong = |message: String| Err(Error::new(ErrorKind::InvalidInput, message));
        match datatype.size() {
            Some(size) => {
                let expected = count.checked_mul(size as u64).ok_or_else(|| overflow(shape))?;
                if data.len() as u64 != expected {
                    return wrong(format!(
                        "shape {shape:?} of {datatype} takes {expected} bytes but {} were given",
                        data.len()
                    ));
                }
            }
            None => {
                let found = bytes_elements(data, missing)?;
                if found != count {
                    return wrong(format!(
                        "shape {shape:?} takes {count} BYTES elements but {found} were given"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The number of elements of `shape`; 1 for a scalar, 0 if a dimension is 0.
///
/// # Errors
/// `InvalidInput` if the product does not fit a signed 64-bit integer.
pub fn element_count(shape: &[u64]) -> Result<u64> {
    // The product of the non-zero dimensions must fit too: `[2^40, 2^40, 0]` would overflow in any other order of
    // multiplication.
    let product = shape
        .iter()
        .filter(|dim| **dim != 0)
        .try_fold(1u64, |product, dim| product.checked_mul(*dim))
        .filter(|product| *product <= i64::MAX as u64)
        .ok_or_else(|| overflow(shape))?;
    Ok(if shape.contains(&0) { 0 } else { product })
}

/// The number of length-prefixed elements in `data`; `missing` says whether any may be missing.
///
/// # Errors
/// `InvalidInput` if a length runs past the end, or an element is missing that must not be.
pub fn bytes_elements(mut data: &[u8], missing: bool) -> Result<u64> {
    let mut count = 0;
    while !data.is_empty() {
        let rest =
            data.split_first_chunk::<4>().and_then(|(length, rest)| match u32::from_le_bytes(*length) {
                MISSING => missing.then_some(rest),
                length => rest.get(usize::try_from(length).ok()?..),
            });
        data = rest.ok_or_else(|| unfit_element(count, data))?;
        count += 1;
    }
    Ok(count)
}

#[cold]
fn unfit_element(place: u64, data: &[u8]) -> Error {
    let what = if data.starts_with(&MISSING.to_le_bytes()) {
        "is missing (its length is 0xffffffff), and no element may be"
    } else {
        "runs past the end of the data; each needs a 4-byte length before it"
    };
    Error::new(ErrorKind::InvalidInput, format!("BYTES element {place} {what}"))
}

/// The length-prefixed elements of `data`, up to the first incomplete one; `None` is a missing element.
pub fn texts(mut data: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length);
        if length == MISSING {
            data = rest;
            return Some(None);
        }
        let (text, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        data = rest;
        Some(Some(text))
    })
}

/// The size of the first `count` length-prefixed elements of `data`, which are known to be complete.
pub fn bytes_prefix(data: &[u8], count: u64) -> usize {
    let mut at = 0;
    for _ in 0..count {
        let Some(length) = data.get(at..).and_then(|rest| rest.first_chunk::<4>()) else { break };
        at += 4;
        match u32::from_le_bytes(*length) {
            MISSING => {}
            length => at += length as usize,
        }
    }
    at
}

fn overflow(shape: &[u64]) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("shape {shape:?} has more elements than can be counted"))
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    #[test]
    fn a_shape_that_overflows_is_refused_even_behind_a_zero() {
        assert!(element_count(&[u64::MAX, 2]).is_err());
        assert!(element_count(&[1 << 40, 1 << 40, 0]).is_err());
        assert_eq!(element_count(&[3, 0, 7]).unwrap(), 0);
        assert_eq!(element_count(&[]).unwrap(), 1);
    }

    #[test]
    fn data_must_be_as_long_as_the_shape_says() {
        let tensor =
            |bytes: &'static [u8]| Tensor::new(DataType::Fp32, smallvec![2], Bytes::from_static(bytes));
        assert!(tensor(&[0; 8]).is_ok());
        assert!(tensor(&[0; 7]).unwrap_err().message().contains("takes 8 bytes but 7"));
    }

    #[test]
    fn bytes_elements_are_counted_and_a_cut_one_is_refused() {
        for missing in [false, true] {
            assert_eq!(bytes_elements(b"\x01\0\0\0a\0\0\0\0", missing).unwrap(), 2);
            assert!(bytes_elements(b"\x02\0\0\0a", missing).is_err());
            assert!(bytes_elements(b"\x02\0", missing).is_err());
            assert!(bytes_elements(b"\xfe\xff\xff\xff", missing).is_err());
        }
    }

    #[test]
    fn an_element_may_be_missing_only_where_that_is_allowed() {
        let data = b"\xff\xff\xff\xff\x01\0\0\0a\xff\xff\xff\xff";
        assert_eq!(bytes_elements(data, true).unwrap(), 3);
        let error = bytes_elements(data, false).unwrap_err();
        assert!(error.message().starts_with("BYTES element 0 is missing"), "{error}");
        assert_eq!(texts(data).collect::<Vec<_>>(), [None, Some(&b"a"[..]), None]);
        assert_eq!([0, 1, 2, 3, 4].map(|count| bytes_prefix(data, count)), [0, 4, 9, 13, 13]);
        let tensor = |data| Tensor::with_missing(DataType::Bytes, smallvec![3], Bytes::from_static(data));
        assert!(tensor(data).is_ok() && tensor(&data[..9]).is_err());
    }
}

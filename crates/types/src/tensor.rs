//! Tensors as they are held between the wire and the arena.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{DataType, Error, ErrorKind, Result};

/// The dimensions of a concrete tensor, outermost first. Never negative.
pub type Shape = SmallVec<[u64; 4]>;

/// One tensor. Its name is its position: inputs and outputs stand in the order of the [`crate::Signature`].
///
/// `data` is row-major and little-endian, exactly as the protocol's raw form: `element_count · size` bytes,
/// or for BYTES each element behind its length as four bytes. Cloning shares the bytes.
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
    /// A tensor whose data has been checked against its shape.
    ///
    /// # Errors
    /// `InvalidInput` where the shape overflows or the number of bytes or elements is not what it says.
    pub fn new(datatype: DataType, shape: Shape, data: Bytes) -> Result<Tensor> {
        let count = element_count(&shape)?;
        match datatype.size() {
            Some(size) => {
                let expected = count.checked_mul(size as u64).ok_or_else(|| overflow(&shape))?;
                if data.len() as u64 != expected {
                    return Err(Error::new(
                        ErrorKind::InvalidInput,
                        format!(
                            "shape {:?} of {datatype} takes {expected} bytes but {} were given",
                            &shape[..],
                            data.len()
                        ),
                    ));
                }
            }
            None => {
                let found = bytes_elements(&data)?;
                if found != count {
                    return Err(Error::new(
                        ErrorKind::InvalidInput,
                        format!("shape {:?} takes {count} BYTES elements but {found} were given", &shape[..]),
                    ));
                }
            }
        }
        Ok(Tensor { datatype, shape, data })
    }
}

/// The number of elements that `shape` has; 1 for a scalar, 0 where a dimension is 0.
///
/// # Errors
/// `InvalidInput` where the product does not fit 64 bits signed.
pub fn element_count(shape: &[u64]) -> Result<u64> {
    // The product of the non-zero dimensions must fit too, else `[2^40, 2^40, 0]` would be accepted and
    // break whoever multiplies in another order.
    let product = shape
        .iter()
        .filter(|dim| **dim != 0)
        .try_fold(1u64, |product, dim| product.checked_mul(*dim))
        .filter(|product| *product <= i64::MAX as u64)
        .ok_or_else(|| overflow(shape))?;
    Ok(if shape.contains(&0) { 0 } else { product })
}

/// How many length-prefixed elements `data` holds.
///
/// # Errors
/// `InvalidInput` where a length runs past the end.
pub fn bytes_elements(mut data: &[u8]) -> Result<u64> {
    let mut count = 0;
    while !data.is_empty() {
        let rest = data.split_first_chunk::<4>().and_then(|(length, rest)| {
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            rest.get(length..)
        });
        data = rest.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("BYTES element {count} runs past the end of the data; each needs a 4-byte length before it"),
            )
        })?;
        count += 1;
    }
    Ok(count)
}

/// The bytes that the first `count` length-prefixed elements of `data` take. The elements are known to be whole.
pub fn bytes_prefix(data: &[u8], count: u64) -> usize {
    let mut at = 0;
    for _ in 0..count {
        let Some(length) = data.get(at..).and_then(|rest| rest.first_chunk::<4>()) else { break };
        at += 4 + u32::from_le_bytes(*length) as usize;
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
        assert_eq!(bytes_elements(b"\x01\0\0\0a\0\0\0\0").unwrap(), 2);
        assert!(bytes_elements(b"\x02\0\0\0a").is_err());
        assert!(bytes_elements(b"\x02\0").is_err());
        assert!(bytes_elements(&[0xff; 4]).is_err());
    }
}

//! A body of nothing but the raw elements of the only input (`Inference-Header-Content-Length: 0`).
//!
//! Reads the body's size, hands on a [`Decoded`] request whose outputs are raw, too, since no JSON says otherwise.
//! Does not know of requests with JSON before their tensors.

use bytes::Bytes;
use inferd_types::values::push_bytes;
use inferd_types::{DataType, Input, Result, Shape, Signature};

use crate::Decoded;
use crate::check::{Inputs, Whole, names};
use crate::invalid::invalid;
use crate::options::{OutputSelection, RequestOptions};

/// Decodes `body` as the only (or only required) input: a BYTES element, else elements whose number determines the
/// shape.
///
/// # Errors
/// `InvalidInput` if the model takes several inputs, or the size does not determine the shape.
pub(super) fn decode(body: Bytes, signature: &Signature) -> Result<Decoded> {
    let mut inputs = Inputs::new(signature);
    let Some(only) = signature.lone_input() else {
        return Err(invalid(format!(
            "a raw binary request (Inference-Header-Content-Length: 0) has one input, but the model takes {}; put JSON \
             before the tensors",
            names(&signature.inputs)
        )));
    };
    let index = inputs.claim(&only.name)?;
    let input = inputs.input(index);
    let (shape, data) = match only.datatype.size() {
        Some(size) => (shape_of(input, signature.batched(), body.len() as u64, size as u64)?, body),
        None => one_element(input, &body)?,
    };
    let claim = inputs.check(index, only.datatype.name(), &shape)?;
    inputs.put(claim, shape, data)?;
    let Whole { tensors: inputs, outside, widened_bytes } = inputs.finish()?;
    let options = RequestOptions { outputs: OutputSelection::All { binary: true }, ..Default::default() };
    Ok(Decoded { id: None, inputs, outside, widened_bytes, options })
}

/// The shape of `bytes` bytes, of which an element takes `size`. The only free dimension takes what there is; if
/// there is another, the batch dimension is 1.
fn shape_of(input: Input<'_>, batched: bool, bytes: u64, size: u64) -> Result<Shape> {
    let dims = &input.spec.shape;
    let mut shape: Shape = dims.iter().map(|dim| u64::try_from(*dim).unwrap_or(1)).collect();
    let mut free: Vec<usize> = (0..dims.len()).filter(|place| dims[*place] < 0).collect();
    if batched && free.len() > 1 && free[0] == 0 {
        free.remove(0);
    }
    match free[..] {
        [] => {}
        [place] => {
            let each = shape.iter().try_fold(size, |product, dim| product.checked_mul(*dim)).unwrap_or(0);
            if each == 0 || !bytes.is_multiple_of(each) {
                return Err(invalid(format!(
                    "{input} has the shape {dims:?} of {}, which {bytes} bytes don't fill; send a multiple of {each} bytes, \
                     or JSON before the tensor",
                    input.spec.datatype
                )));
            }
            shape[place] = bytes / each;
        }
        _ => {
            return Err(invalid(format!(
                "{input} has the shape {dims:?}, of which more than one dimension may have any size, so the size of a raw \
                 binary request does not tell it; put JSON before the tensor"
            )));
        }
    }
    Ok(shape)
}

/// The whole body as one element.
fn one_element(input: Input<'_>, body: &[u8]) -> Result<(Shape, Bytes)> {
    let shape: Shape = input.spec.shape.iter().map(|dim| u64::try_from(*dim).unwrap_or(1)).collect();
    if shape.iter().any(|dim| *dim != 1) {
        return Err(invalid(format!(
            "{input} has the shape {:?}, and a raw binary request of {} is one element; put JSON before the tensor",
            input.spec.shape,
            DataType::Bytes
        )));
    }
    let mut data = Vec::with_capacity(body.len() + 4);
    push_bytes(body, &mut data)?;
    Ok((shape, data.into()))
}

#[cfg(test)]
mod tests {
    use inferd_types::{Batching, TensorSpec};

    use super::*;

    fn decoded(
        datatype: DataType,
        shape: &[i64],
        batched: bool,
        body: &'static [u8],
    ) -> Result<(Vec<u64>, Bytes)> {
        let spec = TensorSpec { name: "x".into(), datatype, shape: shape.to_vec() };
        let signature = Signature {
            inputs: vec![spec.clone()],
            outputs: vec![spec],
            batching: if batched { Batching::On } else { Batching::Off { reason: "a test".into() } },
            decoupled: false,
            extras: Default::default(),
        };
        let decoded = decode(Bytes::from_static(body), &signature)?;
        assert_eq!(decoded.options.outputs, OutputSelection::All { binary: true });
        let input = &decoded.inputs[0];
        Ok((input.shape.to_vec(), input.data.clone()))
    }

    #[test]
    fn the_size_tells_the_shape() {
        let of = |shape: &[i64], batched| {
            decoded(DataType::Int16, shape, batched, &[1; 24]).map(|(shape, _)| shape)
        };
        assert_eq!(of(&[-1, 4], true).unwrap(), [3, 4]);
        assert_eq!(of(&[-1, -1], true).unwrap(), [1, 12]);
        assert_eq!(of(&[-1, -1, 3], true).unwrap(), [1, 4, 3]);
        assert_eq!(of(&[3, -1], false).unwrap(), [3, 4]);
        assert_eq!(of(&[3, 4], false).unwrap(), [3, 4]);
        for (shape, batched) in [(&[-1, -1][..], false), (&[-1, -1, -1], true)] {
            assert!(of(shape, batched).unwrap_err().message().contains("more than one dimension"));
        }
        assert!(
            of(&[-1, 5], true)
                .unwrap_err()
                .message()
                .contains("24 bytes don't fill; send a multiple of 10 bytes")
        );
        assert!(of(&[2, 2], false).unwrap_err().message().contains("takes 8 bytes but 24"));
        assert!(of(&[-1, 0], true).is_err());
        assert_eq!(decoded(DataType::Int16, &[-1, 4], true, b"").unwrap().0, [0, 4]);
    }

    #[test]
    fn a_body_of_bytes_is_one_element() {
        for shape in [&[-1][..], &[-1, 1], &[1]] {
            let (_, data) = decoded(DataType::Bytes, shape, true, b"\xff{").unwrap();
            assert_eq!(data, &b"\x02\0\0\0\xff{"[..], "{shape:?}");
        }
        let several = decoded(DataType::Bytes, &[-1, 2], true, b"ab").unwrap_err();
        assert!(several.message().contains("is one element"), "{several}");
    }
}

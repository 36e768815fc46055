//! Inputs that nobody sent: for the warm-up and for measuring.
//!
//! Reads a signature, hands back a request that fits it. A function of values.
//! Knows nothing of why it is run.

use bytes::Bytes;
use inferd_types::{Error, ErrorKind, Result, Shape, Signature, Tensor, TensorSpec, element_count};
use smallvec::SmallVec;

/// One request of `rows` rows of zeros and empty strings; dimensions that are free are 1. Inputs that may be left out are
/// what they are then.
///
/// # Errors
/// `ModelFailed` where the signature's fixed dimensions are too large to be held.
pub(crate) fn request(signature: &Signature, rows: u32) -> Result<SmallVec<[Tensor; 2]>> {
    let batched = signature.batched();
    let tensor = |(index, spec): (usize, &TensorSpec)| {
        if let Some(default) = signature.default_of(index) {
            return default.tensor(spec, u64::from(rows));
        }
        let mut shape: Shape = spec.shape.iter().map(|dim| u64::try_from(*dim).unwrap_or(1)).collect();
        if let (true, Some(first)) = (batched, shape.first_mut()) {
            *first = u64::from(rows);
        }
        // Four zero bytes are the length of an empty string.
        let size = spec.datatype.size().unwrap_or(4);
        let bytes = element_count(&shape)
            .ok()
            .and_then(|count| usize::try_from(count).ok()?.checked_mul(size))
            .filter(|bytes| *bytes <= isize::MAX as usize / 2)
            .ok_or_else(|| too_large(spec))?;
        let mut data = Vec::new();
        data.try_reserve_exact(bytes).map_err(|_| too_large(spec))?;
        data.resize(bytes, 0);
        Tensor::new(spec.datatype, shape, Bytes::from(data))
    };
    signature.inputs.iter().enumerate().map(tensor).collect()
}

fn too_large(spec: &TensorSpec) -> Error {
    Error::new(
        ErrorKind::ModelFailed,
        format!("input '{}' of shape {:?} is too large for this machine", spec.name, spec.shape),
    )
}

#[cfg(test)]
mod tests {
    use inferd_types::{Batching, DataType};

    use super::*;

    fn signature(batching: Batching, datatype: DataType, shape: &[i64]) -> Signature {
        let input = TensorSpec { name: "x".into(), datatype, shape: shape.to_vec() };
        Signature {
            inputs: vec![input],
            outputs: Vec::new(),
            batching,
            decoupled: false,
            extras: Default::default(),
        }
    }

    #[test]
    fn free_dimensions_are_one_and_rows_are_as_asked_where_the_model_is_batched() {
        let inputs = request(&signature(Batching::On, DataType::Fp32, &[-1, -1, 3]), 4).unwrap();
        assert_eq!(inputs[0].shape[..], [4, 1, 3]);
        assert_eq!(inputs[0].data.len(), 48);
        let off = Batching::Off { reason: "test".into() };
        assert_eq!(request(&signature(off, DataType::Int8, &[-1, 2]), 4).unwrap()[0].shape[..], [1, 2]);
    }

    #[test]
    fn strings_are_empty() {
        let inputs = request(&signature(Batching::On, DataType::Bytes, &[-1, 2]), 3).unwrap();
        assert_eq!(inputs[0].data[..], [0; 24]);
    }

    #[test]
    fn a_shape_that_no_machine_holds_is_an_error() {
        let error =
            request(&signature(Batching::On, DataType::Fp64, &[-1, 1 << 40, 1 << 40]), 1).unwrap_err();
        assert!(error.message().contains("'x'"));
    }
}

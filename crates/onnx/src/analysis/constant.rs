//! The values of tensors in the file.

use std::rc::Rc;

use super::lattice::{Dims, NUMBERS_MAX, Product, Value};
use crate::file::onnx::{Tensor, types};
use crate::file::wire::Malformed;

/// The value of a tensor in the file.
pub(super) fn constant<'a>(tensor: &Tensor<'a>) -> Value<'a> {
    let dims: Dims = tensor.dims.iter().map(|dim| Product::of(*dim)).collect();
    let numbers = numbers(tensor).ok().flatten();
    let numbers =
        numbers.map(|numbers| numbers.into_iter().map(|number| Some(Product::of(number))).collect());
    Value { numbers, constant: Some(Rc::new(tensor.clone())), ..Value::same(Some(dims)) }
}

/// The elements of a small tensor of integers or booleans.
fn numbers(tensor: &Tensor<'_>) -> Result<Option<Vec<i64>>, Malformed> {
    let count = tensor.dims.iter().try_fold(1i64, |count, dim| count.checked_mul(*dim)).unwrap_or(i64::MAX);
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > NUMBERS_MAX {
        return Ok(None);
    }
    let each = |size: usize| -> Result<Option<Vec<i64>>, Malformed> {
        let Some(data) = tensor.numbers()? else { return Ok(None) };
        let whole = |bytes: &[u8]| {
            let negative = size > 1 && bytes.last().is_some_and(|byte| byte & 0x80 != 0);
            let mut wide = if negative { [0xff; 8] } else { [0; 8] };
            wide[..size].copy_from_slice(bytes);
            i64::from_le_bytes(wide)
        };
        let numbers: Vec<i64> = data.chunks_exact(size).map(whole).collect();
        Ok(Some(numbers).filter(|numbers| numbers.len() == count))
    };
    match tensor.data_type {
        types::BOOL => each(1),
        types::INT32 => each(4),
        types::INT64 => each(8),
        // Sums of small integers wrap around.
        _ => Ok(None),
    }
}

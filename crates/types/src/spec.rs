//! One input or output: a name, a type, a shape.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::DataType;

/// One input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// The name clients use.
    pub name: Arc<str>,
    /// The element type.
    pub datatype: DataType,
    /// The dimensions, including the batch dimension if there is one. -1 stands for any size.
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// Bytes of one row (all dimensions but the first), if that is the same for every row.
    pub fn row_bytes(&self) -> Option<usize> {
        let mut bytes = self.datatype.size()?;
        for dim in self.shape.iter().skip(1) {
            bytes = bytes.checked_mul(usize::try_from(*dim).ok()?)?;
        }
        Some(bytes)
    }

    /// Whether a tensor of `shape` matches: the rank is equal and so is every fixed dimension.
    pub fn accepts(&self, shape: &[u64]) -> bool {
        self.shape.len() == shape.len()
            && self.shape.iter().zip(shape).all(|(want, got)| *want < 0 || *want as u64 == *got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(datatype: DataType, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: "x".into(), datatype, shape: shape.to_vec() }
    }

    #[test]
    fn a_row_has_a_size_only_where_every_other_dimension_is_fixed() {
        assert_eq!(spec(DataType::Fp32, &[-1, 3, 4]).row_bytes(), Some(48));
        assert_eq!(spec(DataType::Fp32, &[-1]).row_bytes(), Some(4));
        assert_eq!(spec(DataType::Fp32, &[-1, -1]).row_bytes(), None);
        assert_eq!(spec(DataType::Bytes, &[-1, 1]).row_bytes(), None);
    }

    #[test]
    fn a_free_dimension_takes_any_size_and_a_fixed_one_takes_its_own() {
        let spec = spec(DataType::Fp32, &[-1, 3]);
        assert!(spec.accepts(&[7, 3]) && spec.accepts(&[0, 3]));
        assert!(!spec.accepts(&[7, 4]) && !spec.accepts(&[3]));
    }
}

//! What a model takes and gives.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{DataType, Extras};

/// One input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// The name clients use.
    pub name: Arc<str>,
    /// The element type.
    pub datatype: DataType,
    /// The dimensions, the batch dimension included where there is one. -1 stands for any size.
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// Bytes of one row (all dimensions but the first), where that is the same for every row.
    pub fn row_bytes(&self) -> Option<usize> {
        let mut bytes = self.datatype.size()?;
        for dim in self.shape.iter().skip(1) {
            bytes = bytes.checked_mul(usize::try_from(*dim).ok()?)?;
        }
        Some(bytes)
    }

    /// Whether a tensor of `shape` fits: the rank is the same and every dimension that is fixed agrees.
    pub fn accepts(&self, shape: &[u64]) -> bool {
        self.shape.len() == shape.len()
            && self.shape.iter().zip(shape).all(|(want, got)| *want < 0 || *want as u64 == *got)
    }
}

/// Whether requests may share one run of the model, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Batching {
    /// Dimension 0 of every input and output counts rows, and a probe (or the operator) said so.
    On,
    /// Every request runs alone.
    Off {
        /// Shown in the start-up table and by `explain`.
        reason: String,
    },
}

/// What decided whether requests may share a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decider {
    /// The operator's word.
    Setting,
    /// The shapes that the model declares, or what it is: a stream, a model of state.
    Shapes,
    /// A proof, from the operators of a graph or from the kind of the model.
    Analysis,
    /// Rows that were made up, alone and in company.
    Probe,
    /// Rows that came, alone and in company.
    Traffic,
}

impl Decider {
    /// The word for it in metrics and messages.
    pub fn name(self) -> &'static str {
        match self {
            Decider::Setting => "setting",
            Decider::Shapes => "shapes",
            Decider::Analysis => "analysis",
            Decider::Probe => "probe",
            Decider::Traffic => "traffic",
        }
    }
}

/// What the decision whether requests may share a run rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Who decided.
    pub by: Decider,
    /// In words for the operator.
    pub why: String,
    /// Rows that were compared; 0 where none were.
    #[serde(default)]
    pub rows: u64,
}

/// The inputs and outputs of one model version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// What a request must carry: each once, in any order on the wire, in this order inside.
    pub inputs: Vec<TensorSpec>,
    /// What an answer carries.
    pub outputs: Vec<TensorSpec>,
    /// Whether dimension 0 is a batch.
    pub batching: Batching,
    /// A request gets zero, one or many responses, one after the other; never batched.
    #[serde(default)]
    pub decoupled: bool,
    /// What the protocol has no word for: inputs that may be left out, names of classes.
    #[serde(default)]
    pub extras: Extras,
}

impl Signature {
    /// Whether dimension 0 counts rows.
    pub fn batched(&self) -> bool {
        self.batching == Batching::On
    }

    /// Whether the answer to a request without rows is known without a run: of every output the shape of a row is.
    pub fn answers_no_rows(&self) -> bool {
        self.batched() && self.outputs.iter().all(|output| output.shape.iter().skip(1).all(|dim| *dim >= 0))
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
    fn no_rows_have_an_answer_where_the_shape_of_a_row_is_known() {
        let signature = |shape: &[i64], batching| Signature {
            inputs: vec![spec(DataType::Fp32, &[-1, -1])],
            outputs: vec![spec(DataType::Fp32, shape)],
            batching,
            decoupled: false,
            extras: Default::default(),
        };
        assert!(signature(&[-1, 4], Batching::On).answers_no_rows());
        assert!(!signature(&[-1, -1], Batching::On).answers_no_rows());
        assert!(!signature(&[-1, 4], Batching::Off { reason: "test".into() }).answers_no_rows());
    }

    #[test]
    fn a_free_dimension_takes_any_size_and_a_fixed_one_takes_its_own() {
        let spec = spec(DataType::Fp32, &[-1, 3]);
        assert!(spec.accepts(&[7, 3]) && spec.accepts(&[0, 3]));
        assert!(!spec.accepts(&[7, 4]) && !spec.accepts(&[3]));
    }
}

//! What a model takes and gives.

use serde::{Deserialize, Serialize};

use crate::{Extras, Input, InputDefault, InputSchema, OutputLabels, Result, Tensor, TensorSpec};

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

    /// What the input at `index` is where a request leaves it out; `None` where it must not.
    pub fn default_of(&self, index: usize) -> Option<&InputDefault> {
        let name = &self.inputs.get(index)?.name;
        self.extras.defaults.iter().find(|default| default.input == *name)
    }

    /// What the classes of the output at `index` are called.
    pub fn labels_of(&self, index: usize) -> Option<&OutputLabels> {
        let name = &self.outputs.get(index)?.name;
        self.extras.labels.iter().find(|labels| labels.output == *name)
    }

    /// The only input, or the only one that a request must bring.
    pub fn lone_input(&self) -> Option<&TensorSpec> {
        if let [only] = &self.inputs[..] {
            return Some(only);
        }
        let mut needed =
            self.inputs.iter().enumerate().filter(|(index, _)| self.default_of(*index).is_none());
        match (needed.next(), needed.next()) {
            (Some((_, only)), None) => Some(only),
            _ => None,
        }
    }

    /// The input at `index` for a request that brought `given` without it; `None` where it has no default.
    ///
    /// # Errors
    /// `InvalidInput` where the rows that were brought are too many.
    #[cold]
    pub fn left_out<'t>(
        &self,
        index: usize,
        given: impl IntoIterator<Item = Option<&'t Tensor>>,
    ) -> Result<Option<Tensor>> {
        let Some(default) = self.default_of(index) else { return Ok(None) };
        let rows = self.inputs.iter().zip(given).find_map(|(spec, tensor)| {
            let free = spec.shape.first().is_some_and(|rows| *rows < 0);
            tensor.filter(|_| free)?.shape.first().copied()
        });
        default.tensor(&self.inputs[index], rows.unwrap_or(1)).map(Some)
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataType;

    fn spec(datatype: DataType, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: "x".into(), datatype, shape: shape.to_vec() }
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
}

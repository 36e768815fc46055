//! A model's inputs, outputs and batching.

use serde::{Deserialize, Serialize};

use crate::{Extras, Input, InputDefault, InputSchema, OutputLabels, Result, Tensor, TensorSpec};

/// Whether requests may share a batch, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Batching {
    /// Dimension 0 of every input and output counts rows, as a probe or the operator confirmed.
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
    /// The inputs: each once, in any order on the wire, in this order internally.
    pub inputs: Vec<TensorSpec>,
    /// The outputs.
    pub outputs: Vec<TensorSpec>,
    /// Whether dimension 0 is a batch dimension.
    pub batching: Batching,
    /// A request gets zero, one or many responses in order; never batched.
    #[serde(default)]
    pub decoupled: bool,
    /// What the protocol has no field for: optional inputs, class labels, schemas.
    #[serde(default)]
    pub extras: Extras,
}

impl Signature {
    /// Whether dimension 0 counts rows.
    pub fn batched(&self) -> bool {
        self.batching == Batching::On
    }

    /// Whether the response to a request of no rows is known without a run: the shape of every output's row is
    /// fixed.
    pub fn answers_no_rows(&self) -> bool {
        self.batched() && self.outputs.iter().all(|output| output.shape.iter().skip(1).all(|dim| *dim >= 0))
    }

    /// The default of the input at `index`; `None` if it is required.
    pub fn default_of(&self, index: usize) -> Option<&InputDefault> {
        let name = &self.inputs.get(index)?.name;
        self.extras.defaults.iter().find(|default| default.input == *name)
    }

    /// The class labels of the output at `index`.
    pub fn labels_of(&self, index: usize) -> Option<&OutputLabels> {
        let name = &self.outputs.get(index)?.name;
        self.extras.labels.iter().find(|labels| labels.output == *name)
    }

    /// The only input, or the only required one.
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

    /// The tensor for the omitted input at `index` of a request with the inputs `given`; `None` if it has no
    /// default.
    ///
    /// # Errors
    /// `InvalidInput` if the request has too many rows.
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

    /// The schema of the input at `index`.
    pub fn schema_of(&self, index: usize) -> Option<&InputSchema> {
        let name = &self.inputs.get(index)?.name;
        let schemas = &self.extras.schemas;
        // Most models have one for each input, in the same order.
        let here = schemas.get(index).filter(|schema| schema.input == *name);
        here.or_else(|| schemas.iter().find(|schema| schema.input == *name))
    }

    /// The input at `index`, with its schema.
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
    fn no_rows_have_a_response_where_the_shape_of_a_row_is_known() {
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

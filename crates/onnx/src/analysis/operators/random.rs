//! Random operators: runs differ, and a row's numbers depend on the rows before it.

use super::family::{Family, ONNX};
use crate::analysis::call::Call;

pub(super) const FAMILIES: &[Family] = &[Family::new(
    ONNX,
    &["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"],
    &["dtype", "seed", "mean", "scale", "shape", "low", "high", "sample_size"],
    |call: &Call<'_, '_>| Err(call.dependent("is random")),
)
.counting()];

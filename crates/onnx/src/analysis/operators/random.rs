//! Operators that draw: no run is like another, and a row draws after those before it.

use super::{Family, ONNX};
use crate::analysis::call::Call;

pub(super) const FAMILIES: &[Family] = &[Family::new(
    ONNX,
    &["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"],
    &["dtype", "seed", "mean", "scale", "shape", "low", "high", "sample_size"],
    |call: &Call<'_, '_>| Err(call.dependent("is random")),
)
.counting()];

//! The effect of operators on rows, in families.
//!
//! Reads a node and the values of its inputs, hands on the values of its outputs. The outputs of an operator,
//! attribute or version that isn't listed here are unknown. Knows nothing of graphs.

mod contrib;
mod control;
mod elementwise;
mod family;
mod index;
mod learning;
mod linear;
mod neural;
mod normalize;
mod quantize;
mod random;
mod recurrent;
mod reduce;
mod reshape;
mod resize;
mod sizes;
mod slice;

use std::collections::HashMap;

use self::family::{Family, LEARNING, ONNX};
use super::call::{Call, Outcome};
use super::lattice::{Product, Spread, Value};
use super::scope::OPSET_MAX;

/// The newest known version of `ai.onnx.ml`.
const LEARNING_MAX: i64 = 5;

/// Every known operator.
pub(super) struct Operators(HashMap<(&'static str, &'static str), &'static Family>);

/// The table of operators.
pub(super) fn table() -> Operators {
    const FAMILIES: [&[Family]; 16] = [
        contrib::FAMILIES,
        control::FAMILIES,
        elementwise::FAMILIES,
        index::FAMILIES,
        learning::FAMILIES,
        linear::FAMILIES,
        neural::FAMILIES,
        normalize::FAMILIES,
        quantize::FAMILIES,
        random::FAMILIES,
        recurrent::FAMILIES,
        reduce::FAMILIES,
        reshape::FAMILIES,
        resize::FAMILIES,
        sizes::FAMILIES,
        slice::FAMILIES,
    ];
    let mut table = HashMap::with_capacity(384);
    for family in FAMILIES.into_iter().flatten() {
        for operator in family.operators {
            let before = table.insert((family.domain, *operator), family);
            debug_assert!(before.is_none(), "{operator} is in two families");
        }
    }
    Operators(table)
}

impl Operators {
    /// The outputs of the node of `call`.
    ///
    /// # Errors
    /// Why they are unknown.
    pub(super) fn apply<'a>(&self, call: &Call<'_, 'a>) -> Outcome<'a> {
        let node = call.node;
        let Some(family) = self.0.get(&(node.domain, node.operator)) else {
            return Err(call.unknown("isn't known"));
        };
        let newest = match node.domain {
            ONNX => OPSET_MAX,
            LEARNING => LEARNING_MAX,
            _ => 1,
        };
        if !(1..=newest).contains(&call.version) {
            return Err(call.unknown(format!("is of version {}, which isn't known", call.version)));
        }
        if let Some(strange) = node.attributes.iter().find(|one| !family.attributes.contains(&one.name)) {
            return Err(call.unknown(format!("has an attribute '{}' that isn't known", strange.name)));
        }
        if !family.counts && call.given().iter().any(|value| matches!(value.spread, Spread::Counts)) {
            return Err(call.dependent("computes with the number of rows"));
        }
        let mut made = (family.apply)(call)?;
        for value in &mut made {
            if !is_sound(value) {
                return Err(call.unknown("loses sight of the rows"));
            }
        }
        Ok(made)
    }
}

/// Whether the dimensions and numbers of `value` are consistent with its spread.
fn is_sound(value: &Value<'_>) -> bool {
    let rowless = |dims: &[Product]| !dims.iter().any(Product::has_rows);
    let dims = value.dims.as_deref().unwrap_or_default();
    match value.spread {
        Spread::Same => {
            rowless(dims) && value.numbers.iter().all(|all| !all.iter().flatten().any(Product::has_rows))
        }
        Spread::Rows { axis } => {
            let block = value.block().is_some_and(|block| !block.has_rows());
            block && rowless(&dims[..axis]) && rowless(&dims[axis + 1..])
        }
        Spread::Counts => rowless(dims) && value.numbers.is_some(),
        Spread::Mixed(_) => true,
    }
}

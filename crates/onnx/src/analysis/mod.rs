//! Static analysis of whether rows are independent: a proof, the operator that mixes them, or neither.
//!
//! Reads the model's graph and the names of served inputs and outputs, hands on a verdict. It follows each tensor
//! from node to node: the axis of its rows, and whether an element depends on other rows (see `lattice`). Knows
//! nothing of the runtime, and runs nothing.

mod call;
mod constant;
mod lattice;
mod operators;
mod scope;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::HashMap;

use smallvec::SmallVec;

use self::call::Walk;
use self::lattice::{Blame, Product, Spread, Value};
use self::scope::Scope;
use self::walk::Run;
use crate::file::onnx::{Dim, Model};
use crate::rewrite::rewrite;

/// What the graph proves about rows in one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Each has its lone outputs, up to rounding.
    Independent,
    /// The operator that makes a row's output depend on other rows, and how.
    Dependent(String),
    /// The operator at which rows could not be followed, and why.
    Unknown(String),
}

/// The verdict on the model file `file` if every input and output is served.
pub fn verdict(file: &[u8]) -> Verdict {
    let unreadable = || Verdict::Unknown("the file can't be read".into());
    let Ok(model) = Model::read(file) else { return unreadable() };
    // Maps and sequences at the ends are removed before loading.
    let changed = rewrite(file, &model).ok().flatten();
    let Ok(model) = changed.as_ref().map_or(Ok(model), |changed| Model::read(&changed.bytes)) else {
        return unreadable();
    };
    let given = model.graph.inputs.iter().map(|input| input.name);
    let inputs: Vec<_> =
        given.filter(|name| model.graph.initializer(name).is_none()).map(str::to_owned).collect();
    let outputs: Vec<_> = model.graph.outputs.iter().map(|output| output.name.to_owned()).collect();
    analyse(&model, &inputs, &outputs)
}

/// The verdict on `outputs` of `model` if dimension 0 of `inputs` counts rows.
pub(crate) fn analyse(model: &Model<'_>, inputs: &[String], outputs: &[String]) -> Verdict {
    let run = Run::new(model);
    let mut values = HashMap::new();
    for input in &model.graph.inputs {
        if inputs.iter().any(|served| served == input.name) {
            let Some(dims) = &input.dims else {
                return Verdict::Unknown(format!("the dimensions of input '{}' aren't known", input.name));
            };
            // A name guarantees nothing: the runtime does not enforce equal sizes of inputs.
            let size = |(axis, dim): (usize, &Dim<'_>)| match dim {
                _ if axis == 0 => Product::rows(),
                Dim::Fixed(size) if *size >= 0 => Product::of(*size),
                _ => run.fresh(),
            };
            let dims: SmallVec<_> = dims.iter().enumerate().map(size).collect();
            if dims.is_empty() {
                return Verdict::Unknown(format!("input '{}' has no rows", input.name));
            }
            values.insert(input.name, Value::rows(dims, 0));
        }
    }
    let mut scope = Scope::of_model(&model.opsets, values);
    run.graph(&model.graph, &mut scope);
    let found = outputs.iter().map(|output| judge(output, &scope.find(output)));
    // A proof about one output holds, whatever is unknown about another.
    let worst = found.max_by_key(|verdict| match verdict {
        Verdict::Independent => 0,
        Verdict::Unknown(_) => 1,
        Verdict::Dependent(_) => 2,
    });
    match (worst, run.lost()) {
        (Some(Verdict::Independent), Some(blame)) => Verdict::Unknown(blame.to_string()),
        (Some(worst), _) => worst,
        (None, _) => Verdict::Unknown("the model has no outputs".into()),
    }
}

fn judge(output: &str, value: &Value<'_>) -> Verdict {
    match &value.spread {
        Spread::Rows { axis: 0 } if value.block().is_some_and(|block| block.is(1)) => Verdict::Independent,
        Spread::Mixed(blame) if blame.proven => Verdict::Dependent(Blame::to_string(blame)),
        Spread::Mixed(blame) => Verdict::Unknown(Blame::to_string(blame)),
        _ => Verdict::Unknown(format!("output '{output}' has no row for each row")),
    }
}

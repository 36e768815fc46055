//! What a pipeline takes of tables: the schemas and ignored columns of the models that its inputs go to.
//!
//! Reads what the models of the steps know, hands on what all that share an input agree about. What they don't agree
//! about is for each step to refuse.
//! Knows nothing of settings and of requests.

use std::sync::Arc;

use inferd_types::{DataType, InputDefault, InputSchema, Signature, TensorSpec};

use crate::handle::ModelHandle;

/// One input of a step that an input of the pipeline goes to.
pub(super) struct Use {
    pub(super) datatype: DataType,
    /// What it is where it is left out.
    pub(super) default: Option<InputDefault>,
    /// What each model of the step knows of it.
    pub(super) schemas: Vec<Option<InputSchema>>,
}

impl Use {
    /// The input at `index` of a step that runs on any of `models`.
    pub(super) fn new(models: &[ModelHandle], index: usize, spec: &TensorSpec) -> Use {
        let signatures: Vec<Arc<Signature>> = models.iter().filter_map(ModelHandle::signature).collect();
        Use {
            datatype: spec.datatype,
            default: signatures.first().and_then(|first| first.default_of(index)).cloned(),
            schemas: signatures.iter().map(|signature| signature.schema_of(index).cloned()).collect(),
        }
    }
}

/// The schemas of those `inputs` whose every use has the same.
pub(super) fn schemas(inputs: &[Option<TensorSpec>], uses: &[Vec<Use>]) -> Vec<InputSchema> {
    let schema = |(spec, uses): (&Option<TensorSpec>, &Vec<Use>)| {
        let spec = spec.as_ref()?;
        let of = |schema: &InputSchema| InputSchema { input: spec.name.clone(), ..schema.clone() };
        let first = of(uses.first()?.schemas.first()?.as_ref()?);
        let same = |other: &Option<InputSchema>| other.as_ref().map(of).as_ref() == Some(&first);
        let agree = |one: &Use| one.datatype == spec.datatype && one.schemas.iter().all(same);
        uses.iter().all(agree).then_some(first)
    };
    inputs.iter().zip(uses).filter_map(schema).collect()
}

/// The columns that all models of tables among `models`, those that inputs of the pipeline go to, ignore.
pub(super) fn ignored_columns<'m>(
    models: impl Iterator<Item = &'m ModelHandle>,
    inputs: &[Option<TensorSpec>],
) -> Vec<Arc<str>> {
    let signatures = models.filter_map(ModelHandle::signature);
    let mut lists = signatures
        .filter(|signature| !signature.extras.schemas.is_empty())
        .map(|signature| signature.extras.ignored_columns.clone());
    let Some(mut first) = lists.next() else { return Vec::new() };
    if lists.any(|other| other != first) {
        return Vec::new();
    }
    // What one step ignores may be an input that another reads.
    first.retain(|column| !inputs.iter().flatten().any(|spec| spec.name == *column));
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(input: &str, missing: bool) -> Option<InputSchema> {
        Some(InputSchema { input: input.into(), columns: vec!["a".into()], missing, largest: None })
    }

    fn used(datatype: DataType, schemas: Vec<Option<InputSchema>>) -> Use {
        Use { datatype, default: None, schemas }
    }

    #[test]
    fn an_input_has_the_schema_that_all_its_uses_have() {
        let input = [Some(TensorSpec { name: "rows".into(), datatype: DataType::Fp64, shape: vec![-1, 1] })];
        let of = |uses: Vec<Use>| schemas(&input, &[uses]);
        let wide = |schemas| used(DataType::Fp64, schemas);
        let same =
            of(vec![wide(vec![schema("x", false), schema("x", false)]), wide(vec![schema("y", false)])]);
        assert_eq!(same, vec![schema("rows", false).unwrap()]);
        for other in [schema("y", true), None] {
            assert!(of(vec![wide(vec![schema("x", false)]), wide(vec![other.clone()])]).is_empty());
            assert!(of(vec![wide(vec![schema("x", false), other])]).is_empty());
        }
        assert!(of(vec![used(DataType::Fp32, vec![schema("x", false)])]).is_empty());
        assert!(of(vec![]).is_empty());
    }
}

//! Tensors by name, in nested scopes.
//!
//! Reads names, hands on abstract values. Knows nothing of nodes.

use std::collections::HashMap;
use std::rc::Rc;

use super::lattice::{Blame, Value};
use crate::file::onnx::{Attribute, Opset};

/// Maximum nesting of graphs and functions.
pub(super) const DEPTH_MAX: usize = 24;
/// The newest version of ONNX's operators that the table of operators covers.
pub(super) const OPSET_MAX: i64 = 28;

/// Tensors by name, with the enclosing scope.
pub(super) struct Scope<'s, 'a> {
    pub(super) outer: Option<&'s Scope<'s, 'a>>,
    pub(super) values: HashMap<&'a str, Value<'a>>,
    /// Why tensors with rows of outer graphs can't be used here.
    pub(super) hides_rows: Option<Rc<Blame>>,
    pub(super) opsets: &'s [Opset<'a>],
    /// Inside a function: the attributes of the call.
    pub(super) attributes: Option<&'s [Attribute<'a>]>,
    pub(super) depth: usize,
}

impl<'s, 'a> Scope<'s, 'a> {
    /// The scope of a model's own graph.
    pub(super) fn of_model(opsets: &'s [Opset<'a>], values: HashMap<&'a str, Value<'a>>) -> Scope<'s, 'a> {
        Scope { outer: None, values, hides_rows: None, opsets, attributes: None, depth: 0 }
    }

    /// The scope of a nested graph. `None` if it is too deep.
    pub(super) fn inner(
        &'s self,
        values: impl IntoIterator<Item = (&'a str, Value<'a>)>,
        hides_rows: Option<Rc<Blame>>,
    ) -> Option<Scope<'s, 'a>> {
        let (values, depth) = (values.into_iter().collect(), self.depth + 1);
        let inner = Scope {
            outer: Some(self),
            values,
            hides_rows,
            opsets: self.opsets,
            attributes: self.attributes,
            depth,
        };
        (depth <= DEPTH_MAX).then_some(inner)
    }

    /// The value of the tensor `name`.
    pub(super) fn find(&self, name: &str) -> Value<'a> {
        if let Some(value) = self.values.get(name) {
            return value.clone();
        }
        let found = self.outer.map(|outer| outer.find(name));
        match (found, &self.hides_rows) {
            (Some(value), Some(blame)) if value.row_axis().is_some() => Value::mixed(blame.clone()),
            (Some(value), _) => value,
            (None, _) => {
                let why = "is read before it is made".to_owned();
                let blame = Blame { proven: false, operator: "the tensor".into(), node: name.into(), why };
                Value::mixed(Rc::new(blame))
            }
        }
    }

    /// The attributes of the call of the enclosing function.
    pub(super) fn attributes(&self) -> Option<&'s [Attribute<'a>]> {
        self.attributes
    }

    pub(super) fn version(&self, domain: &str) -> i64 {
        let known = self.opsets.iter().filter(|opset| opset.domain == domain).map(|opset| opset.version);
        // The runtime assumes the latest version of ONNX's own domain if none is given; other domains begin with 1.
        known.max().unwrap_or(if domain.is_empty() { OPSET_MAX } else { 1 })
    }
}

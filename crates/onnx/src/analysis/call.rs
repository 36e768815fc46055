//! One node under analysis: its inputs, its attributes, and its part of messages.
//!
//! Reads a node and the values of its inputs, hands on what operators need of them. Knows nothing of single
//! operators.

use smallvec::smallvec;

use super::lattice::{Blame, Dims, Product, Spread, Value};
use super::scope::Scope;
use crate::file::onnx::{Attribute, Graph, Node, Tensor};
use crate::file::wire::Malformed;

/// The values of a node's outputs, or why they are unknown.
pub(super) type Outcome<'a> = Result<Vec<Value<'a>>, Blame>;

/// The traversal in which a node is visited.
pub(super) trait Walk<'a> {
    /// An unknown size, equal in the lone run and the joint run.
    fn fresh(&self) -> Product;

    /// Visits every node of `graph`, whose inputs are in `scope` already.
    fn graph(&self, graph: &Graph<'a>, scope: &mut Scope<'_, 'a>);
}

/// A node and the values of its inputs. None of them is mixed.
pub(super) struct Call<'c, 'a> {
    pub(super) walk: &'c dyn Walk<'a>,
    pub(super) scope: &'c Scope<'c, 'a>,
    pub(super) node: &'c Node<'a>,
    /// The version of its domain's operators.
    pub(super) version: i64,
    pub(super) inputs: Vec<Option<Value<'a>>>,
}

impl<'a> Call<'_, 'a> {
    fn blame(&self, proven: bool, why: String) -> Blame {
        let node = if self.node.name.is_empty() {
            self.node.outputs.iter().find(|name| !name.is_empty()).copied().unwrap_or_default()
        } else {
            self.node.name
        };
        Blame { proven, operator: self.node.operator.to_owned(), node: node.to_owned(), why }
    }

    /// The operator mixes rows.
    pub(super) fn dependent(&self, why: impl Into<String>) -> Blame {
        self.blame(true, why.into())
    }

    /// The operator can't be followed.
    pub(super) fn unknown(&self, why: impl Into<String>) -> Blame {
        self.blame(false, why.into())
    }

    pub(super) fn malformed(&self) -> Blame {
        self.unknown("can't be read")
    }

    /// # Errors
    /// If it is omitted.
    pub(super) fn input(&self, index: usize) -> Result<&Value<'a>, Blame> {
        self.optional(index).ok_or_else(|| self.unknown("lacks an input"))
    }

    pub(super) fn optional(&self, index: usize) -> Option<&Value<'a>> {
        self.inputs.get(index)?.as_ref()
    }

    /// The inputs that are not omitted.
    pub(super) fn given(&self) -> Vec<&Value<'a>> {
        self.inputs.iter().flatten().collect()
    }

    /// # Errors
    /// If an input from `first` on is not the same in every run.
    pub(super) fn same_from(&self, first: usize) -> Result<(), Blame> {
        match self.inputs.iter().skip(first).flatten().all(Value::is_same) {
            true => Ok(()),
            false => Err(self.unknown("has parameters that depend on rows")),
        }
    }

    /// # Errors
    /// If the rank is unknown.
    pub(super) fn dims<'v>(&self, value: &'v Value<'a>) -> Result<&'v Dims, Blame> {
        value.dims.as_ref().ok_or_else(|| self.unknown("has an input of which the dimensions aren't known"))
    }

    pub(super) fn attribute(&self, name: &str) -> Result<Option<Attribute<'a>>, Blame> {
        let Some(own) = self.node.attribute(name).copied() else { return Ok(None) };
        let Some(outer) = self.scope.attributes() else { return Ok(Some(own)) };
        match own.reference().map_err(|Malformed| self.malformed())? {
            None => Ok(Some(own)),
            Some(reference) => Ok(outer.iter().find(|attribute| attribute.name == reference).copied()),
        }
    }

    /// The attributes with which this node calls a function.
    pub(super) fn attributes(&self, defaults: &[Attribute<'a>]) -> Result<Vec<Attribute<'a>>, Blame> {
        let mut found = Vec::new();
        for own in &self.node.attributes {
            if let Some(attribute) = self.attribute(own.name)? {
                found.push(attribute.named(own.name));
            }
        }
        found.extend_from_slice(defaults);
        Ok(found)
    }

    fn read<T>(
        &self,
        name: &str,
        read: impl Fn(&Attribute<'a>) -> Result<Option<T>, Malformed>,
    ) -> Result<Option<T>, Blame> {
        match self.attribute(name)? {
            None => Ok(None),
            Some(attribute) => read(&attribute).map_err(|Malformed| self.malformed()),
        }
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, Blame> {
        self.read(name, Attribute::integer)
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, Blame> {
        Ok(self.integer(name)?.map_or(default, |value| value != 0))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a [u8]>, Blame> {
        self.read(name, Attribute::text)
    }

    pub(super) fn integers(&self, name: &str) -> Result<Option<Vec<i64>>, Blame> {
        self.read(name, |attribute| attribute.integers().map(Some))
    }

    pub(super) fn tensor(&self, name: &str) -> Result<Option<Tensor<'a>>, Blame> {
        self.read(name, Attribute::tensor)
    }

    /// # Errors
    /// If there is none.
    pub(super) fn graph(&self, name: &str) -> Result<Graph<'a>, Blame> {
        let graphs = self.read(name, |attribute| attribute.graphs().map(Some))?;
        graphs.and_then(|mut graphs| graphs.pop()).ok_or_else(|| self.malformed())
    }

    /// `axis` counted from the front.
    ///
    /// # Errors
    /// If there is no such axis.
    pub(super) fn axis(&self, axis: i64, rank: usize) -> Result<usize, Blame> {
        let front = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(front)
            .ok()
            .filter(|axis| *axis < rank)
            .ok_or_else(|| self.unknown("has an axis too many"))
    }

    /// The axes of an attribute (of versions before `since`) or an input; `None` if they are omitted.
    ///
    /// # Errors
    /// If they are not constant.
    pub(super) fn axes(&self, since: i64, index: usize) -> Result<Option<Vec<i64>>, Blame> {
        if self.version < since {
            return self.integers("axes");
        }
        match self.optional(index) {
            None => Ok(None),
            Some(value) => {
                let axes = value.constants();
                axes.map(Some).ok_or_else(|| self.unknown("has axes that aren't constant"))
            }
        }
    }

    /// A value like `value`, with other dimensions.
    ///
    /// # Errors
    /// If the rows are no longer along `axis`.
    pub(super) fn like(&self, value: &Value<'a>, dims: Dims) -> Result<Value<'a>, Blame> {
        match value.spread {
            Spread::Rows { axis } if dims.get(axis).is_some_and(Product::has_rows) => {
                Ok(Value::rows(dims, axis))
            }
            Spread::Same => Ok(Value::same(Some(dims))),
            _ => Err(self.unknown("loses sight of the rows")),
        }
    }

    /// A tensor of these dimensions with rows along `rows`, or the same in every run.
    pub(super) fn like_rows(&self, rows: Option<usize>, dims: Dims) -> Value<'a> {
        match rows {
            Some(axis) => Value::rows(dims, axis),
            None => Value::same(Some(dims)),
        }
    }

    /// A tensor that is equal for all rows or has them along its first axis, with these further dimensions.
    pub(super) fn row_wise(&self, first: &Product, rest: impl IntoIterator<Item = Product>) -> Value<'a> {
        let mut dims: Dims = smallvec![first.clone()];
        dims.extend(rest);
        if first.has_rows() { Value::rows(dims, 0) } else { Value::same(Some(dims)) }
    }

    pub(super) fn fresh(&self) -> Product {
        self.walk.fresh()
    }
}

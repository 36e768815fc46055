//! One node that is looked at: its inputs, its attributes, and how its kind of sentence begins.
//!
//! Reads a node and what is known of its inputs, hands on answers to what operators ask of them.
//! Knows nothing of single operators.

use smallvec::smallvec;

use super::lattice::{Blame, Dims, Product, Spread, Value};
use super::scope::Scope;
use crate::file::onnx::{Attribute, Graph, Node, Tensor};
use crate::file::wire::Malformed;

/// What a node makes, or why that is not known.
pub(super) type Outcome<'a> = Result<Vec<Value<'a>>, Blame>;

/// The walk that a node is met on.
pub(super) trait Walk<'a> {
    /// A size that is not known: the lone run and the joint run have it in common.
    fn fresh(&self) -> Product;

    /// Looks at every node of `graph`; what is known of its inputs is in `scope` already.
    fn graph(&self, graph: &Graph<'a>, scope: &mut Scope<'_, 'a>);
}

/// A node and what is known of its inputs. None of them is mixed.
pub(super) struct Call<'c, 'a> {
    pub(super) walk: &'c dyn Walk<'a>,
    pub(super) scope: &'c Scope<'c, 'a>,
    pub(super) node: &'c Node<'a>,
    /// Of its domain's operators.
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

    /// It mixes rows.
    pub(super) fn dependent(&self, why: impl Into<String>) -> Blame {
        self.blame(true, why.into())
    }

    /// It can't be followed.
    pub(super) fn unknown(&self, why: impl Into<String>) -> Blame {
        self.blame(false, why.into())
    }

    pub(super) fn malformed(&self) -> Blame {
        self.unknown("can't be read")
    }

    /// # Errors
    /// Where it is left out.
    pub(super) fn input(&self, index: usize) -> Result<&Value<'a>, Blame> {
        self.optional(index).ok_or_else(|| self.unknown("lacks an input"))
    }

    pub(super) fn optional(&self, index: usize) -> Option<&Value<'a>> {
        self.inputs.get(index)?.as_ref()
    }

    /// The inputs that are there.
    pub(super) fn given(&self) -> Vec<&Value<'a>> {
        self.inputs.iter().flatten().collect()
    }

    /// # Errors
    /// Where an input from `first` on does not have the same in every run.
    pub(super) fn same_from(&self, first: usize) -> Result<(), Blame> {
        match self.inputs.iter().skip(first).flatten().all(Value::is_same) {
            true => Ok(()),
            false => Err(self.unknown("has parameters that depend on rows")),
        }
    }

    /// # Errors
    /// Where the number of dimensions is not known.
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

    /// The attributes that a function is called with by this node.
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
    /// Where there is none.
    pub(super) fn graph(&self, name: &str) -> Result<Graph<'a>, Blame> {
        let graphs = self.read(name, |attribute| attribute.graphs().map(Some))?;
        graphs.and_then(|mut graphs| graphs.pop()).ok_or_else(|| self.malformed())
    }

    /// `axis` counted from the front.
    ///
    /// # Errors
    /// Where there is no such axis.
    pub(super) fn axis(&self, axis: i64, rank: usize) -> Result<usize, Blame> {
        let front = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(front)
            .ok()
            .filter(|axis| *axis < rank)
            .ok_or_else(|| self.unknown("has an axis too many"))
    }

    /// The axes of an attribute (of versions before `since`) or an input; `None` where they are left out.
    ///
    /// # Errors
    /// Where they are no constants.
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

    /// A value like `value`, of other dimensions.
    ///
    /// # Errors
    /// Where the rows are not along `axis` any more.
    pub(super) fn like(&self, value: &Value<'a>, dims: Dims) -> Result<Value<'a>, Blame> {
        match value.spread {
            Spread::Rows { axis } if dims.get(axis).is_some_and(Product::has_rows) => {
                Ok(Value::rows(dims, axis))
            }
            Spread::Same => Ok(Value::same(Some(dims))),
            _ => Err(self.unknown("loses sight of the rows")),
        }
    }

    /// A tensor of these dimensions that has rows along `rows`, or the same in every run.
    pub(super) fn like_rows(&self, rows: Option<usize>, dims: Dims) -> Value<'a> {
        match rows {
            Some(axis) => Value::rows(dims, axis),
            None => Value::same(Some(dims)),
        }
    }

    /// A tensor that is alike for all rows or has them along its first axis, of these further dimensions.
    pub(super) fn row_wise(&self, first: &Product, rest: impl IntoIterator<Item = Product>) -> Value<'a> {
        let mut dims: Dims = smallvec![first.clone()];
        dims.extend(rest);
        if first.has_rows() { Value::rows(dims, 0) } else { Value::same(Some(dims)) }
    }

    pub(super) fn fresh(&self) -> Product {
        self.walk.fresh()
    }
}

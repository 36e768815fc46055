//! Walks through a graph, its functions and the graphs inside it, node by node.
//!
//! Reads what is known of the inputs, hands on what is known of every tensor.
//! Knows nothing of what operators do: it asks `operators`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::call::Call;
use super::lattice::{Blame, Dims, NUMBERS_MAX, Product, Spread, Value};
use super::operators::{self, Operators};
use crate::file::onnx::{Attribute, Function, Graph, Model, Node, Opset, Tensor, types};
use crate::file::wire::Malformed;

/// Most nodes that are looked at, those of loops as often as they are. A graph of that many takes seconds.
const VISITS_MAX: usize = 1 << 18;
/// Most graphs and functions inside each other.
const DEPTH_MAX: usize = 24;

/// What the whole walk has in common.
pub(super) struct Run<'m, 'a> {
    operators: Operators,
    functions: HashMap<(&'a str, &'a str, &'a str), &'m Function<'a>>,
    symbols: Cell<u32>,
    visits: Cell<usize>,
    /// The first node of which nothing is known, whether or not an output depends on it.
    lost: RefCell<Option<Rc<Blame>>>,
}

/// Tensors by name, and where others are looked for.
pub(super) struct Scope<'s, 'a> {
    outer: Option<&'s Scope<'s, 'a>>,
    values: HashMap<&'a str, Value<'a>>,
    /// Why tensors with rows of outer graphs can't be used here.
    hides_rows: Option<Rc<Blame>>,
    opsets: &'s [Opset<'a>],
    /// Inside a function: the attributes that it was called with.
    attributes: Option<&'s [Attribute<'a>]>,
    depth: usize,
}

impl<'m, 'a> Run<'m, 'a> {
    pub(super) fn new(model: &'m Model<'a>) -> Run<'m, 'a> {
        let named =
            |function: &'m Function<'a>| ((function.domain, function.name, function.overload), function);
        Run {
            operators: operators::table(),
            functions: model.functions.iter().map(named).collect(),
            symbols: Cell::new(0),
            visits: Cell::new(0),
            lost: RefCell::new(None),
        }
    }

    /// A node of which nothing is known. It runs too: the joint run may fail at it where no lone run does.
    pub(super) fn lost(&self) -> Option<Rc<Blame>> {
        self.lost.borrow().clone()
    }

    fn note(&self, blame: Blame) -> Rc<Blame> {
        let blame = Rc::new(blame);
        self.lost.borrow_mut().get_or_insert_with(|| blame.clone());
        blame
    }

    /// A size that is not known: the lone run and the joint run have it in common.
    pub(super) fn fresh(&self) -> Product {
        self.symbols.set(self.symbols.get() + 1);
        Product::symbol(self.symbols.get())
    }

    /// Looks at every node of `graph`; what is known of its inputs is in `scope` already.
    pub(super) fn graph(&self, graph: &Graph<'a>, scope: &mut Scope<'_, 'a>) {
        for tensor in &graph.initializers {
            if !scope.values.contains_key(tensor.name) {
                scope.values.insert(tensor.name, constant(tensor));
            }
        }
        for name in &graph.sparse {
            scope.values.entry(name).or_insert_with(|| Value::same(None));
        }
        self.nodes(&graph.nodes, scope);
    }

    fn nodes(&self, nodes: &[Node<'a>], scope: &mut Scope<'_, 'a>) {
        for node in nodes {
            self.visits.set(self.visits.get() + 1);
            let made = self.node(node, scope);
            let mut made = made.map(Vec::into_iter);
            for name in node.outputs.iter().filter(|name| !name.is_empty()) {
                let value = match &mut made {
                    Ok(values) => values.next().unwrap_or_else(|| Value::mixed(Rc::new(nothing_known(node)))),
                    Err(blame) => Value::mixed(blame.clone()),
                };
                scope.values.insert(name, value);
            }
        }
    }

    /// What `node` makes.
    fn node(&self, node: &Node<'a>, scope: &Scope<'_, 'a>) -> Result<Vec<Value<'a>>, Rc<Blame>> {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            let value = if name.is_empty() { None } else { Some(scope.find(name)) };
            if let Some(Value { spread: Spread::Mixed(blame), .. }) = &value {
                return Err(blame.clone());
            }
            inputs.push(value);
        }
        if self.visits.get() > VISITS_MAX {
            return Err(self.note(blame(node, "has too many nodes before it")));
        }
        let version = scope.version(node.domain);
        let call = Call { run: self, scope, node, version, inputs };
        if let Some(function) = self.functions.get(&(node.domain, node.operator, node.overload)) {
            return self.function(function, call);
        }
        self.operators.apply(&call).map_err(|blame| self.note(blame))
    }

    fn function(&self, function: &Function<'a>, call: Call<'_, 'a>) -> Result<Vec<Value<'a>>, Rc<Blame>> {
        if call.scope.depth == DEPTH_MAX {
            return Err(self.note(call.unknown("calls itself, or is too deep")));
        }
        let attributes = call.attributes(&function.defaults).map_err(|blame| self.note(blame))?;
        let given = function.inputs.iter().zip(call.inputs);
        let mut scope = Scope {
            outer: None,
            values: given.filter_map(|(name, value)| Some((*name, value?))).collect(),
            hides_rows: None,
            opsets: &function.opsets,
            attributes: Some(&attributes),
            depth: call.scope.depth + 1,
        };
        self.nodes(&function.nodes, &mut scope);
        Ok(function.outputs.iter().map(|name| scope.find(name)).collect())
    }
}

impl<'s, 'a> Scope<'s, 'a> {
    /// That of a model's own graph.
    pub(super) fn of_model(opsets: &'s [Opset<'a>], values: HashMap<&'a str, Value<'a>>) -> Scope<'s, 'a> {
        Scope { outer: None, values, hides_rows: None, opsets, attributes: None, depth: 0 }
    }

    /// That of a graph inside a node of this one. `None` where it is too deep.
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

    /// What is known of the tensor `name`.
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

    /// The attributes that the function was called with whose node this is.
    pub(super) fn attributes(&self) -> Option<&'s [Attribute<'a>]> {
        self.attributes
    }

    fn version(&self, domain: &str) -> i64 {
        let known = self.opsets.iter().filter(|opset| opset.domain == domain).map(|opset| opset.version);
        // The runtime takes the latest of ONNX's own where it is not named; other domains begin with 1.
        known.max().unwrap_or(if domain.is_empty() { operators::OPSET_MAX } else { 1 })
    }
}

fn nothing_known(node: &Node<'_>) -> Blame {
    blame(node, "has an output that isn't known")
}

/// Why nothing is known of what `node` makes.
fn blame(node: &Node<'_>, why: &str) -> Blame {
    let name =
        if node.name.is_empty() { node.outputs.first().copied().unwrap_or_default() } else { node.name };
    Blame { proven: false, operator: node.operator.to_owned(), node: name.to_owned(), why: why.to_owned() }
}

/// What is known of a tensor in the file.
pub(super) fn constant<'a>(tensor: &Tensor<'a>) -> Value<'a> {
    let dims: Dims = tensor.dims.iter().map(|dim| Product::of(*dim)).collect();
    let numbers = numbers(tensor).ok().flatten();
    let numbers =
        numbers.map(|numbers| numbers.into_iter().map(|number| Some(Product::of(number))).collect());
    Value { numbers, constant: Some(Rc::new(tensor.clone())), ..Value::same(Some(dims)) }
}

/// The elements of a small tensor of integers or truths.
fn numbers(tensor: &Tensor<'_>) -> Result<Option<Vec<i64>>, Malformed> {
    let count = tensor.dims.iter().try_fold(1i64, |count, dim| count.checked_mul(*dim)).unwrap_or(i64::MAX);
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > NUMBERS_MAX {
        return Ok(None);
    }
    let each = |size: usize| -> Result<Option<Vec<i64>>, Malformed> {
        let Some(data) = tensor.numbers()? else { return Ok(None) };
        let whole = |bytes: &[u8]| {
            let negative = size > 1 && bytes.last().is_some_and(|byte| byte & 0x80 != 0);
            let mut wide = if negative { [0xff; 8] } else { [0; 8] };
            wide[..size].copy_from_slice(bytes);
            i64::from_le_bytes(wide)
        };
        let numbers: Vec<i64> = data.chunks_exact(size).map(whole).collect();
        Ok(Some(numbers).filter(|numbers| numbers.len() == count))
    };
    match tensor.data_type {
        types::BOOL => each(1),
        types::INT32 => each(4),
        types::INT64 => each(8),
        // Sums of small integers start anew past the largest.
        _ => Ok(None),
    }
}

//! Traverses a graph, its functions and nested graphs, node by node.
//!
//! Reads the values of the inputs, hands on the value of every tensor. Knows nothing of what operators do: that is
//! in `operators`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::call::{Call, Walk};
use super::constant::constant;
use super::lattice::{Blame, Product, Spread, Value};
use super::operators::{self, Operators};
use super::scope::{DEPTH_MAX, Scope};
use crate::file::onnx::{Function, Graph, Model, Node};

/// Maximum number of visited nodes, counting those of loops every time. A graph of that many takes seconds.
const VISITS_MAX: usize = 1 << 18;

/// The state of the whole traversal.
pub(super) struct Run<'m, 'a> {
    operators: Operators,
    functions: HashMap<(&'a str, &'a str, &'a str), &'m Function<'a>>,
    symbols: Cell<u32>,
    visits: Cell<usize>,
    /// The first node with an unknown output, whether or not a served output depends on it.
    lost: RefCell<Option<Rc<Blame>>>,
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

    /// The first unknown node. It runs too: the joint run may fail at it where no lone run does.
    pub(super) fn lost(&self) -> Option<Rc<Blame>> {
        self.lost.borrow().clone()
    }

    fn note(&self, blame: Blame) -> Rc<Blame> {
        let blame = Rc::new(blame);
        self.lost.borrow_mut().get_or_insert_with(|| blame.clone());
        blame
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

    /// The outputs of `node`.
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
        let call = Call { walk: self, scope, node, version, inputs };
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

impl<'a> Walk<'a> for Run<'_, 'a> {
    fn fresh(&self) -> Product {
        self.symbols.set(self.symbols.get() + 1);
        Product::symbol(self.symbols.get())
    }

    fn graph(&self, graph: &Graph<'a>, scope: &mut Scope<'_, 'a>) {
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
}

fn nothing_known(node: &Node<'_>) -> Blame {
    blame(node, "has an output that isn't known")
}

/// Why the outputs of `node` are unknown.
fn blame(node: &Node<'_>, why: &str) -> Blame {
    let name =
        if node.name.is_empty() { node.outputs.first().copied().unwrap_or_default() } else { node.name };
    Blame { proven: false, operator: node.operator.to_owned(), node: name.to_owned(), why: why.to_owned() }
}

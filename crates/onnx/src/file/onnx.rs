//! ONNX's messages, as far as they are used here (onnx/onnx.proto has the field numbers).
//!
//! Reads a model's bytes, hands on its graph, functions and constants as slices of them. Attributes and tensors are
//! parsed on access. Knows nothing of what operators do.

use super::wire::{Field, Fields, Malformed};

/// `TensorProto.DataType`.
pub(crate) mod types {
    pub(crate) const FLOAT: i64 = 1;
    pub(crate) const UINT8: i64 = 2;
    pub(crate) const INT8: i64 = 3;
    pub(crate) const UINT16: i64 = 4;
    pub(crate) const INT16: i64 = 5;
    pub(crate) const INT32: i64 = 6;
    pub(crate) const INT64: i64 = 7;
    pub(crate) const STRING: i64 = 8;
    pub(crate) const BOOL: i64 = 9;
    pub(crate) const FLOAT16: i64 = 10;
    pub(crate) const DOUBLE: i64 = 11;
    pub(crate) const UINT32: i64 = 12;
    pub(crate) const UINT64: i64 = 13;
    pub(crate) const BFLOAT16: i64 = 16;
}

/// Maximum nesting of graphs. The runtime's own parser stops at a hundred messages.
const DEPTH_MAX: usize = 32;
/// The number of `ModelProto.graph`.
pub(crate) const MODEL_GRAPH: u32 = 7;
/// The number of `GraphProto.node`.
pub(crate) const GRAPH_NODE: u32 = 1;
/// The number of `GraphProto.input`.
pub(crate) const GRAPH_INPUT: u32 = 11;
/// The number of `GraphProto.output`.
pub(crate) const GRAPH_OUTPUT: u32 = 12;

/// `ModelProto`.
#[derive(Debug, Default)]
pub(crate) struct Model<'a> {
    pub(crate) opsets: Vec<Opset<'a>>,
    pub(crate) graph: Graph<'a>,
    pub(crate) functions: Vec<Function<'a>>,
}

/// `OperatorSetIdProto`: the version of a domain's operators.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opset<'a> {
    pub(crate) domain: &'a str,
    pub(crate) version: i64,
}

/// `GraphProto`.
#[derive(Debug, Default)]
pub(crate) struct Graph<'a> {
    pub(crate) nodes: Vec<Node<'a>>,
    pub(crate) inputs: Vec<ValueInfo<'a>>,
    pub(crate) outputs: Vec<ValueInfo<'a>>,
    pub(crate) initializers: Vec<Tensor<'a>>,
    /// Names of constants that are sparse tensors.
    pub(crate) sparse: Vec<&'a str>,
}

/// `NodeProto`.
#[derive(Debug, Default)]
pub(crate) struct Node<'a> {
    pub(crate) name: &'a str,
    pub(crate) operator: &'a str,
    pub(crate) domain: &'a str,
    pub(crate) overload: &'a str,
    /// An empty name is an omitted input.
    pub(crate) inputs: Vec<&'a str>,
    pub(crate) outputs: Vec<&'a str>,
    pub(crate) attributes: Vec<Attribute<'a>>,
    /// The node's bytes in the file.
    pub(crate) message: &'a [u8],
}

/// `FunctionProto`: an operator that the model defines.
#[derive(Debug, Default)]
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    pub(crate) domain: &'a str,
    pub(crate) overload: &'a str,
    pub(crate) inputs: Vec<&'a str>,
    pub(crate) outputs: Vec<&'a str>,
    /// The defaults of attributes that a call omits.
    pub(crate) defaults: Vec<Attribute<'a>>,
    pub(crate) nodes: Vec<Node<'a>>,
    pub(crate) opsets: Vec<Opset<'a>>,
}

/// `ValueInfoProto`.
#[derive(Clone, Debug, Default)]
pub(crate) struct ValueInfo<'a> {
    pub(crate) name: &'a str,
    /// `None` if it is not a tensor, or its rank is not declared.
    pub(crate) dims: Option<Vec<Dim<'a>>>,
    /// The element type of a tensor; 0 if unknown.
    pub(crate) element: i64,
    /// The type of a map's values, if they are scalars.
    pub(crate) map_of: Option<i64>,
}

/// A declared dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dim<'a> {
    Fixed(i64),
    /// Of any size; the name may be empty.
    Free(&'a str),
}

/// `AttributeProto`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribute<'a> {
    pub(crate) name: &'a str,
    message: &'a [u8],
}

/// `TensorProto`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tensor<'a> {
    pub(crate) name: &'a str,
    pub(crate) dims: Vec<i64>,
    pub(crate) data_type: i64,
    /// Whether its elements are in another file.
    pub(crate) external: bool,
    message: &'a [u8],
}

const EXTERNAL: i64 = 1;

impl<'a> Model<'a> {
    pub(crate) fn read(message: &'a [u8]) -> Result<Model<'a>, Malformed> {
        let mut model = Model::default();
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                MODEL_GRAPH => model.graph = Graph::read(field.bytes()?)?,
                8 => model.opsets.push(Opset::read(field.bytes()?)?),
                25 => model.functions.push(Function::read(field.bytes()?)?),
                _ => {}
            }
        }
        Ok(model)
    }
}

impl<'a> Opset<'a> {
    fn read(message: &'a [u8]) -> Result<Opset<'a>, Malformed> {
        let mut opset = Opset::default();
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => opset.domain = domain(field.text()?),
                2 => opset.version = field.integer()?,
                _ => {}
            }
        }
        Ok(opset)
    }
}

/// The domain of ONNX's own operators has two names.
fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

impl<'a> Graph<'a> {
    pub(crate) fn read(message: &'a [u8]) -> Result<Graph<'a>, Malformed> {
        let mut graph = Graph::default();
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                GRAPH_NODE => graph.nodes.push(Node::read(field.bytes()?)?),
                5 => graph.initializers.push(Tensor::read(field.bytes()?)?),
                GRAPH_INPUT => graph.inputs.push(ValueInfo::read(field.bytes()?)?),
                GRAPH_OUTPUT => graph.outputs.push(ValueInfo::read(field.bytes()?)?),
                15 => graph.sparse.push(sparse_name(field.bytes()?)?),
                _ => {}
            }
        }
        Ok(graph)
    }

    pub(crate) fn initializer(&self, name: &str) -> Option<&Tensor<'a>> {
        self.initializers.iter().find(|tensor| tensor.name == name)
    }
}

/// A `SparseTensorProto` has the name of its `values`.
fn sparse_name(message: &[u8]) -> Result<&str, Malformed> {
    let mut values = Fields::of(message).filter(|field| !matches!(field, Ok(Field { number: 2.., .. })));
    match values.next() {
        Some(field) => Ok(Tensor::read(field?.bytes()?)?.name),
        None => Ok(""),
    }
}

impl<'a> Node<'a> {
    fn read(message: &'a [u8]) -> Result<Node<'a>, Malformed> {
        let mut node = Node { message, ..Node::default() };
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => node.inputs.push(field.text()?),
                2 => node.outputs.push(field.text()?),
                3 => node.name = field.text()?,
                4 => node.operator = field.text()?,
                5 => node.attributes.push(Attribute::read(field.bytes()?)?),
                7 => node.domain = domain(field.text()?),
                8 => node.overload = field.text()?,
                _ => {}
            }
        }
        Ok(node)
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<&Attribute<'a>> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }

    /// Whether it, or a nested graph, reads `value`.
    ///
    /// # Errors
    /// `Malformed` if a nested graph can't be parsed.
    pub(crate) fn reads(&self, value: &str) -> Result<bool, Malformed> {
        self.reads_at(value, 0)
    }

    fn reads_at(&self, value: &str, depth: usize) -> Result<bool, Malformed> {
        if self.inputs.contains(&value) {
            return Ok(true);
        }
        for attribute in &self.attributes {
            for graph in attribute.graphs()? {
                if depth == DEPTH_MAX {
                    return Err(Malformed);
                }
                if graph.outputs.iter().any(|output| output.name == value) {
                    return Ok(true);
                }
                for node in &graph.nodes {
                    if node.reads_at(value, depth + 1)? {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }
}

impl<'a> Function<'a> {
    fn read(message: &'a [u8]) -> Result<Function<'a>, Malformed> {
        let mut function = Function::default();
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => function.name = field.text()?,
                4 => function.inputs.push(field.text()?),
                5 => function.outputs.push(field.text()?),
                7 => function.nodes.push(Node::read(field.bytes()?)?),
                9 => function.opsets.push(Opset::read(field.bytes()?)?),
                10 => function.domain = domain(field.text()?),
                11 => function.defaults.push(Attribute::read(field.bytes()?)?),
                13 => function.overload = field.text()?,
                _ => {}
            }
        }
        Ok(function)
    }
}

impl<'a> ValueInfo<'a> {
    fn read(message: &'a [u8]) -> Result<ValueInfo<'a>, Malformed> {
        let mut info = ValueInfo::default();
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => info.name = field.text()?,
                2 => info.read_type(field.bytes()?)?,
                _ => {}
            }
        }
        Ok(info)
    }

    /// Reads a `TypeProto`.
    fn read_type(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => self.read_tensor_type(field.bytes()?)?,
                5 => self.map_of = map_values(field.bytes()?)?,
                // An optional value counts as its content.
                9 => {
                    for inner in Fields::of(field.bytes()?) {
                        self.read_type(inner?.bytes()?)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn read_tensor_type(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => self.element = field.integer()?,
                2 => {
                    let dims = Fields::of(field.bytes()?).map(|dim| Dim::read(dim?.bytes()?));
                    self.dims = Some(dims.collect::<Result<_, _>>()?);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The element type of the values of a `TypeProto.Map`.
fn map_values(message: &[u8]) -> Result<Option<i64>, Malformed> {
    for field in Fields::of(message) {
        let field = field?;
        if field.number == 2 {
            let mut values = ValueInfo::default();
            values.read_type(field.bytes()?)?;
            return Ok(Some(values.element).filter(|element| *element != 0));
        }
    }
    Ok(None)
}

impl<'a> Dim<'a> {
    fn read(message: &'a [u8]) -> Result<Dim<'a>, Malformed> {
        let mut dim = Dim::Free("");
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => dim = Dim::Fixed(field.integer()?),
                2 => dim = Dim::Free(field.text()?),
                _ => {}
            }
        }
        Ok(dim)
    }
}

impl<'a> Attribute<'a> {
    fn read(message: &'a [u8]) -> Result<Attribute<'a>, Malformed> {
        // The name is first in every file seen so far; lists of millions of numbers come later.
        for field in Fields::of(message) {
            let field = field?;
            if field.number == 1 {
                return Ok(Attribute { name: field.text()?, message });
            }
        }
        Err(Malformed)
    }

    fn last(&self, number: u32) -> Result<Option<Field<'a>>, Malformed> {
        let mut found = None;
        for field in Fields::of(self.message) {
            let field = field?;
            if field.number == number {
                found = Some(field);
            }
        }
        Ok(found)
    }

    /// The same under another name.
    pub(crate) fn named(self, name: &'a str) -> Attribute<'a> {
        Attribute { name, ..self }
    }

    /// The function's attribute that it refers to, inside a function.
    pub(crate) fn reference(&self) -> Result<Option<&'a str>, Malformed> {
        self.last(21)?.map(|field| field.text()).transpose()
    }

    pub(crate) fn integer(&self) -> Result<Option<i64>, Malformed> {
        self.last(3)?.map(|field| field.integer()).transpose()
    }

    pub(crate) fn text(&self) -> Result<Option<&'a [u8]>, Malformed> {
        self.last(4)?.map(|field| field.bytes()).transpose()
    }

    pub(crate) fn tensor(&self) -> Result<Option<Tensor<'a>>, Malformed> {
        self.last(5)?.map(|field| Tensor::read(field.bytes()?)).transpose()
    }

    /// The graphs of an attribute that is one, or a list of them.
    pub(crate) fn graphs(&self) -> Result<Vec<Graph<'a>>, Malformed> {
        let mut graphs = Vec::new();
        for field in Fields::of(self.message) {
            let field = field?;
            if matches!(field.number, 6 | 11) {
                graphs.push(Graph::read(field.bytes()?)?);
            }
        }
        Ok(graphs)
    }

    pub(crate) fn integers(&self) -> Result<Vec<i64>, Malformed> {
        let mut integers = Vec::new();
        for field in Fields::of(self.message) {
            let field = field?;
            if field.number == 8 {
                field.integers(&mut integers)?;
            }
        }
        Ok(integers)
    }

    pub(crate) fn floats(&self) -> Result<Vec<f32>, Malformed> {
        let mut floats = Vec::new();
        for field in Fields::of(self.message) {
            let field = field?;
            if field.number == 7 {
                field.fours(&mut floats)?;
            }
        }
        Ok(floats.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    pub(crate) fn texts(&self) -> Result<Vec<&'a [u8]>, Malformed> {
        let mut texts = Vec::new();
        for field in Fields::of(self.message) {
            let field = field?;
            if field.number == 9 {
                texts.push(field.bytes()?);
            }
        }
        Ok(texts)
    }
}

impl<'a> Tensor<'a> {
    pub(crate) fn read(message: &'a [u8]) -> Result<Tensor<'a>, Malformed> {
        let mut tensor = Tensor { message, ..Tensor::default() };
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => field.integers(&mut tensor.dims)?,
                2 => tensor.data_type = field.integer()?,
                8 => tensor.name = field.text()?,
                14 => tensor.external = field.integer()? == EXTERNAL,
                _ => {}
            }
        }
        Ok(tensor)
    }

    /// Its elements as consecutive little-endian numbers; `None` for strings and external data.
    ///
    /// # Errors
    /// `Malformed` if they are in a field of another type.
    pub(crate) fn numbers(&self) -> Result<Option<Vec<u8>>, Malformed> {
        if self.external || self.data_type == types::STRING {
            return Ok(None);
        }
        let (mut data, mut integers) = (Vec::new(), Vec::new());
        for field in Fields::of(self.message) {
            let field = field?;
            match field.number {
                4 => field.fours(&mut data)?,
                // int32_data, int64_data, uint64_data
                5 | 7 | 11 => field.integers(&mut integers)?,
                9 => data = field.bytes()?.to_vec(),
                10 => field.eights(&mut data)?,
                _ => {}
            }
        }
        if !integers.is_empty() {
            let size = element_size(self.data_type).ok_or(Malformed)?;
            data.extend(integers.iter().flat_map(|integer| integer.to_le_bytes().into_iter().take(size)));
        }
        Ok(Some(data))
    }

    /// Its elements, if they are strings.
    pub(crate) fn strings(&self) -> Result<Vec<&'a [u8]>, Malformed> {
        let fields =
            Fields::of(self.message).filter(|field| !matches!(field, Ok(field) if field.number != 6));
        fields.map(|field| field?.bytes()).collect()
    }
}

/// Size of one element in `raw_data`, in bytes.
fn element_size(data_type: i64) -> Option<usize> {
    use types::{
        BFLOAT16, BOOL, DOUBLE, FLOAT, FLOAT16, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64,
    };
    match data_type {
        BOOL | UINT8 | INT8 => Some(1),
        UINT16 | INT16 | FLOAT16 | BFLOAT16 => Some(2),
        UINT32 | INT32 | FLOAT => Some(4),
        UINT64 | INT64 | DOUBLE => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{put_bytes, put_varint};
    use super::*;

    fn tensor(data_type: i64, number: u32, packed: &[u8]) -> Vec<u8> {
        let mut message = vec![2 << 3, data_type as u8];
        put_bytes(number, packed, &mut message);
        message
    }

    #[test]
    fn every_way_to_hold_elements_becomes_the_raw_form() {
        let of = |message: &[u8]| Tensor::read(message).unwrap().numbers().unwrap().unwrap();
        let mut minus_one = Vec::new();
        put_varint(u64::MAX, &mut minus_one);
        let ones = [&[1][..], &minus_one].concat();
        assert_eq!(of(&tensor(types::INT8, 5, &ones)), [1, 0xff]);
        assert_eq!(of(&tensor(types::FLOAT16, 5, &ones)), [1, 0, 0xff, 0xff]);
        assert_eq!(of(&tensor(types::INT32, 5, &ones)).len(), 8);
        assert_eq!(of(&tensor(types::INT64, 7, &ones)).len(), 16);
        assert_eq!(of(&tensor(types::UINT32, 11, &[7])), [7, 0, 0, 0]);
        assert_eq!(of(&tensor(types::FLOAT, 4, &1f32.to_le_bytes())), 1f32.to_le_bytes());
        assert_eq!(of(&tensor(types::DOUBLE, 10, &1f64.to_le_bytes())), 1f64.to_le_bytes());
        assert_eq!(of(&tensor(types::FLOAT, 9, &1f32.to_le_bytes())), 1f32.to_le_bytes());
        let texts = tensor(types::STRING, 6, b"ab");
        assert_eq!(Tensor::read(&texts).unwrap().numbers(), Ok(None));
        assert_eq!(Tensor::read(&texts).unwrap().strings(), Ok(vec![&b"ab"[..]]));
    }

    #[test]
    fn what_is_kept_outside_of_the_file_has_no_elements_here() {
        let message = [&tensor(types::FLOAT, 8, b"w")[..], &[14 << 3, 1]].concat();
        let read = Tensor::read(&message).unwrap();
        assert!(read.external && read.name == "w" && read.numbers() == Ok(None));
    }

    #[test]
    fn a_sparse_constant_has_the_name_of_its_values() {
        let (mut sparse, mut graph) = (Vec::new(), Vec::new());
        put_bytes(1, &tensor(types::FLOAT, 8, b"w"), &mut sparse);
        put_bytes(2, &tensor(types::INT64, 8, b"indices"), &mut sparse);
        put_bytes(15, &sparse, &mut graph);
        assert_eq!(Graph::read(&graph).unwrap().sparse, ["w"]);
    }
}

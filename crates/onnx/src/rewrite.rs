//! Rewrites inputs and outputs that are not tensors as tensors: maps of fixed keys, sequences of a fixed length.
//!
//! Reads the model's file, hands on the same graph without the operators that pack tensors into maps (ZipMap) or
//! sequences (SequenceConstruct) at its end, or unpack maps (DictVectorizer) at its beginning. All other bytes of
//! the file are kept. Knows nothing of sessions.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use inferd_types::{InputSchema, OutputLabels};

use crate::file::onnx::{GRAPH_INPUT, GRAPH_NODE, GRAPH_OUTPUT, Graph, MODEL_GRAPH, Model, Node};
use crate::file::wire::{Fields, Malformed, put_bytes, put_head, put_varint};

/// Maximum size of a model that the runtime parses from memory, in bytes: protocol buffers use signed 32-bit
/// lengths.
const MODEL_MAX_BYTES: usize = i32::MAX as usize;

/// The model to load instead of the file's.
#[derive(Debug)]
pub(crate) struct Rewritten {
    pub(crate) bytes: Vec<u8>,
    /// The keys of maps that became outputs, by column.
    pub(crate) labels: Vec<OutputLabels>,
    /// The keys of maps that became inputs, by column.
    pub(crate) schemas: Vec<InputSchema>,
    /// Sequences that became several outputs: name, and the outputs' names.
    pub(crate) split: Vec<(String, Vec<String>)>,
}

/// Replacements of nodes, inputs and outputs, by their number in the file.
#[derive(Default)]
struct Changes {
    nodes: BTreeMap<usize, Vec<Vec<u8>>>,
    inputs: BTreeMap<usize, Vec<Vec<u8>>>,
    outputs: BTreeMap<usize, Vec<Vec<u8>>>,
}

/// The model `bytes` with tensors in place of maps and sequences; `None` if it has none that can be replaced.
///
/// # Errors
/// Why it can't be changed.
pub(crate) fn rewrite(bytes: &[u8], model: &Model<'_>) -> Result<Option<Rewritten>, &'static str> {
    let (changes, mut rewritten) = find(&model.graph).map_err(|Malformed| "its graph can't be read")?;
    if changes.nodes.is_empty() {
        return Ok(None);
    }
    rewritten.bytes = apply(bytes, &changes).map_err(|Malformed| "its graph can't be read")?;
    if rewritten.bytes.len() > MODEL_MAX_BYTES {
        return Err("a model of more than 2 GiB in one file can't be changed");
    }
    Ok(Some(rewritten))
}

fn find(graph: &Graph<'_>) -> Result<(Changes, Rewritten), Malformed> {
    let (labels, schemas, split) = (Vec::new(), Vec::new(), Vec::new());
    let mut rewritten = Rewritten { bytes: Vec::new(), labels, schemas, split };
    let mut changes = Changes::default();
    let mut makers = HashMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        makers.extend(node.outputs.iter().map(|output| (*output, index)));
    }
    for (position, output) in graph.outputs.iter().enumerate() {
        let Some(index) = makers.get(output.name) else { continue };
        let node = &graph.nodes[*index];
        match (node.domain, node.operator, &node.inputs[..]) {
            ("ai.onnx.ml", "ZipMap", [tensor]) => {
                let keys = keys(node, "classlabels_strings", "classlabels_int64s")?;
                if keys.is_empty() || !readers(graph, output.name)?.is_empty() {
                    continue;
                }
                changes.nodes.insert(*index, vec![identity(node.name, tensor, output.name)]);
                changes.outputs.insert(position, vec![value(output.name)]);
                let names = keys.iter().map(|key| key.as_str().into()).collect();
                rewritten.labels.push(OutputLabels { output: output.name.into(), names, file: None });
            }
            ("", "SequenceConstruct", tensors @ [_, ..]) => {
                let taken: HashSet<&str> = makers.keys().copied().chain(names(graph)).collect();
                let names: Vec<_> =
                    (0..tensors.len()).map(|part| unused(output.name, part, &taken)).collect();
                let mut nodes: Vec<_> =
                    tensors.iter().zip(&names).map(|(tensor, name)| identity("", tensor, name)).collect();
                if !readers(graph, output.name)?.is_empty() {
                    nodes.push(node.message.to_vec());
                }
                changes.nodes.insert(*index, nodes);
                changes.outputs.insert(position, names.iter().map(|name| value(name)).collect());
                rewritten.split.push((output.name.into(), names));
            }
            _ => {}
        }
    }
    for (position, input) in graph.inputs.iter().enumerate() {
        let Some(element) = input.map_of else { continue };
        let readers = readers(graph, input.name)?;
        let [index] = readers[..] else { continue };
        let node = &graph.nodes[index];
        let keys = keys(node, "string_vocabulary", "int64_vocabulary")?;
        if (node.domain, node.operator) != ("ai.onnx.ml", "DictVectorizer") || keys.is_empty() {
            continue;
        }
        changes
            .nodes
            .insert(index, vec![identity(node.name, input.name, node.outputs.first().ok_or(Malformed)?)]);
        changes.inputs.insert(position, vec![matrix(input.name, element, keys.len())]);
        let columns = keys.iter().map(|key| key.as_str().into()).collect();
        rewritten.schemas.push(InputSchema {
            input: input.name.into(),
            columns,
            missing: true,
            largest: None,
        });
    }
    Ok((changes, rewritten))
}

/// The keys of `node`, which are texts or integers.
fn keys(node: &Node<'_>, texts: &str, integers: &str) -> Result<Vec<String>, Malformed> {
    let mut keys = Vec::new();
    if let Some(attribute) = node.attribute(texts) {
        keys.extend(attribute.texts()?.iter().map(|text| String::from_utf8_lossy(text).into_owned()));
    }
    if let Some(attribute) = node.attribute(integers).filter(|_| keys.is_empty()) {
        keys.extend(attribute.integers()?.iter().map(i64::to_string));
    }
    Ok(keys)
}

/// The nodes that read `name`, also in nested graphs.
fn readers(graph: &Graph<'_>, name: &str) -> Result<Vec<usize>, Malformed> {
    let mut found = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        if node.reads(name)? {
            found.push(index);
        }
    }
    Ok(found)
}

fn names<'g>(graph: &'g Graph<'_>) -> impl Iterator<Item = &'g str> {
    let inputs = graph.inputs.iter().map(|input| input.name);
    inputs.chain(graph.initializers.iter().map(|tensor| tensor.name))
}

/// An unused name for part `part` of `name`.
fn unused(name: &str, part: usize, taken: &HashSet<&str>) -> String {
    let mut found = format!("{name}_{part}");
    while taken.contains(&*found) {
        found.push('_');
    }
    found
}

/// A `NodeProto` that copies `input` to `output`.
fn identity(name: &str, input: &str, output: &str) -> Vec<u8> {
    let mut node = Vec::new();
    for (number, text) in [(1, input), (2, output), (3, name), (4, "Identity")] {
        put_bytes(number, text.as_bytes(), &mut node);
    }
    node
}

/// A `ValueInfoProto` whose type the runtime infers.
fn value(name: &str) -> Vec<u8> {
    let mut info = Vec::new();
    put_bytes(1, name.as_bytes(), &mut info);
    info
}

/// A `ValueInfoProto` of a tensor with any number of rows.
fn matrix(name: &str, element: i64, columns: usize) -> Vec<u8> {
    let (mut size, mut shape, mut tensor, mut kind) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    put_number(1, columns as u64, &mut size);
    put_bytes(1, &[], &mut shape);
    put_bytes(1, &size, &mut shape);
    put_number(1, element as u64, &mut tensor);
    put_bytes(2, &shape, &mut tensor);
    put_bytes(1, &tensor, &mut kind);
    let mut info = value(name);
    put_bytes(2, &kind, &mut info);
    info
}

fn put_number(number: u32, value: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3, out);
    put_varint(value, out);
}

/// The model `bytes` with `changes`. Its weights are copied once.
fn apply(bytes: &[u8], changes: &Changes) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::with_capacity(bytes.len() + 1024);
    for field in Fields::of(bytes) {
        let field = field?;
        if field.number != MODEL_GRAPH {
            out.extend_from_slice(field.whole);
            continue;
        }
        let parts = graph_parts(field.bytes()?, changes)?;
        put_head(MODEL_GRAPH, parts.iter().map(|part| part.len()).sum(), &mut out);
        parts.iter().for_each(|part| out.extend_from_slice(part));
    }
    Ok(out)
}

fn graph_parts<'a>(graph: &'a [u8], changes: &Changes) -> Result<Vec<Cow<'a, [u8]>>, Malformed> {
    let (mut parts, mut counts) = (Vec::new(), [0; 3]);
    for field in Fields::of(graph) {
        let field = field?;
        let (count, replaced) = match field.number {
            GRAPH_NODE => (&mut counts[0], &changes.nodes),
            GRAPH_INPUT => (&mut counts[1], &changes.inputs),
            GRAPH_OUTPUT => (&mut counts[2], &changes.outputs),
            _ => {
                parts.push(Cow::Borrowed(field.whole));
                continue;
            }
        };
        match replaced.get(count) {
            None => parts.push(Cow::Borrowed(field.whole)),
            Some(messages) => parts.extend(messages.iter().map(|message| {
                let mut part = Vec::new();
                put_bytes(field.number, message, &mut part);
                Cow::Owned(part)
            })),
        }
        *count += 1;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn models() -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files
            .filter(|path| path.extension().is_some_and(|e| e == "onnx"))
            .map(|path| std::fs::read(path).unwrap())
            .collect()
    }

    fn try_to(bytes: &[u8]) -> Option<Rewritten> {
        rewrite(bytes, &Model::read(bytes).ok()?).ok().flatten()
    }

    #[test]
    fn what_is_not_changed_stays_as_it_is_to_the_byte() {
        for model in models() {
            assert_eq!(apply(&model, &Changes::default()), Ok(model));
        }
    }

    #[test]
    fn a_changed_model_has_nothing_left_to_change() {
        let changed: Vec<_> = models().iter().filter_map(|model| try_to(model)).collect();
        assert!(changed.len() >= 6, "{}", changed.len());
        for model in changed {
            assert!(try_to(&model.bytes).is_none());
        }
    }

    #[test]
    fn files_that_are_broken_anywhere_are_no_harm() {
        for model in models() {
            for at in 0..model.len() {
                try_to(&model[..at]);
                for bit in [1, 0x80] {
                    let mut broken = model.clone();
                    broken[at] ^= bit;
                    try_to(&broken);
                }
            }
        }
    }
}

//! Models from a few lines of text, for tests.
//!
//! `x[n,4] z[n] -> y, t` and then statements, on lines of their own or apart by `;`:
//!
//! - `w: int64 1,2,3` a list; `w: int64 scalar 1`; `w: bool scalar 1`; `w: float 1,2` a list; `w: float[2,3]` ones;
//! - `a, b = Operator(x, , y) axis=-1 perm=1,0 mode="linear" value=w` with `Domain.Operator` for others than ONNX's: `ml`
//!   and `ms`; a list of one integer is `axes=1,`;
//! - a graph as an attribute: `body={s, e -> t, m: t = Identity(s); m = Mul(e, s)}`.

use crate::file::wire::{put_bytes, put_varint};

fn number(field: u32, value: i64, out: &mut Vec<u8>) {
    put_varint(u64::from(field) << 3, out);
    put_varint(value as u64, out);
}

/// The parts of `text` between `separator`, outside of brackets.
fn parts(text: &str, separator: &[char]) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for letter in text.chars() {
        depth += match letter {
            '(' | '{' | '[' => 1,
            ')' | '}' | ']' => -1,
            _ => 0,
        };
        match separator.contains(&letter) && depth == 0 {
            true => parts.push(String::new()),
            false => parts.last_mut().unwrap().push(letter),
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).collect()
}

fn named(name: &str) -> Vec<u8> {
    let mut info = Vec::new();
    put_bytes(1, name.as_bytes(), &mut info);
    info
}

/// `x[n,4]`: a `ValueInfoProto`.
fn input(text: &str) -> Vec<u8> {
    let Some((name, dims)) = text.split_once('[') else { return named(text) };
    let (mut shape, mut tensor, mut kind) = (Vec::new(), Vec::new(), Vec::new());
    for dim in dims.trim_end_matches(']').split(',').filter(|dim| !dim.is_empty()) {
        let mut size = Vec::new();
        match dim.parse() {
            Ok(fixed) => number(1, fixed, &mut size),
            Err(_) => put_bytes(2, dim.as_bytes(), &mut size),
        }
        put_bytes(1, &size, &mut shape);
    }
    number(1, 1, &mut tensor);
    put_bytes(2, &shape, &mut tensor);
    put_bytes(1, &tensor, &mut kind);
    let mut info = named(name);
    put_bytes(2, &kind, &mut info);
    info
}

/// `int64 1,2`: a `TensorProto`.
fn tensor(name: &str, text: &str) -> Vec<u8> {
    let mut message = Vec::new();
    put_bytes(8, name.as_bytes(), &mut message);
    let text = text.trim();
    if let Some(shape) = text.strip_prefix("float[") {
        let dims: Vec<i64> =
            shape.trim_end_matches(']').split(',').filter_map(|dim| dim.parse().ok()).collect();
        dims.iter().for_each(|dim| number(1, *dim, &mut message));
        number(2, 1, &mut message);
        let count = dims.iter().product::<i64>() as usize;
        put_bytes(9, &1f32.to_le_bytes().repeat(count), &mut message);
        return message;
    }
    let (kind, values) = text.split_once(' ').unwrap_or((text, ""));
    let (scalar, values) = values.strip_prefix("scalar ").map_or((false, values), |values| (true, values));
    let values: Vec<&str> = values.split(',').map(str::trim).filter(|value| !value.is_empty()).collect();
    if !scalar {
        number(1, values.len() as i64, &mut message);
    }
    let mut raw = Vec::new();
    for value in values {
        match kind {
            "int64" => raw.extend(value.parse::<i64>().unwrap().to_le_bytes()),
            "bool" => raw.push(u8::from(value == "1")),
            "float" => raw.extend(value.parse::<f32>().unwrap().to_le_bytes()),
            other => panic!("no type {other}"),
        }
    }
    number(
        2,
        match kind {
            "int64" => 7,
            "bool" => 9,
            _ => 1,
        },
        &mut message,
    );
    put_bytes(9, &raw, &mut message);
    message
}

fn attribute(text: &str) -> Vec<u8> {
    let (name, value) = text.split_once('=').unwrap();
    let mut message = named(name);
    if let Some(reference) = value.strip_prefix('@') {
        put_bytes(21, reference.as_bytes(), &mut message);
    } else if value.starts_with('{') {
        let (ends, body) = value[1..value.len() - 1].split_once(':').unwrap();
        put_bytes(6, &graph(ends, body), &mut message);
    } else if let Some(constant) = value.strip_prefix('<') {
        put_bytes(5, &tensor("", constant.trim_end_matches('>')), &mut message);
    } else if let Some(floats) = value.strip_prefix('f') {
        for float in floats.split(',') {
            message.push(7 << 3 | 5);
            message.extend(float.parse::<f32>().unwrap().to_le_bytes());
        }
    } else if value.starts_with('"') {
        let texts: Vec<_> = value.split('|').map(|text| text.trim_matches('"')).collect();
        let field = if texts.len() > 1 { 9 } else { 4 };
        texts.iter().for_each(|text| put_bytes(field, text.as_bytes(), &mut message));
    } else if value.contains(',') {
        value
            .split(',')
            .filter(|one| !one.is_empty())
            .for_each(|one| number(8, one.parse().unwrap(), &mut message));
    } else {
        number(3, value.parse().unwrap(), &mut message);
    }
    message
}

fn node(text: &str) -> Vec<u8> {
    let (outputs, call) = text.split_once('=').unwrap();
    let (operator, rest) = call.split_once('(').unwrap();
    let (inputs, attributes) = rest.split_once(')').unwrap();
    let (domain, operator) = match operator.trim().split_once('.') {
        Some(("ml", operator)) => ("ai.onnx.ml", operator),
        Some(("ms", operator)) => ("com.microsoft", operator),
        Some(("own", operator)) => ("own", operator),
        _ => ("", operator.trim()),
    };
    let mut message = Vec::new();
    if !inputs.trim().is_empty() {
        inputs.split(',').for_each(|name| put_bytes(1, name.trim().as_bytes(), &mut message));
    }
    outputs.split(',').for_each(|name| put_bytes(2, name.trim().as_bytes(), &mut message));
    put_bytes(4, operator.as_bytes(), &mut message);
    put_bytes(7, domain.as_bytes(), &mut message);
    for one in parts(attributes.trim(), &[' ']).iter().filter(|one| !one.is_empty()) {
        put_bytes(5, &attribute(one), &mut message);
    }
    message
}

/// A `GraphProto`.
fn graph(ends: &str, body: &str) -> Vec<u8> {
    let (inputs, outputs) = ends.split_once("->").unwrap();
    let mut message = Vec::new();
    for statement in parts(body, &['\n', ';']).iter().filter(|statement| !statement.is_empty()) {
        match statement.split_once(": ").filter(|(name, _)| !name.contains(['(', '='])) {
            Some((name, value)) => put_bytes(5, &tensor(name, value), &mut message),
            None => put_bytes(1, &node(statement), &mut message),
        }
    }
    for one in parts(inputs.trim(), &[' ', ',']).iter().filter(|one| !one.is_empty()) {
        put_bytes(11, &input(one), &mut message);
    }
    for one in outputs.split(',').map(str::trim) {
        put_bytes(12, &named(one), &mut message);
    }
    message
}

fn opsets(field: u32, opset: i64, message: &mut Vec<u8>) {
    for (domain, version) in [("", opset), ("ai.onnx.ml", 3), ("com.microsoft", 1), ("own", 1)] {
        let mut import = Vec::new();
        put_bytes(1, domain.as_bytes(), &mut import);
        number(2, version, &mut import);
        put_bytes(field, &import, message);
    }
}

/// A model of `text`, whose first line that is not empty has its inputs and outputs.
pub(super) fn model(opset: i64, text: &str) -> Vec<u8> {
    let (ends, body) = text.trim().split_once(['\n', ';']).unwrap();
    let mut message = Vec::new();
    put_bytes(7, &graph(ends, body), &mut message);
    opsets(8, opset, &mut message);
    message
}

/// The same with a function `own.NAME`, given as `NAME(a, b) -> c: statements`.
pub(super) fn with_function(model: &[u8], opset: i64, text: &str) -> Vec<u8> {
    let (ends, body) = text.split_once(':').unwrap();
    let (head, outputs) = ends.split_once("->").unwrap();
    let (name, inputs) = head.trim().trim_end_matches(')').split_once('(').unwrap();
    let mut function = named(name);
    inputs.split(',').for_each(|input| put_bytes(4, input.trim().as_bytes(), &mut function));
    outputs.split(',').for_each(|output| put_bytes(5, output.trim().as_bytes(), &mut function));
    for statement in parts(body, &['\n', ';']).iter().filter(|statement| !statement.is_empty()) {
        put_bytes(7, &node(statement), &mut function);
    }
    opsets(9, opset, &mut function);
    put_bytes(10, b"own", &mut function);
    let mut message = model.to_vec();
    put_bytes(25, &function, &mut message);
    message
}

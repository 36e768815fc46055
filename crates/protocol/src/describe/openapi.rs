//! What can be asked of a server, in the words of OpenAPI 3.1.
//!
//! Reads signatures, writes JSON. Knows nothing of which requests a client prefers.

use inferd_types::{DataType, Signature, TensorSpec};
use serde_json::{Map, Value, json};

/// The description of a server of `version` with these models.
pub fn openapi_json<'a>(version: &str, models: impl Iterator<Item = (&'a str, &'a Signature)>) -> Vec<u8> {
    let mut paths = Map::new();
    for (path, summary) in [
        ("/v2", "The server"),
        ("/v2/health/live", "Whether the server runs"),
        ("/v2/health/ready", "Whether the server takes requests"),
        ("/v1/models", "Names of models"),
    ] {
        paths.insert(path.to_owned(), json!({"get": operation(summary, None, &json!({}))}));
    }
    for (name, signature) in models {
        let (inputs, outputs) = (&signature.inputs[..], &signature.outputs[..]);
        let row = request_of(signature, false);
        let plain = one_of([&row[..], &request_of(signature, true)].concat());
        let answer = json!({"oneOf": [value_of(outputs, false), value_of(outputs, true)]});
        let tensors = tensors_of("inputs", inputs);
        let instances = rows_of("instances", one_of(row));
        let name = escaped(name);
        let mut add = |path: String, item: Value| paths.insert(path, item);
        add(format!("/models/{name}"), json!({"post": operation("Plain values", Some(&plain), &answer)}));
        add(
            format!("/v2/models/{name}/infer"),
            json!({"post": operation("Tensors", Some(&tensors), &tensors_of("outputs", outputs))}),
        );
        add(format!("/v2/models/{name}"), json!({"get": operation("Inputs and outputs", None, &json!({}))}));
        add(
            format!("/v1/models/{name}:predict"),
            json!({"post": operation("Rows", Some(&instances), &rows_of("predictions", value_of(outputs, false)))}),
        );
    }
    let whole = json!({
        "openapi": "3.1.0",
        "info": {"title": "inferd", "version": version},
        "paths": paths,
    });
    whole.to_string().into_bytes()
}

/// A name as it stands in a path; braces would be a parameter there.
fn escaped(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F").replace('{', "%7B").replace('}', "%7D")
}

fn operation(summary: &str, request: Option<&Value>, answer: &Value) -> Value {
    let failed = json!({
        "description": "What went wrong",
        "content": {"application/json": {"schema": {
            "type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"],
        }}},
    });
    let mut operation = json!({
        "summary": summary,
        "responses": {
            "200": {"description": "The answer", "content": {"application/json": {"schema": answer}}},
            "default": failed,
        },
    });
    if let Some(schema) = request {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    operation
}

/// The plain value of one row, or of rows: that of the only tensor, or an object.
fn value_of(specs: &[TensorSpec], rows: bool) -> Value {
    match specs {
        [only] => nested(only, rows),
        _ => object_of(specs, rows, |_| true),
    }
}

/// The forms that one row, or rows, may have in a request: an input with a default may be left out of an object, and the
/// only one without may stand by itself.
fn request_of(signature: &Signature, rows: bool) -> Vec<Value> {
    let lone = signature.lone_input().map(|only| nested(only, rows));
    let object = (signature.inputs.len() != 1)
        .then(|| object_of(&signature.inputs, rows, |index| signature.default_of(index).is_none()));
    lone.into_iter().chain(object).collect()
}

fn one_of(mut forms: Vec<Value>) -> Value {
    if forms.len() == 1 { forms.remove(0) } else { json!({"oneOf": forms}) }
}

fn object_of(specs: &[TensorSpec], rows: bool, needed: impl Fn(usize) -> bool) -> Value {
    let properties: Map<_, _> =
        specs.iter().map(|spec| (spec.name.to_string(), nested(spec, rows))).collect();
    let names: Vec<_> =
        specs.iter().enumerate().filter(|(index, _)| needed(*index)).map(|(_, spec)| &*spec.name).collect();
    json!({"type": "object", "properties": properties, "required": names})
}

fn nested(spec: &TensorSpec, rows: bool) -> Value {
    let dims = if rows { &spec.shape[..] } else { spec.shape.get(1..).unwrap_or_default() };
    dims.iter().rev().fold(element(spec.datatype), |items, dim| match dim {
        0.. => json!({"type": "array", "items": items, "minItems": dim, "maxItems": dim}),
        _ => json!({"type": "array", "items": items}),
    })
}

fn element(datatype: DataType) -> Value {
    match datatype {
        DataType::Bool => json!({"type": "boolean"}),
        DataType::Fp16 | DataType::Fp32 | DataType::Fp64 | DataType::Bf16 => {
            json!({"type": ["number", "null"]})
        }
        // Text, or any JSON for a model that takes that.
        DataType::Bytes => json!({}),
        _ => json!({"type": "integer"}),
    }
}

fn rows_of(member: &str, row: Value) -> Value {
    let rows = json!({"type": "array", "items": row});
    json!({"type": "object", "properties": {member: rows}, "required": [member]})
}

fn tensors_of(member: &str, specs: &[TensorSpec]) -> Value {
    let tensor = |spec: &TensorSpec| {
        json!({
            "type": "object",
            "properties": {
                "name": {"const": &*spec.name},
                "datatype": {"const": spec.datatype.name()},
                "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                "data": {"type": "array"},
            },
            "required": ["name", "datatype", "shape"],
        })
    };
    let items: Vec<_> = specs.iter().map(tensor).collect();
    json!({
        "type": "object",
        "properties": {member: {"type": "array", "items": {"anyOf": items}}},
        "required": [member],
    })
}

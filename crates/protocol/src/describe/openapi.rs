//! The OpenAPI 3.1 description of a server.
//!
//! Reads signatures, hands on JSON: schemas, and examples that are valid as they are. Does not know which form a
//! client prefers.

use inferd_types::{DataType, Input, Signature, TensorSpec, is_float, listed};
use serde_json::{Map, Value, json};

use super::example;

const ABOUT: &str = "Inference with each model, in each of its forms. `/models/NAME` takes plain values, `/v2` is the Open \
                     Inference Protocol, `/v1` KServe V1. A path with `/versions/N` after the model's name \
                     selects one version.";
const LARGE: &str = "A row is too large for an example.";
const SERVER: &str = "server";

/// The description of a server of `version` with these models.
pub fn openapi_json<'a>(version: &str, models: impl Iterator<Item = (&'a str, &'a Signature)>) -> Vec<u8> {
    let mut paths = Map::new();
    let mut tags = Vec::new();
    for (name, signature) in models {
        tags.push(json!({"name": name, "description": described(signature)}));
        model(&mut paths, name, signature);
    }
    tags.push(json!({"name": SERVER, "description": "The server as a whole"}));
    for (path, id, summary, example) in [
        ("/v2", "server", "The server's name, version and extensions", None),
        ("/v2/health/live", "live", "Liveness", None),
        ("/v2/health/ready", "ready", "Whether every model takes requests", None),
        ("/v2/models/stats", "statistics", "Statistics of every model", None),
        ("/v1/models", "models", "Names of models", Some(json!({"models": ["NAME"]}))),
    ] {
        let answer =
            if path.contains("health") { None } else { Some(answer(&json!({"type": "object"}), example)) };
        paths.insert(path.to_owned(), json!({"get": operation(SERVER, id, summary, None, answer)}));
    }
    let whole = json!({
        "openapi": "3.1.0",
        "info": {"title": "inferd", "version": version, "description": ABOUT},
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": {"Error": {
                "type": "object",
                "properties": {"error": {"type": "string", "examples": ["what failed, and what to do"]}},
                "required": ["error"],
            }},
            "responses": failures(),
            "parameters": {"Timeout": {
                "name": "Inferd-Timeout-Ms",
                "in": "header",
                "description": "Timeout in milliseconds, after which the response is 504 and a queued request is not run.",
                "schema": {"type": "integer", "minimum": 1},
            }},
        },
    });
    whole.to_string().into_bytes()
}

/// Every form of inference request to one model.
fn model(paths: &mut Map<String, Value>, name: &str, signature: &Signature) {
    let (inputs, outputs) = (&inputs_of(signature)[..], &outputs_of(signature)[..]);
    let path = escaped(name);
    let at = |kind: &str| format!("{kind}_{name}");
    if signature.decoupled {
        streams(paths, name, signature);
    } else {
        let result = json!({"oneOf": [value_of(outputs, false), value_of(outputs, true)]});
        let result = answer(&result, small(outputs, || example::plain(outputs, None)));
        let mut item =
            operation(name, &at("plain"), "Infer from plain values", Some(plain(signature)), Some(result));
        item["parameters"] = timeout();
        paths.insert(format!("/models/{path}"), json!({"post": item}));

        let request = tensors_of("inputs", &signature.inputs);
        let sent = small(inputs, || json!({"inputs": example::tensors(inputs)}));
        let got = small(
            outputs,
            || json!({"model_name": name, "model_version": "1", "outputs": example::tensors(outputs)}),
        );
        let result = answer(&tensors_of("outputs", &signature.outputs), got);
        let mut item =
            operation(name, &at("infer"), "Infer from tensors", Some(body(&request, sent)), Some(result));
        item["parameters"] = timeout();
        paths.insert(format!("/v2/models/{path}/infer"), json!({"post": item}));

        let sent = small(inputs, || json!({"instances": [example::plain(inputs, None)]}));
        let got = small(outputs, || json!({"predictions": [example::plain(outputs, None)]}));
        let result = answer(&rows_of("predictions", value_of(outputs, false)), got);
        let request = body(&rows_of("instances", one_of(request_of(signature, false))), sent);
        let mut item = operation(name, &at("predict"), "Infer from rows", Some(request), Some(result));
        item["parameters"] = timeout();
        paths.insert(format!("/v1/models/{path}:predict"), json!({"post": item}));
    }
    let object = json!({"type": "object"});
    for (end, kind, summary, gives) in [
        ("", "metadata", "Inputs, outputs and versions", Some(answer(&object, None))),
        ("/ready", "modelReady", "Whether the model takes requests", None),
        ("/config", "config", "Configuration in Triton's format", Some(answer(&object, None))),
        ("/stats", "modelStatistics", "Statistics of the model", Some(answer(&object, None))),
    ] {
        let item = operation(name, &at(kind), summary, None, gives);
        paths.insert(format!("/v2/models/{path}{end}"), json!({"get": item}));
    }
}

/// The inference request to a model that streams.
fn streams(paths: &mut Map<String, Value>, name: &str, signature: &Signature) {
    let inputs = &inputs_of(signature)[..];
    let properties: Map<_, _> =
        signature.inputs.iter().map(|spec| (spec.name.to_string(), json!({}))).collect();
    let request = json!({"type": "object", "properties": properties, "required": needed(signature)});
    // A scalar or a flat list, or nested as deep as its shape.
    let value = |input: &Input<'_>| {
        let rows = (input.spec.shape.len() > 2).then_some(1);
        (input.spec.name.to_string(), example::plain(std::slice::from_ref(input), rows))
    };
    let sent = small(inputs, || inputs.iter().map(value).collect::<Map<_, _>>().into());
    let event = json!({
        "description": "An event for each response; one with `error` if it fails after the first",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    });
    let summary = "Stream the responses";
    let id = format!("generateStream_{name}");
    let mut item = operation(name, &id, summary, Some(body(&request, sent)), Some(event));
    item["parameters"] = timeout();
    paths.insert(format!("/v2/models/{}/generate_stream", escaped(name)), json!({"post": item}));
}

/// A name as part of a path; braces would be a parameter there.
fn escaped(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F").replace('{', "%7B").replace('}', "%7D")
}

fn operation(tag: &str, id: &str, summary: &str, request: Option<Value>, answer: Option<Value>) -> Value {
    let mut responses = json!({"200": answer.unwrap_or_else(|| json!({"description": "Yes"}))});
    let may_fail: &[&str] = match (tag == SERVER, request.is_some()) {
        (_, true) => &["400", "503", "504"],
        (true, false) => &[],
        (false, false) => &["404"],
    };
    for status in may_fail {
        responses[status] = json!({"$ref": format!("#/components/responses/{status}")});
    }
    responses["default"] = json!({"$ref": "#/components/responses/default"});
    let mut operation = json!({"tags": [tag], "operationId": id, "summary": summary, "responses": responses});
    if let Some(request) = request {
        operation["requestBody"] = request;
    }
    operation
}

fn timeout() -> Value {
    json!([{"$ref": "#/components/parameters/Timeout"}])
}

fn failures() -> Value {
    let failed = |description: &str| {
        json!({
            "description": description,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        })
    };
    let mut later = failed("Overloaded, starting or shutting down; the request was not run");
    later["headers"] = json!({"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}});
    json!({
        "400": failed("The request is invalid, or the model refused it"),
        "404": failed("No such model or version"),
        "503": later,
        "504": failed("The caller's timeout passed"),
        "default": failed("Anything else: 404, 413, 500 and so on"),
    })
}

fn answer(schema: &Value, example: Option<Value>) -> Value {
    json!({"description": "The response", "content": {"application/json": media(schema, example)}})
}

fn body(schema: &Value, example: Option<Value>) -> Value {
    let about = if example.is_none() { LARGE } else { "" };
    json!({"required": true, "description": about, "content": {"application/json": media(schema, example)}})
}

/// A value that is too large to be shown is an empty object: otherwise the page would generate one from the schema,
/// element by element.
fn media(schema: &Value, example: Option<Value>) -> Value {
    json!({"schema": schema, "example": example.unwrap_or_else(|| json!({}))})
}

/// An example, if it is small.
fn small(tensors: &[Input<'_>], example: impl FnOnce() -> Value) -> Option<Value> {
    example::fits(tensors).then(example)
}

fn inputs_of(signature: &Signature) -> Vec<Input<'_>> {
    (0..signature.inputs.len()).map(|index| signature.input(index)).collect()
}

/// Outputs have no schemas.
fn outputs_of(signature: &Signature) -> Vec<Input<'_>> {
    signature.outputs.iter().map(|spec| Input { spec, schema: None }).collect()
}

/// The matrix whose rows may be objects by column, if its columns are few enough to be listed.
fn columns_of(signature: &Signature) -> Option<Input<'_>> {
    let only = signature.lone_input()?;
    let input = inputs_of(signature).into_iter().find(|input| input.spec.name == only.name)?;
    (!input.columns().is_empty() && example::fits(&[input])).then_some(input)
}

/// `x: FP32[?, 4] → y: INT64[?]`.
fn described(signature: &Signature) -> String {
    let all = |specs: &[TensorSpec]| {
        let one = |spec: &TensorSpec| {
            let dims: Vec<_> = spec
                .shape
                .iter()
                .map(|dim| if *dim < 0 { "?".to_owned() } else { dim.to_string() })
                .collect();
            format!("`{}: {}[{}]`", spec.name, spec.datatype.name(), dims.join(", "))
        };
        specs.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    format!("{} → {}", all(&signature.inputs), all(&signature.outputs))
}

/// The body of plain values: JSON, and for BYTES, forms and files.
fn plain(signature: &Signature) -> Value {
    let inputs = &inputs_of(signature)[..];
    let schema = one_of([request_of(signature, false), request_of(signature, true)].concat());
    let (about, json) = if example::fits(inputs) {
        let mut examples = json!({
            "a row": {"value": example::plain(inputs, None)},
            "rows": {"value": example::plain(inputs, Some(2))},
        });
        if let Some(matrix) = columns_of(signature) {
            examples["a row by column"] = json!({"value": example::columns(matrix)});
        }
        ("", json!({"schema": schema, "examples": examples}))
    } else {
        (LARGE, media(&schema, None))
    };
    let mut content = Map::from_iter([("application/json".to_owned(), json)]);
    if signature.inputs.iter().any(|spec| spec.datatype == DataType::Bytes) {
        content.insert("multipart/form-data".to_owned(), form(signature));
    }
    if signature.lone_input().is_some_and(|only| only.datatype == DataType::Bytes) {
        let file = json!({"schema": {"type": "string", "format": "binary"}});
        content.insert("application/octet-stream".to_owned(), file);
        let text = json!({"schema": {"type": "string"}, "example": "text"});
        content.insert("text/plain".to_owned(), text);
    }
    json!({"required": true, "description": about, "content": content})
}

/// One row as a form: a file for each BYTES input, JSON for the others.
fn form(signature: &Signature) -> Value {
    let mut properties = Map::new();
    let mut encoding = Map::new();
    for input in inputs_of(signature) {
        let name = input.spec.name.to_string();
        if input.spec.datatype == DataType::Bytes {
            properties.insert(name, json!({"type": "string", "format": "binary"}));
        } else {
            properties.insert(name.clone(), nested(input, false));
            encoding.insert(name, json!({"contentType": "application/json"}));
        }
    }
    json!({
        "schema": {"type": "object", "properties": properties, "required": needed(signature)},
        "encoding": encoding,
    })
}

/// The plain value of one row, or of rows: that of the only tensor, or an object.
fn value_of(tensors: &[Input<'_>], rows: bool) -> Value {
    match tensors {
        [only] => nested(*only, rows),
        _ => object_of(tensors, rows, tensors.iter().map(|tensor| &*tensor.spec.name).collect()),
    }
}

/// The forms of one row, or of rows, in a request: an object may omit optional inputs, and the only required one
/// may be sent by itself. A row may be an object by column.
fn request_of(signature: &Signature, rows: bool) -> Vec<Value> {
    let inputs = &inputs_of(signature)[..];
    let lone =
        signature.lone_input().and_then(|only| inputs.iter().find(|input| input.spec.name == only.name));
    let mut forms: Vec<Value> = lone.map(|only| nested(*only, rows)).into_iter().collect();
    if inputs.len() != 1 {
        forms.push(object_of(inputs, rows, needed(signature)));
    }
    let by_name = match columns_of(signature) {
        Some(matrix) => Some(by_column(matrix)),
        None => (rows && lone.is_none()).then(|| object_of(inputs, false, needed(signature))),
    };
    forms.extend(by_name.map(|row| if rows { json!({"type": "array", "items": row}) } else { row }));
    forms
}

fn by_column(matrix: Input<'_>) -> Value {
    let names = matrix.columns();
    let properties: Map<_, _> = names.iter().map(|name| (name.to_string(), element(matrix))).collect();
    json!({"type": "object", "properties": properties, "required": names})
}

/// Names of the required inputs.
fn needed(signature: &Signature) -> Vec<&str> {
    let inputs = signature.inputs.iter().enumerate();
    inputs.filter(|(index, _)| signature.default_of(*index).is_none()).map(|(_, spec)| &*spec.name).collect()
}

fn one_of(mut forms: Vec<Value>) -> Value {
    if forms.len() == 1 { forms.remove(0) } else { json!({"oneOf": forms}) }
}

fn object_of(tensors: &[Input<'_>], rows: bool, needed: Vec<&str>) -> Value {
    let properties: Map<_, _> =
        tensors.iter().map(|tensor| (tensor.spec.name.to_string(), nested(*tensor, rows))).collect();
    json!({"type": "object", "properties": properties, "required": needed})
}

fn nested(tensor: Input<'_>, rows: bool) -> Value {
    let shape = &tensor.spec.shape;
    let dims = if rows { &shape[..] } else { shape.get(1..).unwrap_or_default() };
    let mut value = dims.iter().rev().fold(element(tensor), |items, dim| match dim {
        0.. => json!({"type": "array", "items": items, "minItems": dim, "maxItems": dim}),
        _ => json!({"type": "array", "items": items}),
    });
    let columns = tensor.columns();
    if !columns.is_empty() {
        let list = listed(columns.iter().map(|name| &**name));
        value["description"] = json!(format!("Columns, in this order: {list}"));
    }
    value
}

fn element(tensor: Input<'_>) -> Value {
    let nullable = |name: &str| match tensor.schema {
        Some(schema) if !schema.missing => json!({"type": name}),
        _ => json!({"type": [name, "null"]}),
    };
    match tensor.spec.datatype {
        DataType::Bool => json!({"type": "boolean"}),
        datatype if is_float(datatype) => nullable("number"),
        DataType::Bytes if tensor.schema.is_some() => nullable("string"),
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
                "parameters": {"type": "object"},
            },
            "required": ["name", "datatype", "shape"],
        })
    };
    let items: Vec<_> = specs.iter().map(tensor).collect();
    json!({
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "Repeated in the response"},
            "parameters": {"type": "object"},
            member: {"type": "array", "items": {"anyOf": items}},
        },
        "required": [member],
    })
}

//! What can be asked of a server, in the words of OpenAPI 3.1.
//!
//! Reads signatures, writes JSON: schemas, and examples that may be sent as they are. Knows nothing of which requests a
//! client prefers.

use inferd_types::{DataType, Signature, TensorSpec};
use serde_json::{Map, Value, json};

use super::example;

const ABOUT: &str = "A path for each way to ask each model. `/models/NAME` takes plain values, `/v2` is the Open \
                     Inference Protocol, `/v1` KServe's first one. A path with `/versions/N` behind the model's name \
                     asks one version.";
const LARGE: &str = "A row is too large to be written out here.";
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
        ("/v2/health/live", "live", "Whether the server runs", None),
        ("/v2/health/ready", "ready", "Whether every model takes requests", None),
        ("/v2/models/stats", "statistics", "What every model did so far", None),
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
                "description": "Milliseconds after which the answer is of no use: 504 then, and no work is done in vain.",
                "schema": {"type": "integer", "minimum": 1},
            }},
        },
    });
    whole.to_string().into_bytes()
}

/// Every way to ask one model.
fn model(paths: &mut Map<String, Value>, name: &str, signature: &Signature) {
    let (inputs, outputs) = (&signature.inputs[..], &signature.outputs[..]);
    let path = escaped(name);
    let at = |kind: &str| format!("{kind}_{name}");
    if signature.decoupled {
        streams(paths, name, signature);
    } else {
        let result = json!({"oneOf": [value_of(outputs, false), value_of(outputs, true)]});
        let result = answer(&result, small(outputs, || example::plain(outputs, None)));
        let mut item =
            operation(name, &at("plain"), "Ask with plain values", Some(plain(signature)), Some(result));
        item["parameters"] = timeout();
        paths.insert(format!("/models/{path}"), json!({"post": item}));

        let request = tensors_of("inputs", inputs);
        let sent = small(inputs, || json!({"inputs": example::tensors(inputs)}));
        let got = small(
            outputs,
            || json!({"model_name": name, "model_version": "1", "outputs": example::tensors(outputs)}),
        );
        let result = answer(&tensors_of("outputs", outputs), got);
        let mut item =
            operation(name, &at("infer"), "Ask with tensors", Some(body(&request, sent)), Some(result));
        item["parameters"] = timeout();
        paths.insert(format!("/v2/models/{path}/infer"), json!({"post": item}));

        let sent = small(inputs, || json!({"instances": [example::plain(inputs, None)]}));
        let got = small(outputs, || json!({"predictions": [example::plain(outputs, None)]}));
        let result = answer(&rows_of("predictions", value_of(outputs, false)), got);
        let request = body(&rows_of("instances", one_of(request_of(signature, false))), sent);
        let mut item = operation(name, &at("predict"), "Ask with rows", Some(request), Some(result));
        item["parameters"] = timeout();
        paths.insert(format!("/v1/models/{path}:predict"), json!({"post": item}));
    }
    let object = json!({"type": "object"});
    for (end, kind, summary, gives) in [
        ("", "metadata", "Inputs, outputs and versions", Some(answer(&object, None))),
        ("/ready", "modelReady", "Whether the model takes requests", None),
        ("/config", "config", "Configuration, in Triton's words", Some(answer(&object, None))),
        ("/stats", "modelStatistics", "What the model did so far", Some(answer(&object, None))),
    ] {
        let item = operation(name, &at(kind), summary, None, gives);
        paths.insert(format!("/v2/models/{path}{end}"), json!({"get": item}));
    }
}

/// The way to ask a model that streams.
fn streams(paths: &mut Map<String, Value>, name: &str, signature: &Signature) {
    let inputs = &signature.inputs[..];
    let properties: Map<_, _> = inputs.iter().map(|spec| (spec.name.to_string(), json!({}))).collect();
    let request = json!({"type": "object", "properties": properties, "required": needed(signature)});
    // A value or a flat list, else nested as deep as the shape is long.
    let value = |spec: &TensorSpec| {
        let rows = (spec.shape.len() > 2).then_some(1);
        (spec.name.to_string(), example::plain(std::slice::from_ref(spec), rows))
    };
    let sent = small(inputs, || inputs.iter().map(value).collect::<Map<_, _>>().into());
    let event = json!({
        "description": "An event for each response; one with `error` where it fails after the first",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    });
    let summary = "Ask for every response, as it is made";
    let id = format!("generateStream_{name}");
    let mut item = operation(name, &id, summary, Some(body(&request, sent)), Some(event));
    item["parameters"] = timeout();
    paths.insert(format!("/v2/models/{}/generate_stream", escaped(name)), json!({"post": item}));
}

/// A name as it stands in a path; braces would be a parameter there.
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
    let mut later = failed("Overloaded, starting or about to stop; nothing was done");
    later["headers"] = json!({"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}});
    json!({
        "400": failed("The request is wrong, or the model refused it"),
        "404": failed("No such model or version"),
        "503": later,
        "504": failed("The caller's timeout passed"),
        "default": failed("Anything else: 404, 413, 500 and so on"),
    })
}

fn answer(schema: &Value, example: Option<Value>) -> Value {
    json!({"description": "The answer", "content": {"application/json": media(schema, example)}})
}

fn body(schema: &Value, example: Option<Value>) -> Value {
    let about = if example.is_none() { LARGE } else { "" };
    json!({"required": true, "description": about, "content": {"application/json": media(schema, example)}})
}

/// A value that is too large to be written out is an empty object: a page would make one up from the schema, element by
/// element.
fn media(schema: &Value, example: Option<Value>) -> Value {
    json!({"schema": schema, "example": example.unwrap_or_else(|| json!({}))})
}

/// An example where it is small.
fn small(specs: &[TensorSpec], example: impl FnOnce() -> Value) -> Option<Value> {
    example::fits(specs).then(example)
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

/// The body of plain values: JSON, and where there is BYTES, forms and files.
fn plain(signature: &Signature) -> Value {
    let inputs = &signature.inputs[..];
    let schema = one_of([request_of(signature, false), request_of(signature, true)].concat());
    let (about, json) = if example::fits(inputs) {
        let examples = json!({
            "a row": {"value": example::plain(inputs, None)},
            "rows": {"value": example::plain(inputs, Some(2))},
        });
        ("", json!({"schema": schema, "examples": examples}))
    } else {
        (LARGE, media(&schema, None))
    };
    let mut content = Map::from_iter([("application/json".to_owned(), json)]);
    if inputs.iter().any(|spec| spec.datatype == DataType::Bytes) {
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

/// One row as a form: a file for what is BYTES, JSON for the rest.
fn form(signature: &Signature) -> Value {
    let mut properties = Map::new();
    let mut encoding = Map::new();
    for spec in &signature.inputs {
        let name = spec.name.to_string();
        if spec.datatype == DataType::Bytes {
            properties.insert(name, json!({"type": "string", "format": "binary"}));
        } else {
            properties.insert(name.clone(), nested(spec, false));
            encoding.insert(name, json!({"contentType": "application/json"}));
        }
    }
    json!({
        "schema": {"type": "object", "properties": properties, "required": needed(signature)},
        "encoding": encoding,
    })
}

/// The plain value of one row, or of rows: that of the only tensor, or an object.
fn value_of(specs: &[TensorSpec], rows: bool) -> Value {
    match specs {
        [only] => nested(only, rows),
        _ => object_of(specs, rows, specs.iter().map(|spec| &*spec.name).collect()),
    }
}

/// The forms that one row, or rows, may have in a request: an input with a default may be left out of an object, and the
/// only one without may stand by itself.
fn request_of(signature: &Signature, rows: bool) -> Vec<Value> {
    let lone = signature.lone_input().map(|only| nested(only, rows));
    let object = (signature.inputs.len() != 1).then(|| object_of(&signature.inputs, rows, needed(signature)));
    lone.into_iter().chain(object).collect()
}

/// Names of the inputs that have no default.
fn needed(signature: &Signature) -> Vec<&str> {
    let inputs = signature.inputs.iter().enumerate();
    inputs.filter(|(index, _)| signature.default_of(*index).is_none()).map(|(_, spec)| &*spec.name).collect()
}

fn one_of(mut forms: Vec<Value>) -> Value {
    if forms.len() == 1 { forms.remove(0) } else { json!({"oneOf": forms}) }
}

fn object_of(specs: &[TensorSpec], rows: bool, needed: Vec<&str>) -> Value {
    let properties: Map<_, _> =
        specs.iter().map(|spec| (spec.name.to_string(), nested(spec, rows))).collect();
    json!({"type": "object", "properties": properties, "required": needed})
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
                "parameters": {"type": "object"},
            },
            "required": ["name", "datatype", "shape"],
        })
    };
    let items: Vec<_> = specs.iter().map(tensor).collect();
    json!({
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "Comes back with the answer"},
            "parameters": {"type": "object"},
            member: {"type": "array", "items": {"anyOf": items}},
        },
        "required": [member],
    })
}

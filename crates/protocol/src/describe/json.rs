//! Descriptions as JSON.
//!
//! Reads the values of the parent module, hands on bodies. Does not know the paths that they are served under.

use inferd_types::TensorSpec;
use serde_json::{Map, Value, json};

use super::{INPUT_SCHEMAS, IndexEntry, Model, Server, Span, Statistics, config_datatype, schema_json};

/// The body of `GET /v2`.
pub fn server_metadata_json(server: &Server<'_>) -> Vec<u8> {
    body(&json!({ "name": server.name, "version": server.version, "extensions": server.extensions }))
}

/// The body of `GET /v2/models/{model}`.
pub fn model_metadata_json(model: &Model<'_>) -> Vec<u8> {
    let tensors = |specs: &[TensorSpec]| -> Vec<Value> {
        specs
            .iter()
            .map(|spec| json!({ "name": &*spec.name, "datatype": spec.datatype.name(), "shape": spec.shape }))
            .collect()
    };
    let mut inputs = tensors(&model.signature.inputs);
    for (index, input) in inputs.iter_mut().enumerate() {
        if let Some(schema) = model.signature.schema_of(index) {
            input["parameters"] = schema_json(schema);
        }
    }
    let mut metadata = json!({
        "name": model.name,
        "versions": model.versions.iter().map(u64::to_string).collect::<Vec<_>>(),
        "platform": model.platform,
        "inputs": inputs,
        "outputs": tensors(&model.signature.outputs),
    });
    let ignored = &model.signature.extras.ignored_columns;
    if !ignored.is_empty() {
        metadata["parameters"] = json!({"ignored_columns": ignored});
    }
    body(&metadata)
}

/// The body of `GET /v2/models/{model}/config`.
pub fn config_json(model: &Model<'_>) -> Vec<u8> {
    let tensor = |spec: &TensorSpec| {
        let (datatype, dims) = (config_datatype(spec.datatype), model.dims(&spec.shape));
        json!({ "name": &*spec.name, "data_type": datatype, "dims": dims })
    };
    let mut inputs: Vec<Value> = model.signature.inputs.iter().map(tensor).collect();
    for (index, input) in inputs.iter_mut().enumerate() {
        if model.signature.default_of(index).is_some() {
            input["optional"] = json!(true);
        }
    }
    let mut outputs: Vec<Value> = model.signature.outputs.iter().map(tensor).collect();
    for (index, output) in outputs.iter_mut().enumerate() {
        if let Some(file) = model.label_file(index) {
            output["label_filename"] = json!(file);
        }
    }
    let mut parameters: Map<String, Value> = model
        .parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!({ "string_value": value })))
        .collect();
    if let Some(schemas) = model.input_schemas() {
        parameters.insert(INPUT_SCHEMAS.to_owned(), json!({ "string_value": schemas }));
    }
    let mut config = json!({
        "name": model.name,
        "platform": model.platform,
        "backend": model.backend(),
        "version_policy": { "specific": { "versions": model.versions } },
        "max_batch_size": model.batch_size_max(),
        "input": inputs,
        "output": outputs,
        "instance_group": [{
            "name": format!("{}_0", model.name),
            "kind": model.instance_kind(),
            "count": model.replicas,
            "gpus": model.gpus,
        }],
        "default_model_filename": "",
        "parameters": parameters,
        "model_transaction_policy": { "decoupled": model.signature.decoupled },
    });
    if model.signature.batched() {
        config["dynamic_batching"] = json!({});
    }
    body(&config)
}

/// The body of `GET /v2/models/stats` and of one model's `…/stats`.
pub fn statistics_json(models: &[Statistics<'_>]) -> Vec<u8> {
    let models: Vec<Value> = models.iter().map(statistics).collect();
    body(&json!({ "model_stats": models }))
}

fn statistics(model: &Statistics<'_>) -> Value {
    let span = |span: Span| json!({ "count": span.count, "ns": span.nanos });
    let batches: Vec<Value> = model
        .batches
        .iter()
        .map(|batch| {
            json!({
                "batch_size": batch.rows,
                "compute_input": span(batch.compute_input),
                "compute_infer": span(batch.compute_infer),
                "compute_output": span(batch.compute_output),
            })
        })
        .collect();
    json!({
        "name": model.name,
        "version": model.version.to_string(),
        "last_inference": model.last_inference_ms,
        "inference_count": model.inference_count,
        "execution_count": model.execution_count,
        "inference_stats": {
            "success": span(model.success),
            "fail": span(model.fail),
            "queue": span(model.queue),
            "compute_input": span(model.compute_input),
            "compute_infer": span(model.compute_infer),
            "compute_output": span(model.compute_output),
            "cache_hit": span(model.cache_hit),
            "cache_miss": span(model.cache_miss),
        },
        "response_stats": {},
        "batch_stats": batches,
        "memory_usage": [],
    })
}

/// The body of `POST /v2/repository/index`.
pub fn index_json(entries: &[IndexEntry<'_>]) -> Vec<u8> {
    let entries: Vec<Value> = entries
        .iter()
        .map(|entry| {
            json!({
                "name": entry.name,
                "version": entry.version.to_string(),
                "state": entry.state.name(),
                "reason": entry.reason,
            })
        })
        .collect();
    body(&Value::Array(entries))
}

fn body(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

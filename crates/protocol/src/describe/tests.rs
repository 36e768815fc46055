//! Both forms of each description agree, and use Triton's names.

use inferd_types::{Batching, InputDefault, InputSchema, OutputLabels, TensorSpec};
use serde_json::{Value, json};

use super::*;
use crate::pb::inference as pb;

fn signature(batched: bool) -> Signature {
    let spec = |name: &str, datatype, shape: &[i64]| TensorSpec {
        name: name.into(),
        datatype,
        shape: shape.to_vec(),
    };
    Signature {
        inputs: vec![spec("x", DataType::Fp32, &[-1, 4]), spec("t", DataType::Bytes, &[-1])],
        outputs: vec![spec("y", DataType::Int64, &[-1, 2])],
        batching: if batched { Batching::On } else { Batching::Off { reason: "state".into() } },
        decoupled: false,
        extras: Default::default(),
    }
}

fn model(signature: &Signature) -> Model<'_> {
    Model {
        name: "m",
        version: 2,
        versions: &[1, 2],
        platform: "onnx_onnxruntime",
        signature,
        batch_rows_max: 32,
        replicas: 3,
        gpus: &[],
        parameters: &[("slo", "20ms")],
    }
}

fn parsed(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

#[test]
fn metadata_shows_whole_shapes_and_versions_as_text() {
    let signature = signature(true);
    let json = parsed(&model_metadata_json(&model(&signature)));
    assert_eq!(
        json,
        json!({
            "name": "m", "versions": ["1", "2"], "platform": "onnx_onnxruntime",
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [-1, 4]},
                {"name": "t", "datatype": "BYTES", "shape": [-1]},
            ],
            "outputs": [{"name": "y", "datatype": "INT64", "shape": [-1, 2]}],
        })
    );
    let message = model_metadata_pb(&model(&signature));
    assert_eq!(message.versions, ["1", "2"]);
    assert_eq!(message.inputs[0].shape, [-1, 4]);
    assert_eq!(message.inputs[1].datatype, "BYTES");
}

#[test]
fn the_configuration_of_a_batched_model_leaves_the_batch_dimension_out() {
    let signature = signature(true);
    let json = parsed(&config_json(&model(&signature)));
    assert_eq!(json["max_batch_size"], 32);
    assert_eq!(json["backend"], "onnxruntime");
    assert_eq!(json["input"][0], json!({"name": "x", "data_type": "TYPE_FP32", "dims": [4]}));
    assert_eq!(json["input"][1], json!({"name": "t", "data_type": "TYPE_STRING", "dims": []}));
    assert_eq!(json["instance_group"][0]["kind"], "KIND_CPU");
    assert_eq!(json["dynamic_batching"], json!({}));
    assert_eq!(json["parameters"]["slo"]["string_value"], "20ms");

    let config = config_pb(&model(&signature)).config.unwrap();
    assert_eq!(config.max_batch_size, 32);
    assert_eq!(config.input[0].dims, [4]);
    assert_eq!(config.input[1].data_type, pb::DataType::TypeString as i32);
    assert_eq!(config.instance_group[0].count, 3);
    assert!(config.scheduling_choice.is_some());
}

#[test]
fn the_configuration_without_batching_shows_whole_shapes_and_batch_size_zero() {
    let signature = signature(false);
    let json = parsed(&config_json(&model(&signature)));
    assert_eq!(json["max_batch_size"], 0);
    assert_eq!(json["input"][0]["dims"], json!([-1, 4]));
    assert_eq!(json.get("dynamic_batching"), None);
    let config = config_pb(&model(&signature)).config.unwrap();
    assert_eq!((config.max_batch_size, config.scheduling_choice), (0, None));
}

#[test]
fn the_configuration_says_what_may_be_left_out_and_where_labels_are() {
    let mut signature = signature(true);
    let default = InputDefault::of_value(signature.input(0), &json!(0)).unwrap();
    signature.extras.defaults.push(default);
    let labels =
        OutputLabels { output: "y".into(), names: vec!["a".into()], file: Some("labels.txt".into()) };
    signature.extras.labels.push(labels);
    let message = config_pb(&model(&signature)).config.unwrap();
    assert!(message.input[0].optional && !message.input[1].optional);
    assert_eq!(message.output[0].label_filename, "labels.txt");
    let config = parsed(&config_json(&model(&signature)));
    assert_eq!(config["input"][0]["optional"], true);
    assert_eq!(config["input"][1].get("optional"), None);
    assert_eq!(config["output"][0]["label_filename"], "labels.txt");
}

/// Schemas of a matrix of two columns and of a text.
fn schemas() -> Vec<InputSchema> {
    vec![
        InputSchema {
            input: "x".into(),
            columns: ["a", "b", "c", "d"].map(Into::into).to_vec(),
            missing: false,
            largest: Some(0.25),
        },
        InputSchema { input: "t".into(), columns: Vec::new(), missing: true, largest: None },
    ]
}

#[test]
fn what_inputs_take_is_in_metadata_and_in_one_parameter_of_the_configuration() {
    let mut signature = signature(true);
    signature.extras.schemas = schemas();
    signature.extras.ignored_columns = vec!["id".into()];
    let model = model(&signature);
    let metadata = parsed(&model_metadata_json(&model));
    let matrix = json!({"columns": ["a", "b", "c", "d"], "missing": false, "largest": 0.25});
    assert_eq!(metadata["inputs"][0]["parameters"], matrix);
    assert_eq!(metadata["inputs"][1]["parameters"], json!({"missing": true}));
    assert_eq!(metadata["parameters"], json!({"ignored_columns": ["id"]}));

    let rest = parsed(&config_json(&model));
    let text = rest["parameters"][INPUT_SCHEMAS]["string_value"].as_str().unwrap();
    let message = config_pb(&model).config.unwrap();
    assert_eq!(message.parameters[INPUT_SCHEMAS].string_value, text);
    let wanted = json!({"inputs": {"x": matrix, "t": {"missing": true}}, "ignored_columns": ["id"]});
    assert_eq!(parsed(text.as_bytes()), wanted);
    assert_eq!(message.parameters["slo"].string_value, "20ms");
}

#[test]
fn columns_and_missing_values_are_described_and_the_examples_are_taken() {
    let limits = crate::Limits::default();
    let mut signature = signature(true);
    signature.extras.schemas = schemas();
    let both = parsed(&openapi_json("1", [("m", &signature)].into_iter())).to_string();
    assert!(both.contains(r#""type":["string","null"]"#) && both.contains(r#""type":"number""#), "{both}");
    signature.inputs.truncate(1);
    signature.extras.schemas.truncate(1);
    let described = parsed(&openapi_json("1", [("m", &signature)].into_iter()));
    let content =
        |path: &str| &described["paths"][path]["post"]["requestBody"]["content"]["application/json"];
    let forms = content("/models/m")["schema"]["oneOf"].as_array().unwrap();
    let object = &forms[1];
    assert_eq!(object["required"], json!(["a", "b", "c", "d"]));
    assert_eq!(forms[3], json!({"type": "array", "items": object}));
    assert!(forms[0]["description"].as_str().unwrap().contains("'a', 'b', 'c', 'd'"));
    for (_, example) in content("/models/m")["examples"].as_object().unwrap() {
        let body = example["value"].to_string();
        crate::plain::decode(body.as_bytes(), &signature, &limits).unwrap();
    }
    let body = content("/v2/models/m/infer")["example"].to_string().into_bytes();
    crate::rest::decode_infer(body.into(), None, &signature, &limits).unwrap();

    // Too many to be listed: the description stays small.
    let names: Vec<std::sync::Arc<str>> = (0..10_000).map(|place| format!("column {place}").into()).collect();
    signature.inputs[0].shape[1] = 10_000;
    signature.extras.schemas[0].columns = names;
    assert!(openapi_json("1", [("m", &signature)].into_iter()).len() < 20_000);
}

#[test]
fn every_datatype_has_a_name_in_the_configuration() {
    for datatype in DataType::ALL {
        let name = config_datatype(datatype);
        assert!(pb::DataType::from_str_name(&name).is_some(), "{name}");
    }
}

#[test]
fn statistics_count_the_same_in_both_forms() {
    let span = |count| Span { count, nanos: count * 1000 };
    let statistics = Statistics {
        name: "m",
        version: 2,
        last_inference_ms: 7,
        inference_count: 9,
        execution_count: 4,
        success: span(8),
        fail: span(1),
        queue: span(3),
        compute_infer: span(4),
        cache_hit: span(6),
        batches: smallvec::smallvec![BatchStatistics {
            rows: 3,
            compute_infer: span(2),
            ..Default::default()
        }],
        ..Default::default()
    };
    let json = parsed(&statistics_json(std::slice::from_ref(&statistics)));
    let stats = &json["model_stats"][0];
    assert_eq!(stats["version"], "2");
    assert_eq!(stats["inference_stats"]["success"], json!({"count": 8, "ns": 8000}));
    assert_eq!(stats["inference_stats"]["cache_hit"], json!({"count": 6, "ns": 6000}));
    assert_eq!(stats["inference_stats"]["cache_miss"], json!({"count": 0, "ns": 0}));
    assert_eq!(stats["batch_stats"][0]["batch_size"], 3);
    let message = statistics_pb(&[statistics]).model_stats.remove(0);
    assert_eq!((message.inference_count, message.execution_count, message.last_inference), (9, 4, 7));
    assert_eq!(message.batch_stats[0].compute_infer, Some(pb::StatisticDuration { count: 2, ns: 2000 }));
}

#[test]
fn the_index_is_a_list_of_versions_with_their_states() {
    let entries = [
        IndexEntry { name: "m", version: 10, state: IndexState::Ready, reason: "" },
        IndexEntry { name: "m", version: 2, state: IndexState::Unavailable, reason: "no such file" },
    ];
    let json = parsed(&index_json(&entries));
    assert_eq!(json[0], json!({"name": "m", "version": "10", "state": "READY", "reason": ""}));
    assert_eq!(json[1]["reason"], "no such file");
    assert_eq!(index_pb(&entries).models[1].state, "UNAVAILABLE");
}

#[test]
fn the_server_tells_its_name_and_extensions() {
    let (more, last) = EXTENSIONS_WITH_SHARED_MEMORY.split_at(EXTENSIONS.len());
    assert_eq!((more, last), (EXTENSIONS, &["system_shared_memory"][..]));
    let server = Server { name: "inferd", version: "0.1.0", extensions: EXTENSIONS };
    let json = parsed(&server_metadata_json(&server));
    assert_eq!(json["name"], "inferd");
    assert!(json["extensions"].as_array().unwrap().contains(&json!("binary_tensor_data")));
    assert_eq!(server_metadata_pb(&server).extensions.len(), EXTENSIONS.len());
}

/// The description of one model.
fn openapi(name: &str, inputs: &[(&str, DataType, &[i64])], decoupled: bool) -> Value {
    let spec = |(name, datatype, shape): &(&str, DataType, &[i64])| TensorSpec {
        name: (*name).into(),
        datatype: *datatype,
        shape: shape.to_vec(),
    };
    let mut signature = signature(true);
    signature.inputs = inputs.iter().map(spec).collect();
    signature.decoupled = decoupled;
    parsed(&openapi_json("1", [(name, &signature)].into_iter()))
}

#[test]
fn examples_are_what_the_decoders_take() {
    let limits = crate::Limits { json_depth_max: 32, body_max_bytes: 1 << 20, shared_memory: false };
    let inputs: &[(&str, DataType, &[i64])] = &[
        ("x", DataType::Fp32, &[-1, 4]),
        ("t", DataType::Bytes, &[-1]),
        ("free", DataType::Int64, &[-1, -1, 2]),
        ("flag", DataType::Bool, &[-1, 1]),
    ];
    for inputs in [inputs, &inputs[..1], &inputs[1..2], &inputs[2..3]] {
        let mut signature = signature(true);
        signature.inputs = inputs
            .iter()
            .map(|(name, datatype, shape)| TensorSpec {
                name: (*name).into(),
                datatype: *datatype,
                shape: shape.to_vec(),
            })
            .collect();
        let described = openapi("m", inputs, false);
        let json =
            |path: &str| &described["paths"][path]["post"]["requestBody"]["content"]["application/json"];
        for (kind, one_row) in [("a row", true), ("rows", false)] {
            let body = json("/models/m")["examples"][kind]["value"].to_string();
            let plain = crate::plain::decode(body.as_bytes(), &signature, &limits).unwrap();
            assert_eq!(plain.one_row, one_row, "{body}");
        }
        let body = json("/v1/models/m:predict")["example"].to_string();
        crate::plain::decode_instances(body.as_bytes(), &signature, &limits).unwrap();
        let body = json("/v2/models/m/infer")["example"].to_string().into_bytes();
        crate::rest::decode_infer(body.into(), None, &signature, &limits).unwrap();

        let described = openapi("m", inputs, true);
        let body = described["paths"]["/v2/models/m/generate_stream"]["post"]["requestBody"]["content"]
            ["application/json"]["example"]
            .to_string();
        crate::rest::decode_generate(&body.into_bytes().into(), &signature, &limits).unwrap();
    }
}

#[test]
fn a_row_that_is_too_large_is_not_written_out() {
    let described = openapi("m", &[("x", DataType::Fp32, &[-1, 3, 224, 224])], false);
    assert!(described.to_string().len() < 20_000);
    let body = &described["paths"]["/models/m"]["post"]["requestBody"];
    assert_eq!(body["description"], "A row is too large for an example.");
}

#[test]
fn what_is_bytes_may_be_a_file_and_the_rest_of_its_form_is_json() {
    let described =
        openapi("m", &[("image", DataType::Bytes, &[-1]), ("size", DataType::Int32, &[-1, 2])], false);
    let content = &described["paths"]["/models/m"]["post"]["requestBody"]["content"];
    let form = &content["multipart/form-data"];
    assert_eq!(form["schema"]["properties"]["image"]["format"], "binary");
    assert_eq!(form["encoding"], json!({"size": {"contentType": "application/json"}}));
    assert!(content.get("application/octet-stream").is_none());
    let only = openapi("m", &[("image", DataType::Bytes, &[-1])], false);
    let content = &only["paths"]["/models/m"]["post"]["requestBody"]["content"];
    assert_eq!(content["application/octet-stream"]["schema"]["format"], "binary");
    let numbers = openapi("m", &[("x", DataType::Fp32, &[-1])], false);
    let content = &numbers["paths"]["/models/m"]["post"]["requestBody"]["content"];
    assert_eq!(content.as_object().unwrap().keys().collect::<Vec<_>>(), ["application/json"]);
}

#[test]
fn every_operation_has_an_id_of_its_own_and_belongs_to_its_model() {
    let signature = signature(true);
    let names = ["stream_x", "x", "a.b"];
    let described = parsed(&openapi_json("1", names.map(|name| (name, &signature)).into_iter()));
    let items = described["paths"].as_object().unwrap().values();
    let operations: Vec<&Value> = items.flat_map(|item| item.as_object().unwrap().values()).collect();
    let ids: std::collections::BTreeSet<_> =
        operations.iter().map(|one| one["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), operations.len());
    let tags: Vec<_> =
        described["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    assert_eq!(tags, ["stream_x", "x", "a.b", "server"]);
    assert!(operations.iter().all(|one| tags.contains(&one["tags"][0].as_str().unwrap())));
}

//! The samples of `/tests/wire`, which Python tests read too.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use inferd_protocol::pb::inference::ModelInferRequest;
use inferd_protocol::{Decoded, Limits, OutputSelection, RequestOptions, RequestedOutput, grpc, rest};
use inferd_types::{ErrorKind, InferResponse, ReplicaId, Result, Signature, Tensor, Timing};
use prost::Message;
use serde_json::Value;

const REST_REQUESTS: &str = include_str!("../../../tests/wire/rest_requests.json");
const REST_RESPONSES: &str = include_str!("../../../tests/wire/rest_responses.json");
const GRPC_REQUESTS: &str = include_str!("../../../tests/wire/grpc_requests.json");

/// Calls `check` with every sample of `file` and its signature.
fn each(file: &str, check: impl Fn(&str, &Signature, &Value)) {
    let file: Value = serde_json::from_str(file).unwrap();
    let samples = file["samples"].as_array().unwrap();
    assert!(!samples.is_empty());
    for sample in samples {
        let signature = &file["signatures"][sample["signature"].as_str().unwrap()];
        let signature: Signature = serde_json::from_value(signature.clone()).unwrap();
        check(sample["name"].as_str().unwrap(), &signature, sample);
    }
}

fn base64(value: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap()
}

fn body(sample: &Value) -> Bytes {
    match sample["body"].as_str() {
        Some(text) => Bytes::copy_from_slice(text.as_bytes()),
        None => base64(&sample["body_base64"]).into(),
    }
}

fn tensor(value: &Value) -> Tensor {
    Tensor::with_missing(
        value["datatype"].as_str().unwrap().parse().unwrap(),
        value["shape"].as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap()).collect(),
        base64(&value["data_base64"]).into(),
    )
    .unwrap()
}

fn header_length(sample: &Value) -> Option<usize> {
    sample["header_length"].as_u64().map(|length| length as usize)
}

fn check_error(name: &str, error: &inferd_types::Error, expected: &Value) {
    assert_eq!(error.kind().label(), expected["kind"].as_str().unwrap(), "{name}: {error}");
    for part in expected["says"].as_array().unwrap() {
        let part = part.as_str().unwrap();
        assert!(error.message().contains(part), "{name}: '{part}' is not in: {error}");
    }
    assert!(error.message().len() < 1000, "{name}: {error}");
}

fn check_decoded(name: &str, signature: &Signature, result: Result<Decoded>, expected: &Value) {
    if !expected["error"].is_null() {
        return check_error(name, &result.expect_err(name), &expected["error"]);
    }
    let decoded = result.unwrap_or_else(|error| panic!("{name}: {error}"));
    let inputs: Vec<Tensor> = expected["inputs"].as_array().unwrap().iter().map(tensor).collect();
    assert_eq!(decoded.inputs.as_slice(), inputs, "{name}");
    assert_eq!(decoded.id.as_deref(), expected["id"].as_str(), "{name}");
    assert_eq!(decoded.options.priority.map(u64::from), expected["priority"].as_u64(), "{name}");
    let micros = decoded.options.timeout.map(|timeout| timeout.as_micros() as u64);
    assert_eq!(micros, expected["timeout_us"].as_u64(), "{name}");
    if let Some(outputs) = expected["outputs"].as_array() {
        let expected: Vec<_> = outputs.iter().map(|output| requested(signature, output)).collect();
        assert_eq!(decoded.options.outputs.resolve(signature).as_slice(), expected, "{name}");
    }
}

fn requested(signature: &Signature, output: &Value) -> RequestedOutput {
    let index = signature.outputs.iter().position(|spec| output["name"] == *spec.name).unwrap();
    RequestedOutput { index, binary: output["binary"].as_bool().unwrap() }
}

#[test]
fn every_rest_request_decodes_to_what_its_sample_says() {
    each(REST_REQUESTS, |name, signature, sample| {
        let result = rest::decode_infer(body(sample), header_length(sample), signature, &Limits::default());
        check_decoded(name, signature, result, &sample["expect"]);
    });
}

#[test]
fn every_grpc_request_decodes_to_what_its_sample_says() {
    each(GRPC_REQUESTS, |name, signature, sample| {
        let message = ModelInferRequest::decode(body(sample)).unwrap();
        check_decoded(
            name,
            signature,
            grpc::decode_infer(message, signature, &Limits::default()),
            &sample["expect"],
        );
    });
}

#[test]
fn every_rest_response_encodes_to_the_bytes_of_its_sample() {
    each(REST_RESPONSES, |name, signature, sample| {
        let outputs = match sample["requested"].as_array() {
            Some(outputs) => {
                OutputSelection::Named(outputs.iter().map(|output| requested(signature, output)).collect())
            }
            None => OutputSelection::All { binary: false },
        };
        let options = RequestOptions { outputs, ..Default::default() };
        let response = InferResponse {
            outputs: sample["outputs"].as_array().unwrap().iter().map(tensor).collect(),
            timing: Timing::default(),
            replica: ReplicaId(0),
            steps: Vec::new(),
        };
        let result = rest::encode_infer(("m", 3), sample["id"].as_str(), signature, &options, &response);
        if !sample["error"].is_null() {
            return check_error(name, &result.expect_err(name), &sample["error"]);
        }
        let encoded = result.unwrap();
        assert_eq!(String::from_utf8_lossy(&encoded.body), String::from_utf8_lossy(&body(sample)), "{name}");
        assert_eq!(encoded.body, body(sample), "{name}");
        assert_eq!(encoded.header_length, header_length(sample), "{name}");
    });
}

#[test]
fn a_raw_input_is_a_slice_of_what_was_received() {
    each(REST_REQUESTS, |_, signature, sample| {
        let (body, Some(length)) = (body(sample), header_length(sample)) else { return };
        let Ok(decoded) = rest::decode_infer(body.clone(), Some(length), signature, &Limits::default())
        else {
            return;
        };
        let within = body.as_ptr_range();
        let widened = decoded.widened_bytes > 0;
        assert!(widened || decoded.inputs.iter().any(|tensor| within.contains(&tensor.data.as_ptr())));
    });
    each(GRPC_REQUESTS, |_, signature, sample| {
        let body = body(sample);
        let message = ModelInferRequest::decode(body.clone()).unwrap();
        if message.raw_input_contents.is_empty() {
            return;
        }
        let Ok(decoded) = grpc::decode_infer(message, signature, &Limits::default()) else { return };
        let widened = decoded.widened_bytes > 0;
        assert!(widened || body.as_ptr_range().contains(&decoded.inputs[0].data.as_ptr()));
    });
}

#[test]
fn a_body_over_the_limit_is_too_large() {
    let limits = Limits { body_max_bytes: 10, ..Limits::default() };
    each(REST_REQUESTS, |_, signature, sample| {
        if body(sample).len() > 10 {
            let error = rest::decode_infer(body(sample), None, signature, &limits).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge);
            assert!(error.message().contains("body_max_bytes"), "{error}");
        }
    });
}

#[test]
fn the_index_body_may_be_empty() {
    let ready = |body: &str| rest::decode_index_ready(body.as_bytes(), &Limits::default());
    assert!(!ready("").unwrap() && !ready("{}").unwrap() && !ready(r#"{"ready":false,"x":[1]}"#).unwrap());
    assert!(ready(r#" {"ready": true} "#).unwrap());
    assert!(ready(r#"{"ready":1}"#).is_err() && ready("[]").is_err() && ready("{} {}").is_err());
}

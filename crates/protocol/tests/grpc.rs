//! gRPC alone: two forms of contents, and streams.

use bytes::Bytes;
use inferd_protocol::pb::inference::infer_parameter::ParameterChoice;
use inferd_protocol::pb::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use inferd_protocol::pb::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelStreamInferResponse,
};
use inferd_protocol::{Limits, OutputSelection, RequestOptions, grpc};
use inferd_types::{
    Batching, DataType, Error, ErrorKind, InferResponse, ReplicaId, Sequence, SequenceId, Shape, Signature,
    Tensor, TensorSpec, Timing,
};

fn signature() -> Signature {
    let spec = |name: &str, datatype, shape: &[i64]| TensorSpec {
        name: name.into(),
        datatype,
        shape: shape.to_vec(),
    };
    Signature {
        inputs: vec![spec("a", DataType::Int8, &[-1, 2]), spec("b", DataType::Bytes, &[-1, -1])],
        outputs: vec![spec("y", DataType::Uint8, &[-1, 1]), spec("z", DataType::Bf16, &[-1, 1])],
        batching: Batching::On,
        decoupled: false,
        extras: Default::default(),
    }
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        ..Default::default()
    }
}

fn inputs() -> Vec<InferInputTensor> {
    vec![input("b", "BYTES", &[1, 1]), input("a", "INT8", &[1, 2])]
}

fn raw() -> Vec<Bytes> {
    vec![Bytes::from_static(b"\x01\0\0\0x"), Bytes::from_static(&[1, 2])]
}

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

fn error(request: ModelInferRequest) -> Error {
    grpc::decode_infer(request, &signature(), &Limits::default()).unwrap_err()
}

fn response() -> InferResponse {
    let tensor = |datatype, data: &'static [u8]| Tensor {
        datatype,
        shape: Shape::from_slice(&[1, 1]),
        data: Bytes::from_static(data),
    };
    InferResponse {
        outputs: [tensor(DataType::Uint8, &[9]), tensor(DataType::Bf16, &[0, 1])].into_iter().collect(),
        timing: Timing::default(),
        replica: ReplicaId(0),
        steps: Vec::new(),
    }
}

fn is_final(response: &ModelStreamInferResponse) -> bool {
    let message = response.infer_response.as_ref().unwrap();
    message.parameters["triton_final_response"] == parameter(ParameterChoice::BoolParam(true))
}

#[test]
fn raw_contents_follow_the_order_of_the_message_and_arrive_in_that_of_the_signature() {
    let request = ModelInferRequest { inputs: inputs(), raw_input_contents: raw(), ..Default::default() };
    let decoded = grpc::decode_infer(request, &signature(), &Limits::default()).unwrap();
    assert_eq!(&decoded.inputs[0].data[..], [1, 2]);
    assert_eq!(&decoded.inputs[1].data[..], b"\x01\0\0\0x");
    assert_eq!(decoded.id, None);
    assert_eq!(decoded.options.outputs, OutputSelection::All { binary: true });
}

#[test]
fn there_must_be_one_raw_content_for_each_input() {
    let mut request = ModelInferRequest { inputs: inputs(), raw_input_contents: raw(), ..Default::default() };
    request.raw_input_contents.pop();
    assert!(error(request).message().contains("raw_input_contents has 1 elements but there are 2 inputs"));
}

#[test]
fn typed_contents_may_be_empty_only_where_the_shape_is() {
    let mut request = ModelInferRequest { inputs: inputs(), ..Default::default() };
    assert!(
        error(request.clone()).message().starts_with("input 'b': shape [1, 1] takes 1 BYTES elements but 0")
    );
    request.inputs[0].shape = vec![1, 0];
    request.inputs[1].contents =
        Some(InferTensorContents { int_contents: vec![-128, 127], ..Default::default() });
    let decoded = grpc::decode_infer(request, &signature(), &Limits::default()).unwrap();
    assert_eq!(&decoded.inputs[0].data[..], [0x80, 0x7f]);
    assert!(decoded.inputs[1].data.is_empty());
}

#[test]
fn a_negative_dimension_is_named() {
    let mut request = ModelInferRequest { inputs: inputs(), raw_input_contents: raw(), ..Default::default() };
    request.inputs[1].shape = vec![-1, 2];
    assert!(error(request).message().contains("input 'a' has dimension -1"));
}

#[test]
fn a_feature_that_is_off_is_named() {
    let mut request = ModelInferRequest { inputs: inputs(), raw_input_contents: raw(), ..Default::default() };
    let region = parameter(ParameterChoice::StringParam("r".into()));
    request.inputs[0].parameters.insert("shared_memory_region".into(), region);
    let error = error(request);
    assert_eq!(error.kind(), ErrorKind::Unimplemented);
    assert!(error.message().contains("shared memory"), "{error}");
}

#[test]
fn a_sequence_is_named_by_a_number_or_by_text() {
    let whole = ModelInferRequest { inputs: inputs(), raw_input_contents: raw(), ..Default::default() };
    for (choice, id) in [
        (ParameterChoice::Int64Param(1), SequenceId::Number(1)),
        (ParameterChoice::Uint64Param(u64::MAX), SequenceId::Number(u64::MAX)),
        (ParameterChoice::StringParam("a".into()), SequenceId::Text("a".into())),
    ] {
        let mut request = whole.clone();
        request.parameters.insert("sequence_id".into(), parameter(choice));
        request.parameters.insert("sequence_end".into(), parameter(ParameterChoice::BoolParam(true)));
        let decoded = grpc::decode_infer(request, &signature(), &Limits::default()).unwrap();
        assert_eq!(decoded.options.sequence.as_deref(), Some(&Sequence { id, start: false, end: true }));
    }
}

#[test]
fn outputs_are_selected_and_always_raw() {
    let mut request = ModelInferRequest { inputs: inputs(), raw_input_contents: raw(), ..Default::default() };
    request.outputs.push(InferRequestedOutputTensor { name: "z".into(), ..Default::default() });
    let decoded = grpc::decode_infer(request, &signature(), &Limits::default()).unwrap();
    let message = grpc::encode_infer(("m", 7), None, &signature(), &decoded.options, &response()).unwrap();
    assert_eq!((message.model_name.as_str(), message.model_version.as_str()), ("m", "7"));
    assert_eq!(message.outputs.len(), 1);
    assert_eq!((message.outputs[0].name.as_str(), message.outputs[0].datatype.as_str()), ("z", "BF16"));
    assert_eq!(message.raw_output_contents, [Bytes::from_static(&[0, 1])]);
}

#[test]
fn a_response_in_a_stream_says_whether_it_is_the_last() {
    let options = RequestOptions::default();
    let message = grpc::encode_infer(("m", 7), Some("i"), &signature(), &options, &response()).unwrap();
    assert!(message.parameters.is_empty(), "a unary response has no stream parameters");
    assert!(is_final(&grpc::stream_response(message.clone(), true)));
    assert!(!is_final(&grpc::stream_response(message, false)));
    let empty = grpc::empty_final_response(("m", 7), Some("i"));
    assert!(is_final(&empty));
    let message = empty.infer_response.unwrap();
    assert!(message.outputs.is_empty() && message.id == "i" && message.model_name == "m");
}

#[test]
fn a_failure_in_a_stream_names_its_request() {
    let failure = grpc::stream_error(Some("i"), &Error::new(ErrorKind::NotFound, "no model 'q'"));
    assert_eq!(failure.error_message, "no model 'q'");
    assert!(is_final(&failure));
    assert_eq!(failure.infer_response.unwrap().id, "i");
    assert_eq!(grpc::stream_error(None, &Error::new(ErrorKind::Internal, "")).error_message, "internal");
}

#[test]
fn an_empty_final_response_can_be_asked_for() {
    let mut request = ModelInferRequest { inputs: inputs(), raw_input_contents: raw(), ..Default::default() };
    let wish = parameter(ParameterChoice::BoolParam(true));
    request.parameters.insert("triton_enable_empty_final_response".into(), wish);
    assert!(
        grpc::decode_infer(request, &signature(), &Limits::default()).unwrap().options.empty_final_response
    );
}

//! Plain values, decoded and encoded.

use bytes::Bytes;
use inferd_protocol::Limits;
use inferd_protocol::plain::{
    Part, decode, decode_element, decode_instances, decode_parts, encode, encode_predictions,
};
use inferd_types::{
    Batching, DataType, ErrorKind, InferResponse, InputDefault, ReplicaId, Signature, Tensor, TensorSpec,
    Timing,
};
use proptest::prelude::*;

fn spec(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.to_vec() }
}

fn model(inputs: Vec<TensorSpec>) -> Signature {
    Signature {
        outputs: inputs.clone(),
        inputs,
        batching: Batching::On,
        decoupled: false,
        extras: Default::default(),
    }
}

fn matrix() -> Signature {
    model(vec![spec("x", DataType::Fp32, &[-1, 2])])
}

fn text() -> Signature {
    model(vec![spec("text", DataType::Bytes, &[-1])])
}

fn answer(inputs: impl IntoIterator<Item = Tensor>) -> InferResponse {
    InferResponse {
        outputs: inputs.into_iter().collect(),
        timing: Timing::default(),
        replica: ReplicaId(0),
        steps: Vec::new(),
    }
}

/// The response of an echo model to `body`.
fn echo(body: &str, signature: &Signature) -> String {
    let plain = decode(body.as_bytes(), signature, &Limits::default()).unwrap();
    let one_row = plain.one_row;
    String::from_utf8(encode(signature, &answer(plain.inputs), one_row).unwrap()).unwrap()
}

fn refusal(body: &str, signature: &Signature) -> String {
    let error = decode(body.as_bytes(), signature, &Limits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    error.message().to_owned()
}

#[test]
fn nesting_tells_one_row_from_rows_and_so_is_the_response() {
    assert_eq!(echo("[1.5,2.0]", &matrix()), "[1.5,2.0]");
    assert_eq!(echo("[[1,2],[3,4]]", &matrix()), "[[1.0,2.0],[3.0,4.0]]");
    assert_eq!(echo("\"a\"", &text()), "\"a\"");
    assert_eq!(echo("[\"a\",\"b\"]", &text()), "[\"a\",\"b\"]");
    assert_eq!(echo("{\"x\":[[0.1,2]]}", &matrix()), "[[0.1,2.0]]");
}

#[test]
fn an_object_is_a_row_of_json_where_text_is_taken() {
    assert_eq!(echo("{\"a\":1}", &text()), "\"{\\\"a\\\":1}\"");
    assert_eq!(echo("[{\"a\":[1,2]},3]", &text()), "[\"{\\\"a\\\":[1,2]}\",\"3\"]");
}

#[test]
fn several_inputs_have_names() {
    let two = model(vec![spec("a", DataType::Int64, &[-1]), spec("b", DataType::Bool, &[-1, 1])]);
    assert_eq!(echo("{\"a\":1,\"b\":[true]}", &two), "{\"a\":1,\"b\":[true]}");
    assert_eq!(echo("{\"b\":[[false]],\"a\":[7]}", &two), "{\"a\":[7],\"b\":[[false]]}");
    assert!(refusal("{\"a\":1,\"b\":[[true]]}", &two).contains("all must be the same"));
    assert!(refusal("{\"a\":1}", &two).contains("'b' is missing"));
    assert!(refusal("[1]", &two).contains("for each input"));
}

#[test]
fn the_only_required_input_is_sent_by_itself() {
    let mut model = model(vec![spec("text", DataType::Bytes, &[-1]), spec("top", DataType::Int8, &[-1])]);
    let top = InputDefault::of_value(model.input(1), &5.into()).unwrap();
    model.extras.defaults.push(top);
    assert_eq!(echo("\"a\"", &model), "{\"text\":\"a\",\"top\":5}");
    assert_eq!(echo("[\"a\",\"b\"]", &model), "{\"text\":[\"a\",\"b\"],\"top\":[5,5]}");
    assert_eq!(echo("{\"text\":\"a\",\"top\":1}", &model), "{\"text\":\"a\",\"top\":1}");
    // Not the model's inputs, so a row of JSON.
    assert_eq!(echo("{\"text\":1,\"b\":2}", &model), "{\"text\":\"{\\\"b\\\":2,\\\"text\\\":1}\",\"top\":5}");
    assert_eq!(decode_element(b"raw", &model).unwrap().inputs[1].data[..], [5]);
    let limits = Limits::default();
    let rows =
        |body: &[u8]| decode_instances(body, &model, &limits).map(|plain| plain.inputs[1].data.to_vec());
    assert_eq!(rows(b"{\"instances\": [\"a\", \"b\"]}").unwrap(), [5, 5]);
    assert_eq!(rows(b"{\"instances\": [{\"text\": \"a\", \"top\": 1}]}").unwrap(), [1]);
    let some = rows(b"{\"instances\": [{\"text\": \"a\"}, {\"text\": \"b\", \"top\": 1}]}").unwrap_err();
    assert!(some.message().contains("'top' is given in some of the rows"), "{some}");
}

#[test]
fn a_few_bytes_don_t_become_many() {
    let mut model =
        model(vec![spec("none", DataType::Fp32, &[-1, 0]), spec("x", DataType::Fp64, &[-1, 100])]);
    let zeros = InputDefault::of_value(model.input(1), &0.into()).unwrap();
    model.extras.defaults.push(zeros);
    let rows = vec!["[]"; 100_000].join(",");
    assert!(refusal(&format!("{{\"none\":[{rows}]}}"), &model).contains("send it, or fewer rows"));
}

#[test]
fn what_does_not_fit_is_refused_with_the_reason() {
    assert!(refusal("[[1,2],[3]]", &matrix()).contains("1 entries where another"));
    assert!(refusal("[[[1,2]]]", &matrix()).contains("nested 3 levels"));
    assert!(refusal("[1,\"a\"]", &matrix()).contains("\"a\" is not a valid FP32"));
    assert!(refusal("[1,2,3]", &matrix()).contains("shape [1, 3]"));
    assert!(refusal("{\"z\":1}", &matrix()).contains("unknown input 'z'"));
    assert!(refusal("{", &matrix()).contains("not JSON"));
    let whole = model(vec![spec("n", DataType::Int8, &[-1])]);
    assert!(refusal("300", &whole).contains("300 is not a valid INT8"));
    assert!(refusal("1.5", &whole).contains("is not a valid INT8"));
    let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
    assert!(refusal(&deep, &matrix()).contains("json_depth_max"));
}

#[test]
fn null_is_what_json_has_no_number_for() {
    assert_eq!(echo("[null,1]", &matrix()), "[null,1.0]");
}

#[test]
fn bytes_that_are_no_text_come_back_in_base64() {
    let plain = decode_element(b"\xff\xfe", &text()).unwrap();
    assert!(plain.one_row);
    assert_eq!(encode(&text(), &answer(plain.inputs), true).unwrap(), b"\"//4=\"");
    assert!(decode_element(b"x", &matrix()).unwrap_err().message().contains("send JSON"));
}

#[test]
fn instances_are_rows_and_so_are_predictions() {
    let limits = Limits::default();
    let plain = decode_instances(b"{\"instances\": [[1,2],[3,4]]}", &matrix(), &limits).unwrap();
    assert_eq!(
        encode_predictions(&matrix(), &answer(plain.inputs)).unwrap(),
        b"{\"predictions\":[[1.0,2.0],[3.0,4.0]]}"
    );
    let two = model(vec![spec("a", DataType::Int64, &[-1]), spec("b", DataType::Bytes, &[-1])]);
    let body = b"{\"instances\": [{\"a\":1,\"b\":\"p\"},{\"b\":\"q\",\"a\":2}]}";
    let plain = decode_instances(body, &two, &limits).unwrap();
    assert_eq!(
        encode_predictions(&two, &answer(plain.inputs)).unwrap(),
        b"{\"predictions\":[{\"a\":1,\"b\":\"p\"},{\"a\":2,\"b\":\"q\"}]}"
    );
    for body in ["{}", "[]", "{\"instances\": 1}", "{\"instances\": [1]}"] {
        assert!(decode_instances(body.as_bytes(), &two, &limits).is_err(), "{body}");
    }
}

#[test]
fn bytes_may_be_in_base64_wherever_an_element_is() {
    let limits = Limits::default();
    let signature = model(vec![spec("image", DataType::Bytes, &[-1])]);
    let element = b"\x03\0\0\0\xff\0a";
    for body in [r#"{"b64": "/wBh"}"#, r#"{"image": {"b64": "/wBh"}}"#, r#"[{"b64": "/wBh"}]"#] {
        assert_eq!(&decode(body.as_bytes(), &signature, &limits).unwrap().inputs[0].data[..], element);
    }
    for body in [r#"{"instances": [{"b64": "/wBh"}]}"#, r#"{"instances": [{"image": {"b64": "/wBh"}}]}"#] {
        assert_eq!(
            &decode_instances(body.as_bytes(), &signature, &limits).unwrap().inputs[0].data[..],
            element
        );
    }
    for body in [r#"{"b64": "?"}"#, r#"{"b64": 1, "more": 2}"#] {
        let decoded = decode(body.as_bytes(), &signature, &limits);
        assert_eq!(decoded.is_ok(), body.contains("more"), "{body}");
    }
}

#[test]
fn a_form_is_one_row() {
    let two = model(vec![spec("image", DataType::Bytes, &[-1]), spec("size", DataType::Fp32, &[-1, 2])]);
    let part =
        |name: &str, data: &'static [u8], json| Part { name: name.into(), data: Bytes::from(data), json };
    let parts = vec![part("image", b"\x00\x01", false), part("size", b"[1,2]", true)];
    let plain = decode_parts(parts, &two, &Limits::default()).unwrap();
    assert_eq!(plain.inputs[0].data, &b"\x02\0\0\0\x00\x01"[..]);
    assert!(plain.one_row);
    let wrong = decode_parts(vec![part("other", b"", false)], &two, &Limits::default());
    assert!(wrong.unwrap_err().message().contains("unknown input"));
}

proptest! {
    #[test]
    fn no_body_ends_in_anything_but_a_request_or_an_error(body in "\\PC*", bytes in any::<Vec<u8>>()) {
        for signature in [matrix(), text()] {
            let _ = decode(body.as_bytes(), &signature, &Limits::default());
            let _ = decode_instances(body.as_bytes(), &signature, &Limits::default());
            let _ = decode(&bytes, &signature, &Limits::default());
        }
    }

    #[test]
    fn floats_come_back_as_they_were_sent(rows in prop::collection::vec([any::<f32>(), any::<f32>()], 1..9)) {
        let finite: Vec<_> = rows.iter().map(|row| row.map(|x| if x.is_finite() { x } else { 0.5 })).collect();
        let body = serde_json::to_string(&finite).unwrap();
        let back: Vec<[f32; 2]> = serde_json::from_str(&echo(&body, &matrix())).unwrap();
        prop_assert_eq!(back, finite);
    }
}

//! Widening, missing values and named columns, the same in every form of a request.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use inferd_protocol::pb::inference::infer_parameter::ParameterChoice;
use inferd_protocol::pb::inference::model_infer_request::InferInputTensor;
use inferd_protocol::pb::inference::{InferParameter, InferTensorContents, ModelInferRequest};
use inferd_protocol::{Decoded, Limits, RequestOptions, grpc, plain, rest};
use inferd_types::{
    Batching, DataType, ErrorKind, Extras, InferResponse, InputDefault, InputSchema, ReplicaId, Result,
    Signature, Tensor, TensorSpec, Timing,
};

fn model(inputs: &[(&str, DataType, &[i64])], schemas: Vec<InputSchema>) -> Signature {
    let spec = |(name, datatype, shape): &(&str, DataType, &[i64])| TensorSpec {
        name: (*name).into(),
        datatype: *datatype,
        shape: shape.to_vec(),
    };
    Signature {
        inputs: inputs.iter().map(spec).collect(),
        outputs: vec![TensorSpec { name: "y".into(), datatype: DataType::Fp64, shape: vec![-1] }],
        batching: Batching::On,
        decoupled: false,
        extras: Extras { schemas, ..Extras::default() },
    }
}

fn schema(input: &str, columns: &[&str], missing: bool) -> InputSchema {
    let columns = columns.iter().map(|name| (*name).into()).collect();
    InputSchema { input: input.into(), columns, missing, largest: None }
}

/// A matrix of two named columns.
fn matrix(datatype: DataType, missing: bool) -> Signature {
    let mut signature = model(&[("x", datatype, &[-1, 2])], vec![schema("x", &["age", "income"], missing)]);
    signature.extras.ignored_columns = vec!["id".into()];
    signature
}

/// A number and a text, each an input of its own.
fn columns(missing: bool) -> Signature {
    let schemas = vec![schema("a", &[], missing), schema("city", &[], missing)];
    let mut signature = model(&[("a", DataType::Fp64, &[-1]), ("city", DataType::Bytes, &[-1])], schemas);
    signature.extras.ignored_columns = vec!["id".into()];
    signature
}

fn fp64(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn texts(values: &[Option<&str>]) -> Vec<u8> {
    let element = |text: &Option<&str>| match text {
        Some(text) => [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat(),
        None => vec![0xff; 4],
    };
    values.iter().flat_map(element).collect()
}

fn json(signature: &Signature, body: &str) -> Result<Decoded> {
    rest::decode_infer(Bytes::copy_from_slice(body.as_bytes()), None, signature, &Limits::default())
}

/// One input as JSON.
fn tensor(signature: &Signature, datatype: &str, shape: &str, data: &str) -> Result<Decoded> {
    let inputs = format!(r#"{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}}}"#);
    json(signature, &format!(r#"{{"inputs":[{inputs}]}}"#))
}

/// The same after the JSON.
fn binary(signature: &Signature, datatype: &str, shape: &str, data: &[u8]) -> Result<Decoded> {
    let size = data.len();
    let text = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"parameters":{{"binary_data_size":{size}}}}}]}}"#
    );
    let body = [text.as_bytes(), data].concat();
    rest::decode_infer(body.into(), Some(text.len()), signature, &Limits::default())
}

fn message(datatype: &str, shape: &[i64], contents: Option<InferTensorContents>) -> ModelInferRequest {
    let input = InferInputTensor {
        name: "x".into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        contents,
        ..Default::default()
    };
    ModelInferRequest { inputs: vec![input], ..Default::default() }
}

fn raw(signature: &Signature, datatype: &str, shape: &[i64], data: &[u8]) -> Result<Decoded> {
    let raw_input_contents = vec![Bytes::copy_from_slice(data)];
    let request = ModelInferRequest { raw_input_contents, ..message(datatype, shape, None) };
    grpc::decode_infer(request, signature, &Limits::default())
}

fn typed(
    signature: &Signature,
    datatype: &str,
    shape: &[i64],
    contents: InferTensorContents,
) -> Result<Decoded> {
    grpc::decode_infer(message(datatype, shape, Some(contents)), signature, &Limits::default())
}

fn simple(signature: &Signature, body: &str) -> Result<plain::Plain> {
    plain::decode(body.as_bytes(), signature, &Limits::default())
}

fn instances(signature: &Signature, rows: &str) -> Result<plain::Plain> {
    let body = format!(r#"{{"instances":{rows}}}"#);
    plain::decode_instances(body.as_bytes(), signature, &Limits::default())
}

fn refusal<T: std::fmt::Debug>(result: Result<T>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    error.message().to_owned()
}

#[test]
fn a_narrower_type_is_widened_whichever_way_it_comes() {
    let wide = matrix(DataType::Fp64, true);
    let shape = "[1,2]";
    let int64: Vec<u8> = [7i64, -3].iter().flat_map(|value| value.to_le_bytes()).collect();
    let contents = InferTensorContents { int64_contents: vec![7, -3], ..Default::default() };
    for decoded in [
        tensor(&wide, "INT64", shape, "[7,-3]"),
        tensor(&wide, "INT8", shape, "[[7,-3]]"),
        binary(&wide, "INT64", shape, &int64),
        raw(&wide, "INT64", &[1, 2], &int64),
        typed(&wide, "INT64", &[1, 2], contents),
    ] {
        let decoded = decoded.unwrap();
        assert_eq!(decoded.inputs[0].datatype, DataType::Fp64);
        assert_eq!(decoded.inputs[0].data, fp64(&[7.0, -3.0]));
        assert_eq!(decoded.widened_bytes, 16);
    }
    assert_eq!(binary(&wide, "FP64", shape, &fp64(&[7.0, -3.0])).unwrap().widened_bytes, 0);
}

#[test]
fn elements_are_read_in_the_type_that_they_were_sent_as() {
    let wide = matrix(DataType::Fp64, true);
    let (one, other) = (f64::from(0.1f32), f64::from(16_777_217f32));
    let decoded = tensor(&wide, "FP32", "[1,2]", "[0.1,16777217]").unwrap();
    assert_eq!(decoded.inputs[0].data, fp64(&[one, other]));
    let contents = InferTensorContents { fp32_contents: vec![0.1, 16_777_217.0], ..Default::default() };
    assert_eq!(typed(&wide, "FP32", &[1, 2], contents).unwrap().inputs[0].data, fp64(&[one, other]));
    // The list of another type is refused, as ever.
    let contents = InferTensorContents { fp64_contents: vec![0.1, 1.0], ..Default::default() };
    assert!(refusal(typed(&wide, "FP32", &[1, 2], contents)).contains("expected in fp32_contents"));
    assert!(refusal(tensor(&wide, "INT8", "[1,2]", "[1,200]")).contains("200 is out of range for INT8"));
    assert!(refusal(tensor(&wide, "BF16", "[1,2]", "[1,2]")).contains("BF16 has no form in JSON"));
    let halves: Vec<u8> = [0x80, 0x3f, 0x00, 0xc0].to_vec();
    assert_eq!(binary(&wide, "BF16", "[1,2]", &halves).unwrap().inputs[0].data, fp64(&[1.0, -2.0]));
}

#[test]
fn a_value_that_would_be_rounded_is_named_with_its_column() {
    let wide = matrix(DataType::Fp64, true);
    let data: Vec<u8> =
        [1i64, 1 << 53, 2, (1 << 53) + 1].iter().flat_map(|value| value.to_le_bytes()).collect();
    for said in [
        refusal(tensor(&wide, "INT64", "[2,2]", "[1,9007199254740992,2,9007199254740993]")),
        refusal(binary(&wide, "INT64", "[2,2]", &data)),
        refusal(raw(&wide, "INT64", &[2, 2], &data)),
    ] {
        assert!(
            said.starts_with(
                "row 1, column 1 ('income') of input 'x' is 9007199254740993 of INT64, which FP64 would round"
            ),
            "{said}"
        );
        assert!(said.contains("up to 2**53"), "{said}");
    }
}

#[test]
fn what_would_lose_something_is_refused_with_the_types_that_are_taken() {
    let narrow = matrix(DataType::Fp32, true);
    let said = refusal(tensor(&narrow, "FP64", "[1,2]", "[1,2]"));
    assert!(said.contains("has datatype FP64 but FP32 is expected (or one that is widened"), "{said}");
    let whole = model(&[("x", DataType::Int32, &[-1, 2])], vec![]);
    for datatype in ["INT64", "UINT32", "FP32", "FP16"] {
        assert!(
            refusal(tensor(&whole, datatype, "[1,2]", "[1,2]")).contains("but INT32 is expected"),
            "{datatype}"
        );
    }
    assert!(tensor(&whole, "UINT16", "[1,2]", "[1,2]").is_ok());
    assert!(refusal(binary(&whole, "BOOL", "[1,2]", &[1, 2])).contains("neither 0 nor 1"));
    assert!(refusal(binary(&whole, "INT16", "[1,2]", &[1, 2])).contains("takes 4 bytes but 2"));
    assert!(refusal(tensor(&whole, "BYTES", "[1,2]", r#"["1","2"]"#)).contains("but INT32 is expected"));
}

#[test]
fn null_is_nan_of_floats_in_every_json() {
    let open = model(&[("x", DataType::Fp32, &[-1, 2])], vec![]);
    let is_nan = |data: &[u8]| f32::from_le_bytes(data[..4].try_into().unwrap()).is_nan();
    assert!(is_nan(&tensor(&open, "FP32", "[1,2]", "[[null,1]]").unwrap().inputs[0].data));
    assert!(is_nan(&tensor(&open, "FP16", "[1,2]", "[null,1]").unwrap().inputs[0].data));
    assert!(is_nan(&simple(&open, "[null,1]").unwrap().inputs[0].data));
    assert!(is_nan(&instances(&open, "[[null,1]]").unwrap().inputs[0].data));
    let body = Bytes::from_static(br#"{"x": [null, 1]}"#);
    assert!(is_nan(&rest::decode_generate(&body, &open, &Limits::default()).unwrap().inputs[0].data));
}

#[test]
fn null_of_integers_and_flags_names_row_and_column() {
    let named = |datatype| model(&[("x", datatype, &[-1, 2])], vec![schema("x", &["age", "income"], true)]);
    for datatype in [DataType::Int64, DataType::Bool, DataType::Uint8] {
        let signature = named(datatype);
        for said in [
            refusal(tensor(&signature, datatype.name(), "[2,2]", "[[1,1],[1,null]]")),
            refusal(tensor(&signature, datatype.name(), "[2,2]", "[1,1,1,null]")),
        ] {
            let wanted =
                format!("row 1, column 1 ('income') of input 'x' is null, which is not a valid {datatype}");
            assert!(said.starts_with(&wanted), "{said}");
        }
    }
    let whole = named(DataType::Int64);
    let place = "row 1, column 0 ('age') of input 'x' is null, which is not a valid INT64";
    assert!(refusal(simple(&whole, "[[1,2],[null,4]]")).starts_with(place));
    assert!(refusal(instances(&whole, "[[1,2],[null,4]]")).starts_with(place));
    assert!(refusal(simple(&whole, r#"[{"age":1,"income":2},{"age":null,"income":2}]"#)).starts_with(place));
    let body = Bytes::from_static(br#"{"x": [[1, 2], [null, 4]]}"#);
    assert!(refusal(rest::decode_generate(&body, &whole, &Limits::default())).starts_with(place));
    // An integer can't be null, even if the input is of floats.
    let wide = matrix(DataType::Fp64, true);
    assert!(
        refusal(tensor(&wide, "INT64", "[1,2]", "[1,null]"))
            .contains("send the input as FP64, whose null is NaN")
    );
}

#[test]
fn missing_text_is_taken_where_the_schema_says_so_and_named_elsewhere() {
    let text = |schemas| model(&[("x", DataType::Bytes, &[-1])], schemas);
    let takes = text(vec![schema("x", &[], true)]);
    let wanted = texts(&[Some("a"), None]);
    for data in [
        tensor(&takes, "BYTES", "[2]", r#"["a",null]"#).unwrap().inputs[0].data.clone(),
        binary(&takes, "BYTES", "[2]", &wanted).unwrap().inputs[0].data.clone(),
        raw(&takes, "BYTES", &[2], &wanted).unwrap().inputs[0].data.clone(),
        simple(&takes, r#"["a",null]"#).unwrap().inputs[0].data.clone(),
        instances(&takes, r#"["a",null]"#).unwrap().inputs[0].data.clone(),
    ] {
        assert_eq!(data, wanted);
    }
    for refuses in [text(vec![]), text(vec![schema("x", &[], false)])] {
        for said in [
            refusal(tensor(&refuses, "BYTES", "[2]", r#"["a",null]"#)),
            refusal(binary(&refuses, "BYTES", "[2]", &wanted)),
            refusal(raw(&refuses, "BYTES", &[2], &wanted)),
            refusal(simple(&refuses, r#"["a",null]"#)),
            refusal(instances(&refuses, r#"["a",null]"#)),
        ] {
            assert!(said.starts_with("row 1 of input 'x' is "), "{said}");
        }
    }
    // The mark is no valid length.
    assert!(refusal(binary(&takes, "BYTES", "[1]", b"\xff\xff\xff\xffa")).contains("runs past the end"));
    let typed_null = InferTensorContents { bytes_contents: vec![Bytes::new()], ..Default::default() };
    assert_eq!(typed(&takes, "BYTES", &[1], typed_null).unwrap().inputs[0].data, [0; 4][..]);
}

#[test]
fn an_input_that_a_pipeline_gives_back_has_null_for_missing_text() {
    let data = texts(&[Some("a"), None]);
    let shape = [2].into_iter().collect();
    let tensor = Tensor::with_missing(DataType::Bytes, shape, data.into()).unwrap();
    let spec = TensorSpec { name: "y".into(), datatype: DataType::Bytes, shape: vec![-1] };
    let signature = Signature { outputs: vec![spec], ..model(&[], vec![]) };
    let response = InferResponse {
        outputs: [tensor].into_iter().collect(),
        timing: Timing::default(),
        replica: ReplicaId(0),
        steps: Vec::new(),
    };
    let options = RequestOptions::default();
    let encoded = rest::encode_infer(("m", 1), None, &signature, &options, &response).unwrap();
    assert!(String::from_utf8(encoded.body).unwrap().contains(r#""data":["a",null]"#));
    assert_eq!(plain::encode(&signature, &response, false).unwrap(), br#"["a",null]"#);
}

#[test]
fn null_inside_an_element_of_json_is_part_of_its_text() {
    let text = model(&[("x", DataType::Bytes, &[-1])], vec![]);
    let decoded = simple(&text, r#"[{"a":null},[null]]"#).unwrap();
    assert_eq!(decoded.inputs[0].data, texts(&[Some(r#"{"a":null}"#), Some("[null]")]));
    assert!(refusal(simple(&text, "null")).contains("in quotes if that text is meant"));
}

#[test]
fn nan_is_refused_by_every_protocol_where_the_schema_takes_none() {
    let strict = matrix(DataType::Fp64, false);
    let data = fp64(&[1.0, 2.0, 3.0, f64::NAN]);
    let contents = InferTensorContents { fp64_contents: vec![1.0, 2.0, 3.0, f64::NAN], ..Default::default() };
    let body = Bytes::from_static(br#"{"x": [1, 2, 3, null]}"#);
    let half = half::f16::NAN.to_le_bytes();
    let halves = [[0; 2], [0; 2], [0; 2], half].concat();
    for said in [
        refusal(tensor(&strict, "FP64", "[2,2]", "[1,2,3,NaN]")),
        refusal(tensor(&strict, "FP32", "[2,2]", "[[1,2],[3,null]]")),
        refusal(binary(&strict, "FP64", "[2,2]", &data)),
        refusal(binary(&strict, "FP16", "[2,2]", &halves)),
        refusal(raw(&strict, "FP64", &[2, 2], &data)),
        refusal(typed(&strict, "FP64", &[2, 2], contents)),
        refusal(rest::decode_generate(&body, &strict, &Limits::default())),
        refusal(simple(&strict, "[[1,2],[3,null]]")),
        refusal(instances(&strict, "[[1,2],[3,null]]")),
        refusal(instances(&strict, r#"[{"age":1,"income":2},{"age":3,"income":null}]"#)),
    ] {
        assert!(
            said.starts_with(
                "row 1, column 1 ('income') of input 'x' is missing (NaN); the model takes no missing values"
            ),
            "{said}"
        );
    }
}

#[test]
fn a_row_is_an_object_by_column_in_any_order() {
    let signature = matrix(DataType::Fp64, true);
    let one = simple(&signature, r#"{"income": 2, "id": "x7", "age": 1}"#).unwrap();
    assert!(one.one_row);
    assert_eq!((&one.inputs[0].shape[..], &one.inputs[0].data[..]), (&[1, 2][..], &fp64(&[1.0, 2.0])[..]));
    let rows = r#"[{"income": 2, "age": 1}, {"age": 3, "income": 4, "id": null}]"#;
    for decoded in [simple(&signature, rows), instances(&signature, rows)] {
        let decoded = decoded.unwrap();
        assert!(!decoded.one_row);
        assert_eq!(decoded.inputs[0].shape[..], [2, 2]);
        assert_eq!(decoded.inputs[0].data, fp64(&[1.0, 2.0, 3.0, 4.0]));
    }
    let lists = simple(&signature, r#"{"income": [2, 4], "age": [1, 3], "id": ["p", "q"]}"#).unwrap();
    assert!(!lists.one_row);
    assert_eq!(lists.inputs[0].data, fp64(&[1.0, 2.0, 3.0, 4.0]));
    // The input by its own name, as ever.
    assert_eq!(simple(&signature, r#"{"x": [1, 2]}"#).unwrap().inputs[0].data, fp64(&[1.0, 2.0]));
    for decoded in [simple(&signature, r#"[{"x": [1, 2]}]"#), instances(&signature, r#"[{"x": [1, 2]}]"#)] {
        assert_eq!(decoded.unwrap().inputs[0].data, fp64(&[1.0, 2.0]));
    }
}

#[test]
fn a_star_among_the_ignored_columns_stands_for_any() {
    for mut signature in [matrix(DataType::Fp64, true), columns(true)] {
        signature.extras.ignored_columns = vec!["*".into()];
        let known =
            if signature.inputs.len() == 1 { r#""income": 2, "age": 1"# } else { r#""city": "x", "a": 1"# };
        let row = format!(r#"{{{known}, "note": "x", "more": 3}}"#);
        assert_eq!(simple(&signature, &row).unwrap().inputs[0].data[..8], fp64(&[1.0])[..]);
        assert!(refusal(simple(&signature, r#"{"note": "x"}"#)).contains("missing"), "{row}");
    }
}

#[test]
fn columns_that_are_missing_or_foreign_are_listed_with_the_models() {
    let signature = matrix(DataType::Fp64, true);
    for said in [
        refusal(simple(&signature, r#"{"age": 1, "salary": 2}"#)),
        refusal(simple(&signature, r#"[{"age": 1, "income": 2}, {"age": 1, "salary": 2}]"#)),
        refusal(instances(&signature, r#"[{"age": 1, "income": 2}, {"age": 1, "salary": 2}]"#)),
    ] {
        assert!(
            said.ends_with("missing columns: 'income'; columns that the model does not have: 'salary'; its columns are 'age', 'income'"),
            "{said}"
        );
    }
    assert!(
        refusal(simple(&signature, r#"[{"age": 1, "income": 2}, {"age": 1}]"#))
            .starts_with("row 1: missing columns: 'income'")
    );
    assert!(
        refusal(simple(&signature, r#"[{"age": 1, "income": 2}, [1, 2]]"#))
            .contains("row 1 is not an object")
    );
    assert!(
        refusal(simple(&signature, r#"{"age": [1], "income": 2}"#))
            .contains("column 'income' has one value where")
    );
    assert!(
        refusal(simple(&signature, r#"{"age": [1], "income": [2, 3]}"#))
            .contains("has 2 values where another has 1")
    );
    assert!(
        refusal(simple(&signature, r#"[{"age": [1], "income": [2]}]"#))
            .contains("row 0, column 0 ('age') of input 'x' is an array")
    );
}

#[test]
fn a_column_may_have_the_inputs_name() {
    let signature = model(&[("x", DataType::Fp64, &[-1, 1])], vec![schema("x", &["x"], true)]);
    for body in [r#"{"x": 5}"#, r#"{"x": [5]}"#, r#"{"x": [[5]]}"#, r#"[{"x": 5}]"#, "[5]"] {
        assert_eq!(simple(&signature, body).unwrap().inputs[0].data, fp64(&[5.0]), "{body}");
    }
    assert_eq!(instances(&signature, r#"[{"x": 5}, {"x": 6}]"#).unwrap().inputs[0].data, fp64(&[5.0, 6.0]));
}

#[test]
fn records_fill_inputs_of_one_column_each() {
    let signature = columns(true);
    let rows = r#"[{"city": "Rome", "a": 1, "id": 7}, {"a": null, "city": null, "id": 8}]"#;
    for decoded in [simple(&signature, rows), instances(&signature, rows)] {
        let decoded = decoded.unwrap();
        assert!(!decoded.one_row);
        assert!(f64::from_le_bytes(decoded.inputs[0].data[8..].try_into().unwrap()).is_nan());
        assert_eq!(decoded.inputs[1].data, texts(&[Some("Rome"), None]));
    }
    let one = simple(&signature, r#"{"a": 1, "city": null, "id": 7}"#).unwrap();
    assert!(one.one_row && one.inputs[1].data == texts(&[None]));
    let by_list = simple(&signature, r#"{"a": [1, 2], "city": ["p", null], "id": [7, 8]}"#).unwrap();
    assert_eq!(by_list.inputs[1].data, texts(&[Some("p"), None]));
    for rows in [r#"[{"a": 1, "town": "Rome"}]"#, r#"[{"a": 1, "town": "Rome"}, {"a": 2, "town": null}]"#] {
        let said = refusal(simple(&signature, rows));
        assert!(
            said.contains("missing columns: 'city'; columns that the model does not have: 'town'"),
            "{said}"
        );
    }
    assert!(
        refusal(simple(&signature, r#"[{"a": 1, "city": "p"}, {"a": 1}]"#))
            .contains("given in some of the rows")
    );
    assert!(refusal(simple(&signature, r#"[{"a": 1, "city": "p"}, 5]"#)).contains("row 1 is not an object"));
    let said = refusal(simple(&columns(false), r#"[{"a": 1, "city": "p"}, {"a": 2, "city": null}]"#));
    assert!(said.starts_with("row 1 of input 'city' is null; the model takes no missing values"), "{said}");
}

#[test]
fn records_may_leave_out_an_input_with_a_default() {
    let mut signature = columns(true);
    let default = InputDefault::of_value(signature.input(1), &serde_json::json!("none")).unwrap();
    signature.extras.defaults.push(default);
    let decoded = simple(&signature, r#"[{"a": 1}, {"a": 2}]"#).unwrap();
    assert_eq!(decoded.inputs[1].data, texts(&[Some("none"), Some("none")]));
}

#[test]
fn columns_of_a_tensor_must_be_the_models() {
    let signature = matrix(DataType::Fp64, true);
    let columns = |names: &str| {
        let names = serde_json::Value::from(names);
        let input = r#"{"name":"x","datatype":"FP64","shape":[1,2],"data":[1,2]"#;
        json(&signature, &format!(r#"{{"inputs":[{input},"parameters":{{"columns":{names}}}}}]}}"#))
    };
    assert!(columns(r#"["age", "income"]"#).is_ok());
    for names in [r#"["income", "age"]"#, r#"["age"]"#, r#"["age", "salary"]"#] {
        let said = refusal(columns(names));
        assert!(
            said.starts_with("the columns of input 'x' are 'age', 'income', but the request says '"),
            "{said}"
        );
    }
    for names in ["age", "{}", "[1]", "[\"age\""] {
        assert!(refusal(columns(names)).contains("a JSON array of names"), "{names}");
    }
    let named = |text: &str, signature: &Signature| {
        let mut request = message("FP64", &[1, 2], None);
        let choice = ParameterChoice::StringParam(text.into());
        request.inputs[0]
            .parameters
            .insert("columns".into(), InferParameter { parameter_choice: Some(choice) });
        request.raw_input_contents = vec![fp64(&[1.0, 2.0]).into()];
        grpc::decode_infer(request, signature, &Limits::default())
    };
    assert!(named(r#"["age","income"]"#, &signature).is_ok());
    assert!(refusal(named(r#"["income","age"]"#, &signature)).contains("'age', 'income', but"));
    let unnamed = model(&[("x", DataType::Fp64, &[-1, 2])], vec![]);
    assert!(refusal(named(r#"["a","b"]"#, &unnamed)).contains("has no named columns"));
    assert!(named("[]", &unnamed).is_ok());
    assert!(refusal(named("[]", &signature)).contains("'age', 'income', but the request says none"));
}

#[test]
fn base64_and_numbers_are_text_of_a_named_column_too() {
    let signature = matrix(DataType::Bytes, true);
    let encoded = BASE64_STANDARD.encode("x");
    let body = format!(r#"{{"age": {{"b64": "{encoded}"}}, "income": 5}}"#);
    assert_eq!(simple(&signature, &body).unwrap().inputs[0].data, texts(&[Some("x"), Some("5")]));
}

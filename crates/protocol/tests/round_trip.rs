//! Encoded values decode to themselves, and no input panics.

use bytes::Bytes;
use inferd_protocol::pb::inference::{ModelInferRequest, model_infer_request};
use inferd_protocol::{Limits, OutputSelection, RequestOptions, grpc, rest};
use inferd_types::{
    Batching, DataType, InferResponse, ReplicaId, Shape, Signature, Tensor, TensorSpec, Timing,
};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

/// A signature with one tensor of `tensor`'s type and rank as input and output.
fn signature(tensor: &Tensor) -> Signature {
    let spec = TensorSpec {
        name: "a \"name\"".into(),
        datatype: tensor.datatype,
        shape: vec![-1; tensor.shape.len()],
    };
    Signature {
        inputs: vec![spec.clone()],
        outputs: vec![spec],
        batching: Batching::Off { reason: "".into() },
        decoupled: false,
        extras: Default::default(),
    }
}

fn response(tensor: &Tensor) -> InferResponse {
    InferResponse {
        outputs: [tensor.clone()].into_iter().collect(),
        timing: Timing::default(),
        replica: ReplicaId(0),
        steps: Vec::new(),
    }
}

/// Any tensor; `text`: BYTES elements are UTF-8.
fn tensors(text: bool) -> impl Strategy<Value = Tensor> {
    (prop::sample::select(&DataType::ALL[..]), vec(0u64..4, 0..4)).prop_flat_map(move |(datatype, shape)| {
        let count = shape.iter().product::<u64>() as usize;
        data(datatype, count, text).prop_map(move |data| {
            Tensor::new(datatype, Shape::from_slice(&shape), data.into())
                .expect("as many bytes as the shape takes")
        })
    })
}

fn data(datatype: DataType, count: usize, text: bool) -> BoxedStrategy<Vec<u8>> {
    let prefixed = |elements: Vec<Vec<u8>>| {
        let with_length = |element: Vec<u8>| [&(element.len() as u32).to_le_bytes()[..], &element].concat();
        elements.into_iter().flat_map(with_length).collect::<Vec<u8>>()
    };
    match datatype {
        DataType::Bool => vec(0u8..2, count).boxed(),
        DataType::Bytes if text => vec(any::<String>(), count)
            .prop_map(move |all| prefixed(all.into_iter().map(String::into_bytes).collect()))
            .boxed(),
        DataType::Bytes => vec(vec(any::<u8>(), 0..9), count).prop_map(prefixed).boxed(),
        other => vec(any::<u8>(), count * other.size().unwrap_or(0)).boxed(),
    }
}

/// The same tensor with every NaN in its canonical form: JSON has only one.
fn with_one_nan(tensor: &Tensor) -> Tensor {
    fn map<const N: usize>(data: &[u8], nan: impl Fn([u8; N]) -> bool, plain: [u8; N]) -> Vec<u8> {
        data.as_chunks::<N>()
            .0
            .iter()
            .flat_map(|element| if nan(*element) { plain } else { *element })
            .collect()
    }
    let data = match tensor.datatype {
        DataType::Fp16 => {
            map(&tensor.data, |e| half::f16::from_le_bytes(e).is_nan(), half::f16::NAN.to_le_bytes())
        }
        DataType::Fp32 => map(&tensor.data, |e| f32::from_le_bytes(e).is_nan(), f32::NAN.to_le_bytes()),
        DataType::Fp64 => map(&tensor.data, |e| f64::from_le_bytes(e).is_nan(), f64::NAN.to_le_bytes()),
        _ => return tensor.clone(),
    };
    Tensor { data: data.into(), ..tensor.clone() }
}

/// A response's body as that of a request: the same tensor, there called `outputs`.
fn as_request(body: Vec<u8>, header_length: Option<usize>) -> (Bytes, Option<usize>) {
    let at = body.windows(9).position(|window| window == b"\"outputs\"").expect("an answer has outputs");
    let mut request = body[..at].to_vec();
    request.extend_from_slice(b"\"inputs\"");
    request.extend_from_slice(&body[at + 9..]);
    (request.into(), header_length.map(|length| length - 1))
}

proptest! {
    #[test]
    fn a_tensor_survives_json(tensor in tensors(true)) {
        let signature = signature(&tensor);
        let encoded = rest::encode_infer(("m", 1), Some("i\n"), &signature, &RequestOptions::default(), &response(&tensor));
        if tensor.datatype == DataType::Bf16 {
            prop_assert!(encoded.unwrap_err().message().contains("binary_data"));
            return Ok(());
        }
        let (body, length) = as_request(encoded.unwrap().body, None);
        let decoded = rest::decode_infer(body, length, &signature, &Limits::default()).unwrap();
        prop_assert_eq!(&decoded.inputs[0], &with_one_nan(&tensor));
        prop_assert_eq!(decoded.id.as_deref(), Some("i\n"));
    }

    #[test]
    fn a_tensor_survives_the_binary_form(tensor in tensors(false)) {
        let signature = signature(&tensor);
        let options = RequestOptions { outputs: OutputSelection::All { binary: true }, ..Default::default() };
        let encoded = rest::encode_infer(("m", 1), None, &signature, &options, &response(&tensor)).unwrap();
        let (body, length) = as_request(encoded.body, encoded.header_length);
        let mut text = body[..length.unwrap()].to_vec();
        // A BF16 output can only be requested raw; every other type can be, too.
        text.truncate(text.len() - 1);
        text.extend_from_slice(b",\"parameters\":{\"binary_data_output\":true}}");
        let length = Some(text.len());
        text.extend_from_slice(&tensor.data);
        let decoded = rest::decode_infer(text.into(), length, &signature, &Limits::default()).unwrap();
        prop_assert_eq!(&decoded.inputs[0], &tensor);
    }

    #[test]
    fn a_tensor_survives_grpc(tensor in tensors(false)) {
        let signature = signature(&tensor);
        let message = grpc::encode_infer(("m", 1), Some("i"), &signature, &RequestOptions::default(), &response(&tensor)).unwrap();
        prop_assert_eq!(&message.raw_output_contents[0], &tensor.data);
        let request = ModelInferRequest {
            id: message.id,
            inputs: message.outputs.into_iter().map(|output| model_infer_request::InferInputTensor {
                name: output.name,
                datatype: output.datatype,
                shape: output.shape,
                ..Default::default()
            }).collect(),
            raw_input_contents: message.raw_output_contents,
            ..Default::default()
        };
        let request = ModelInferRequest::decode(Bytes::from(request.encode_to_vec())).unwrap();
        let decoded = grpc::decode_infer(request, &signature, &Limits::default()).unwrap();
        prop_assert_eq!(&decoded.inputs[0], &tensor);
        prop_assert_eq!(decoded.id.as_deref(), Some("i"));
    }

    #[test]
    fn a_number_is_read_as_the_standard_library_reads_it(
        value in any::<f64>(),
        single in any::<f32>(),
        digits in "[0-9]{1,25}",
        exponent in -50..50i32,
        nudge in -9i64..9,
    ) {
        // Next to the middle between two f32, where careless rounding fails.
        let middle = f64::from_bits(((f64::from(single).to_bits() | (1 << 28)) as i64 + nudge) as u64);
        let texts = [value, middle, f64::from(single)].map(|value| [value.to_string(), format!("{value:e}")]);
        for text in texts.into_iter().flatten().chain([format!("0.{digits}e{exponent}"), format!("1{digits}e{exponent}")]) {
            read_as::<4>(&text, DataType::Fp32, text.parse::<f32>().ok().filter(|v| v.is_finite()).map(f32::to_le_bytes))?;
            read_as::<8>(&text, DataType::Fp64, text.parse::<f64>().ok().filter(|v| v.is_finite()).map(f64::to_le_bytes))?;
        }
    }

    #[test]
    fn any_bytes_get_a_response(body in vec(any::<u8>(), 0..200), length in proptest::option::of(0usize..250)) {
        decode_everywhere(body, length);
    }

    #[test]
    fn a_body_with_some_bytes_changed_gets_a_response(
        tensor in tensors(true),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        binary in any::<bool>(),
    ) {
        let signature = signature(&tensor);
        let options = RequestOptions { outputs: OutputSelection::All { binary }, ..Default::default() };
        let Ok(encoded) = rest::encode_infer(("m", 1), None, &signature, &options, &response(&tensor)) else {
            return Ok(());
        };
        let (body, length) = as_request(encoded.body, encoded.header_length);
        let mut body = body.to_vec();
        for (index, byte) in changes {
            let at = index.index(body.len());
            body[at] = byte;
        }
        body.truncate(body.len() - cut.index(body.len()) / 4);
        drop(rest::decode_infer(body.into(), length, &signature, &Limits::default()));
    }
}

/// Checks that `text` decodes to `expected`, or is refused if that is `None`.
fn read_as<const N: usize>(
    text: &str,
    datatype: DataType,
    expected: Option<[u8; N]>,
) -> Result<(), TestCaseError> {
    if text.contains(['N', 'i']) {
        return Ok(());
    }
    let tensor = Tensor { datatype, shape: Shape::from_slice(&[1]), data: Bytes::new() };
    let input = format!(r#"{{"name":"a \"name\"","datatype":"{datatype}","shape":[1],"data":[{text}]}}"#);
    let body = format!(r#"{{"inputs":[{input}]}}"#);
    let decoded = rest::decode_infer(body.into(), None, &signature(&tensor), &Limits::default());
    let found = decoded.ok().map(|decoded| decoded.inputs[0].data.to_vec());
    prop_assert_eq!(found, expected.map(Vec::from), "{}", text);
    Ok(())
}

fn decode_everywhere(body: Vec<u8>, length: Option<usize>) {
    let tensor = Tensor { datatype: DataType::Fp32, shape: Shape::from_slice(&[1]), data: Bytes::new() };
    let signature = signature(&tensor);
    let body = Bytes::from(body);
    drop(rest::decode_infer(body.clone(), length, &signature, &Limits::default()));
    if let Ok(message) = ModelInferRequest::decode(body) {
        drop(grpc::decode_infer(message, &signature, &Limits::default()));
    }
}

/// Text that is JSON or nearly so.
fn nearly_json() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\"",
        "\"a\"",
        "\"\\u00e9\"",
        "\"\\ud83d\\ude00\"",
        "\\",
        "1",
        "0",
        "-",
        ".",
        "e",
        "+",
        "12",
        "-0.5e1",
        "true",
        "false",
        "null",
        " ",
        "\n",
        "\u{1}",
        "é",
        "\"k\":",
    ]);
    let leaf = prop_oneof![Just("1".to_owned()), Just("\"x\"".to_owned()), Just("null".to_owned())];
    let tree = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|all| format!("[{}]", all.join(","))),
            vec(inner, 0..4).prop_map(|all| {
                let members: Vec<_> = all.iter().map(|value| format!("\"k\": {value}")).collect();
                format!("{{{}}}", members.join(" , "))
            }),
        ]
    });
    prop_oneof![
        vec(token.clone(), 0..12).prop_map(|tokens| tokens.concat()),
        (tree, token, any::<prop::sample::Index>()).prop_map(|(tree, token, at)| {
            let at = at.index(tree.len() + 1);
            let whole = tree.is_char_boundary(at);
            if whole { format!("{}{token}{}", &tree[..at], &tree[at..]) } else { tree }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_passed_over_is_json_exactly_where_serde_json_says_so(text in nearly_json()) {
        let tensor = Tensor { datatype: DataType::Fp32, shape: Shape::new(), data: Bytes::new() };
        let body = format!(r#"{{"inputs":[{{"name":"a \"name\"","datatype":"FP32","shape":[],"data":1}}],"x":{text}}}"#);
        // A number too large for f64 is an error to serde_json alone.
        let theirs = match serde_json::from_str::<serde_json::Value>(&body) {
            Ok(_) => true,
            Err(error) if error.to_string().contains("out of range") => return Ok(()),
            Err(_) => false,
        };
        let ours = rest::decode_infer(body.into(), None, &signature(&tensor), &Limits::default());
        // A second "inputs" is impossible, so any refusal is one of syntax.
        prop_assert_eq!(ours.is_ok(), theirs, "{:?}", ours);
    }
}

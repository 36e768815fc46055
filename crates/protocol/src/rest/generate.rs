//! The generate extension: requests and responses as flat JSON objects.
//!
//! Reads a member for each input, hands on a [`Decoded`] request; every other member is a parameter of the request.
//! Encodes a response with a member for each output. Does not know whether it is the only response.

use bytes::Bytes;
use inferd_types::{Error, ErrorKind, InferResponse, Input, Result, Shape, Signature, element_count};

use super::encode::{write_data, write_integer, write_string};
use super::input::read_data;
use super::members::{once, read_parameters};
use super::scan::Scanner;
use crate::check::{Inputs, Whole};
use crate::decoded::Decoded;
use crate::invalid::invalid;
use crate::limits::Limits;
use crate::options::{self, RequestParameters};

/// Decodes the body of `POST …/generate` and `…/generate_stream`.
///
/// An input is a scalar, a flat list, or lists nested as deep as its shape. The last free dimension takes the
/// length of a scalar or flat list, and every other free dimension is 1.
///
/// # Errors
/// `InvalidInput` with what was expected.
pub fn decode_generate(body: &Bytes, signature: &Signature, limits: &Limits) -> Result<Decoded> {
    let mut inputs = Inputs::new(signature);
    let mut parameters = RequestParameters::default();
    let (mut id, mut has_id, mut has_parameters) = (None, false, false);
    let mut scanner = Scanner::new(body, limits.json_depth_max);
    let mut first = true;
    scanner.open(b'{')?;
    while let Some(key) = scanner.key(&mut first)? {
        if signature.inputs.iter().any(|spec| *spec.name == *key) {
            let index = inputs.claim(&key)?;
            read_input(&mut scanner, &mut inputs, index)?;
        } else if key == "id" {
            once(&mut has_id, "id")?;
            let text = scanner.string().map_err(|error| error.within("id"))?;
            id = (!text.is_empty()).then(|| text.into_owned());
        } else if key == "parameters" && scanner.peek() == Some(b'{') {
            once(&mut has_parameters, "parameters")?;
            read_parameters(&mut scanner, |name, value| parameters.take(name, &value))?;
        } else {
            let value = scanner.value()?;
            parameters.take(&key, &value)?;
        }
    }
    scanner.end()?;
    let Whole { tensors: inputs, outside, widened_bytes } = inputs.finish()?;
    let options = parameters.finish()?;
    options::check_json_outputs(&options, signature)?;
    Ok(Decoded { id, inputs, outside, widened_bytes, options })
}

fn read_input(scanner: &mut Scanner<'_>, inputs: &mut Inputs<'_>, index: usize) -> Result<()> {
    let input = inputs.input(index);
    let spec = input.spec;
    let scalar = scanner.peek() != Some(b'[');
    let shape = if scalar {
        fitted(input, 1)?
    } else {
        let mark = scanner.mark();
        let mut dims = Shape::new();
        measure(&mut scanner.resume(mark), &mut dims).map_err(|error| error.within(input))?;
        dims.reverse();
        match dims.len() {
            1 => fitted(input, dims[0])?,
            depth if depth == spec.shape.len() => dims,
            depth => {
                return Err(invalid(format!(
                    "{input} has lists nested {depth} deep but its shape is {:?}; a flat list, or one nested as deep as the \
                     shape is long, is expected",
                    spec.shape
                )));
            }
        }
    };
    let claim = inputs.check(index, spec.datatype.name(), &shape)?;
    if scalar && claim.count != 1 {
        return Err(invalid(format!("{input} has one value; a list of {} is expected", claim.count)));
    }
    let data = read_data(scanner, inputs, claim, if scalar { &[] } else { &shape })?;
    inputs.put(claim, shape, Bytes::from(data))
}

/// The lengths of the nested arrays of the next value, innermost first; the first array of each level counts.
fn measure(scanner: &mut Scanner<'_>, dims: &mut Shape) -> Result<()> {
    let (mut first, mut count) = (true, 0u64);
    scanner.open(b'[')?;
    while scanner.another(&mut first, b']')? {
        if count == 0 && scanner.peek() == Some(b'[') {
            measure(scanner, dims)?;
        } else {
            scanner.skip_value()?;
        }
        count += 1;
    }
    dims.push(count);
    Ok(())
}

/// The shape of `count` elements of `input`.
fn fitted(input: Input<'_>, count: u64) -> Result<Shape> {
    let spec = input.spec;
    let mut shape: Shape = spec.shape.iter().map(|dim| u64::try_from(*dim).unwrap_or(1)).collect();
    if let Some(free) = spec.shape.iter().rposition(|dim| *dim < 0) {
        let fixed = element_count(&shape).map_err(|error| error.within(input))?;
        if fixed == 0 || !count.is_multiple_of(fixed) {
            return Err(invalid(format!(
                "{input} has {count} elements, which do not fill the shape {:?} (-1 stands for any size)",
                spec.shape
            )));
        }
        shape[free] = count / fixed;
    }
    Ok(shape)
}

/// Encodes one response of `model` (name and version) to the request `id`: an output with one element as a scalar,
/// others as flat lists.
///
/// # Errors
/// `InvalidInput` if an output has no form in JSON (BF16, BYTES that are not UTF-8); `Internal` if the response
/// does not match the signature.
pub fn encode_generate(
    model: (&str, u64),
    id: Option<&str>,
    signature: &Signature,
    response: &InferResponse,
) -> Result<Vec<u8>> {
    let bytes: usize = response.outputs.iter().map(|tensor| tensor.data.len()).sum();
    let mut out = Vec::with_capacity(2 * bytes + 256);
    out.push(b'{');
    if let Some(id) = id {
        out.extend_from_slice(b"\"id\":");
        write_string(&mut out, id);
        out.push(b',');
    }
    out.extend_from_slice(b"\"model_name\":");
    write_string(&mut out, model.0);
    out.extend_from_slice(b",\"model_version\":\"");
    write_integer(&mut out, model.1);
    out.push(b'"');
    for (index, spec) in signature.outputs.iter().enumerate() {
        let tensor = response.outputs.get(index).ok_or_else(|| {
            Error::new(ErrorKind::Internal, "the response lacks an output of the signature")
        })?;
        out.push(b',');
        write_string(&mut out, &spec.name);
        out.push(b':');
        let scalar = element_count(&tensor.shape)? == 1;
        if !scalar {
            out.push(b'[');
        }
        write_data(&mut out, &spec.name, tensor)?;
        if !scalar {
            out.push(b']');
        }
    }
    out.push(b'}');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use inferd_types::{Batching, DataType, ReplicaId, Tensor, TensorSpec, Timing};

    use super::*;

    fn signature() -> Signature {
        let spec = |name: &str, datatype, shape: &[i64]| TensorSpec {
            name: name.into(),
            datatype,
            shape: shape.to_vec(),
        };
        Signature {
            inputs: vec![
                spec("text", DataType::Bytes, &[-1]),
                spec("pairs", DataType::Fp32, &[-1, 2]),
                spec("free", DataType::Int32, &[-1, -1]),
            ],
            outputs: vec![spec("word", DataType::Bytes, &[-1]), spec("ids", DataType::Int32, &[-1])],
            batching: Batching::Off { reason: "test".into() },
            decoupled: true,
            extras: Default::default(),
        }
    }

    fn decode(body: &str) -> Result<Decoded> {
        decode_generate(&Bytes::copy_from_slice(body.as_bytes()), &signature(), &Limits::default())
    }

    #[test]
    fn scalars_lists_and_nested_lists_find_their_shapes() {
        let decoded = decode(
            r#"{"free": [[1, 2], [3, 4]], "text": "a", "pairs": [1, 2, 3, 4], "id": "q", "priority": 2,
                "temperature": 0.5, "stop": ["x"], "parameters": {"timeout": 7}}"#,
        )
        .unwrap();
        let shapes: Vec<_> = decoded.inputs.iter().map(|input| input.shape.to_vec()).collect();
        assert_eq!(shapes, [vec![1], vec![2, 2], vec![2, 2]]);
        assert_eq!((decoded.id.as_deref(), decoded.options.priority), (Some("q"), Some(2)));
        assert!(decoded.options.timeout.is_some());
        let decoded = decode(r#"{"free": 5, "text": ["a", "b"], "pairs": [[1, 2]]}"#).unwrap();
        let shapes: Vec<_> = decoded.inputs.iter().map(|input| input.shape.to_vec()).collect();
        assert_eq!(shapes, [vec![2], vec![1, 2], vec![1, 1]]);
    }

    #[test]
    fn what_fits_no_shape_is_refused_and_named() {
        for (body, part) in [
            (r#"{"text": "a", "free": 1}"#, "'pairs' is missing"),
            (r#"{"text": "a", "free": 1, "pairs": [1, 2, 3]}"#, "3 elements"),
            (r#"{"text": "a", "free": 1, "pairs": 1}"#, "do not fill"),
            (r#"{"text": "a", "free": 1, "pairs": [[[1]]]}"#, "nested 3 deep"),
            (r#"{"text": "a", "free": [[1], [2, 3]], "pairs": [1, 2]}"#, "free"),
            (r#"{"text": 5, "free": 1, "pairs": [1, 2]}"#, "text"),
            (r#"{"text": "a", "text": "b", "free": 1, "pairs": [1, 2]}"#, "given twice"),
            (r#"[1]"#, "an object"),
        ] {
            let error = decode(body).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{body}");
            assert!(error.message().contains(part), "{body}: {error}");
        }
        assert!(decode(&"[".repeat(10_000)).is_err());
        assert!(decode(&format!("{{\"free\": {}", "[".repeat(10_000))).is_err());
    }

    #[test]
    fn one_element_is_a_scalar_and_others_are_a_list() {
        let tensor = |datatype, dim, data: &[u8]| {
            Tensor::new(datatype, [dim].into_iter().collect(), Bytes::copy_from_slice(data)).unwrap()
        };
        let outputs = [
            tensor(DataType::Bytes, 1, b"\x03\0\0\0a\"b"),
            tensor(DataType::Int32, 2, &[1, 0, 0, 0, 2, 0, 0, 0]),
        ];
        let response = InferResponse {
            outputs: outputs.into_iter().collect(),
            timing: Timing::default(),
            replica: ReplicaId(0),
            steps: Vec::new(),
        };
        let body = encode_generate(("m", 3), Some("q"), &signature(), &response).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({
            "id": "q", "model_name": "m", "model_version": "3", "word": "a\"b", "ids": [1, 2],
        });
        assert_eq!(value, expected);
    }
}

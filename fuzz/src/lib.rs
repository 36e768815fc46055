//! What the fuzz targets share: signatures to decode for, and what must hold of whatever is decoded.
//!
//! Reads nothing from outside; each target hands it the bytes that the fuzzer made.
//! Does not know how the bytes came to be.
#![forbid(unsafe_code)]

use std::sync::LazyLock;

use inferd_protocol::{Decoded, RequestOptions, grpc, rest};
use inferd_types::{
    Batching, DataType, Extras, InferResponse, InputSchema, ReplicaId, Signature, Tensor, TensorSpec, Timing,
    texts,
};

/// The signatures that every body is decoded for: each datatype alone, a free shape, two inputs, and tables.
pub static SIGNATURES: LazyLock<Vec<Signature>> = LazyLock::new(|| {
    let mut all: Vec<Signature> = DataType::ALL.map(|datatype| one(datatype, &[-1, 3], Batching::On)).into();
    let off = || Batching::Off { reason: "told so".to_owned() };
    all.push(one(DataType::Fp32, &[-1, -1], off()));
    all.push(one(DataType::Bytes, &[-1, -1, -1], off()));
    all.push(one(DataType::Fp32, &[], off()));
    all.push(Signature {
        inputs: vec![spec("x", DataType::Fp32, &[-1, 2]), spec("n", DataType::Int64, &[-1, 1])],
        outputs: vec![spec("y", DataType::Fp32, &[-1, 1]), spec("z", DataType::Int64, &[-1])],
        batching: Batching::On,
        decoupled: false,
        extras: Default::default(),
    });
    all.push(Signature {
        inputs: vec![spec("x", DataType::Fp32, &[-1, 3])],
        outputs: vec![spec("y", DataType::Fp32, &[-1, -1])],
        batching: Batching::On,
        decoupled: false,
        extras: Default::default(),
    });
    let schema = |columns: &[&str], missing, largest| InputSchema {
        input: "x".into(),
        columns: columns.iter().map(|name| (*name).into()).collect(),
        missing,
        largest,
    };
    all.push(table(DataType::Fp64, &[-1, 2], schema(&["age", "income"], false, Some(1e6))));
    all.push(table(DataType::Bytes, &[-1], schema(&[], true, None)));
    all.push(table(DataType::Fp32, &[-1, 2], schema(&["age", "income"], true, Some(1e6))));
    all.push(table(DataType::Bytes, &[-1, 2], schema(&["age", "income"], false, None)));
    all
});

/// One input that a schema is of.
fn table(datatype: DataType, shape: &[i64], schema: InputSchema) -> Signature {
    let extras = Extras { schemas: vec![schema], ignored_columns: vec!["id".into()], ..Extras::default() };
    Signature { extras, ..one(datatype, shape, Batching::On) }
}

/// The signature that an input chooses by one byte.
pub fn signature(choice: u8) -> &'static Signature {
    &SIGNATURES[usize::from(choice) % SIGNATURES.len()]
}

fn spec(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.to_vec() }
}

fn one(datatype: DataType, shape: &[i64], batching: Batching) -> Signature {
    Signature {
        inputs: vec![spec("x", datatype, shape)],
        outputs: vec![spec("y", datatype, shape)],
        batching,
        decoupled: false,
        extras: Default::default(),
    }
}

/// Checks that a decoded request fits its signature in every respect, and that its tensors can be encoded.
pub fn check(decoded: &Decoded, signature: &Signature) {
    assert_eq!(decoded.inputs.len(), signature.inputs.len());
    let rows = decoded.inputs.first().and_then(|tensor| tensor.shape.first().copied());
    for (spec, tensor) in signature.inputs.iter().zip(&decoded.inputs) {
        assert_eq!(spec.datatype, tensor.datatype);
        assert!(spec.accepts(&tensor.shape));
        if signature.batched() {
            assert!(tensor.shape.first().copied() == rows);
        }
    }
    check_elements(&decoded.inputs, signature);
    let outputs = decoded.options.outputs.resolve(signature);
    assert!(!outputs.is_empty() && outputs.iter().all(|output| output.index < signature.outputs.len()));
    encode(decoded, signature);
}

/// Checks that the data of each input fit its shape, and that nothing is missing or too large that must not be.
pub fn check_elements(inputs: &[Tensor], signature: &Signature) {
    for (index, tensor) in inputs.iter().enumerate() {
        let input = signature.input(index);
        let missing = input.takes_missing_text();
        Tensor::check(tensor.datatype, &tensor.shape, &tensor.data, missing).expect("checked before");
        if tensor.datatype == DataType::Bytes {
            assert!(missing || texts(&tensor.data).all(|text| text.is_some()));
        }
        let Some(schema) = input.schema else { continue };
        let values: Vec<f64> = match tensor.datatype {
            DataType::Fp32 => {
                tensor.data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes).into()).collect()
            }
            DataType::Fp64 => {
                tensor.data.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
            }
            _ => continue,
        };
        assert!(schema.missing || values.iter().all(|value| !value.is_nan()));
        assert!(
            values
                .iter()
                .all(|value| value.is_nan() || value.abs() <= schema.largest.unwrap_or(f64::INFINITY))
        );
    }
}

/// Sends the inputs back as outputs, as far as there are such.
fn encode(decoded: &Decoded, signature: &Signature) {
    let response = InferResponse {
        outputs: decoded.inputs.clone(),
        timing: Timing::default(),
        replica: ReplicaId(0),
        steps: Vec::new(),
    };
    let id = decoded.id.as_deref();
    for options in [decoded.options.clone(), RequestOptions::default()] {
        let Ok(body) = rest::encode_infer(("m", 1), id, signature, &options, &response) else { continue };
        assert!(body.header_length.is_none_or(|length| length <= body.body.len()));
    }
    grpc::encode_infer(("m", 1), id, signature, &decoded.options, &response)
        .expect("as many outputs as inputs");
}

//! Shared test code: the path of the runtime's library, and the test models.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};

use inferd_onnx::{LoadSettings, OnnxModel};
use inferd_types::{DataType, Tensor};

/// ONNX Runtime's shared library.
#[expect(clippy::disallowed_methods, reason = "the environment has the path of the library")]
pub(crate) fn library() -> PathBuf {
    PathBuf::from(std::env::var("INFERD_TEST_ONNXRUNTIME").expect(
        "INFERD_TEST_ONNXRUNTIME must be the path of libonnxruntime.so.* from the package onnxruntime \
         (in its folder capi); `make test` sets it",
    ))
}

pub(crate) fn path(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(model).with_extension("onnx")
}

pub(crate) fn settings(model: &str) -> LoadSettings {
    let value = serde_json::json!({"path": path(model), "library": library()});
    LoadSettings::from_json(&value).unwrap()
}

pub(crate) fn load(model: &str) -> OnnxModel {
    OnnxModel::load(&settings(model)).unwrap()
}

pub(crate) fn floats(shape: &[u64], values: &[f32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(DataType::Fp32, shape.into(), data.into()).unwrap()
}

pub(crate) fn integers(shape: &[u64], values: &[i64]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(DataType::Int64, shape.into(), data.into()).unwrap()
}

pub(crate) fn texts(shape: &[u64], values: &[&[u8]]) -> Tensor {
    let element = |value: &&[u8]| [&(value.len() as u32).to_le_bytes()[..], value].concat();
    let data: Vec<u8> = values.iter().flat_map(element).collect();
    Tensor::new(DataType::Bytes, shape.into(), data.into()).unwrap()
}

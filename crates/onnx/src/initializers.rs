//! The values of constants that a request may replace: inputs of the graph with an initializer of the same name.
//!
//! Reads the model's file, hands on what such an input is where a request leaves it out. The runtime tells their names
//! and types, and keeps their values to itself.
//! Knows nothing of sessions: the graph says which are served.

use bytes::Bytes;
use inferd_types::values::push_bytes;
use inferd_types::{DataType, Error, ErrorKind, InputDefault, Result};
use prost::Message;

use crate::graph::{Graph, Port, element_type};
use crate::settings::LoadSettings;

/// The parts of ONNX's messages that hold initializers (onnx/onnx.proto).
#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    /// Every type of at most 32 bits but FLOAT and UINT32.
    #[prost(int32, repeated, tag = "5")]
    int32_data: Vec<i32>,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    string_data: Vec<Bytes>,
    #[prost(int64, repeated, tag = "7")]
    int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "bytes", tag = "9")]
    raw_data: Bytes,
    #[prost(double, repeated, tag = "10")]
    double_data: Vec<f64>,
    /// UINT32 too.
    #[prost(uint64, repeated, tag = "11")]
    uint64_data: Vec<u64>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

const EXTERNAL: i32 = 1;

/// What the inputs of `graph` that have an initializer are where a request leaves them out.
///
/// The file is read only where the settings name such inputs.
///
/// # Errors
/// `ModelFailed` where the file can't be read, or a value is kept outside of it.
pub(crate) fn defaults(settings: &LoadSettings, graph: &Graph) -> Result<Vec<InputDefault>> {
    let named = |port: &Port| settings.initializers.contains(&port.name());
    if !graph.inputs.iter().any(named) {
        return Ok(Vec::new());
    }
    let unreadable = |detail: String| {
        Error::new(ErrorKind::ModelFailed, "the model's file can't be read for the defaults of its inputs")
            .with_detail(detail)
    };
    let file = std::fs::read(&settings.path).map_err(|error| unreadable(error.to_string()))?;
    let model = ModelProto::decode(Bytes::from(file)).map_err(|error| unreadable(error.to_string()))?;
    let initializers = model.graph.map(|graph| graph.initializer).unwrap_or_default();
    let mut defaults = Vec::new();
    for port in graph.inputs.iter().filter(|port| named(port)) {
        if let Some(tensor) = initializers.iter().find(|tensor| tensor.name == port.name()) {
            defaults.push(default(port, tensor)?);
        }
    }
    Ok(defaults)
}

fn default(port: &Port, tensor: &TensorProto) -> Result<InputDefault> {
    let failed = |what: &str| {
        let name = port.name();
        let help = format!("help: write the value in model.yaml: optional: {{{name}: 0}}");
        Error::new(ErrorKind::ModelFailed, format!("the default of input '{name}' {what}\n{help}"))
    };
    if tensor.data_location == EXTERNAL {
        return Err(failed("is kept outside of the model's file"));
    }
    if tensor.data_type != element_type(port.datatype) as i32 {
        return Err(failed("is of another type than the input"));
    }
    let shape: Option<Vec<u64>> = tensor.dims.iter().map(|dim| u64::try_from(*dim).ok()).collect();
    let shape = shape.ok_or_else(|| failed("has a negative size"))?;
    Ok(InputDefault { input: port.name().into(), shape, data: elements(port.datatype, tensor)?.into() })
}

fn elements(datatype: DataType, tensor: &TensorProto) -> Result<Vec<u8>> {
    if !tensor.raw_data.is_empty() {
        return Ok(tensor.raw_data.to_vec());
    }
    let mut data = Vec::new();
    match datatype {
        DataType::Bytes => {
            for element in &tensor.string_data {
                push_bytes(element, &mut data)?;
            }
        }
        DataType::Fp32 => data.extend(tensor.float_data.iter().flat_map(|value| value.to_le_bytes())),
        DataType::Fp64 => data.extend(tensor.double_data.iter().flat_map(|value| value.to_le_bytes())),
        DataType::Int64 => data.extend(tensor.int64_data.iter().flat_map(|value| value.to_le_bytes())),
        DataType::Uint64 => data.extend(tensor.uint64_data.iter().flat_map(|value| value.to_le_bytes())),
        DataType::Uint32 => {
            data.extend(tensor.uint64_data.iter().flat_map(|value| (*value as u32).to_le_bytes()));
        }
        small => {
            let size = small.size().unwrap_or(4).min(4);
            for value in &tensor.int32_data {
                data.extend_from_slice(&value.to_le_bytes()[..size]);
            }
        }
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(datatype: DataType, tensor: &TensorProto) -> Vec<u8> {
        elements(datatype, tensor).unwrap()
    }

    #[test]
    fn every_way_to_hold_elements_becomes_the_raw_form() {
        let ints = TensorProto { int32_data: vec![1, -1], ..TensorProto::default() };
        assert_eq!(of(DataType::Int8, &ints), [1, 0xff]);
        assert_eq!(of(DataType::Fp16, &ints), [1, 0, 0xff, 0xff]);
        assert_eq!(of(DataType::Int32, &ints).len(), 8);
        let words = TensorProto { uint64_data: vec![7], ..TensorProto::default() };
        assert_eq!(of(DataType::Uint32, &words), [7, 0, 0, 0]);
        let texts = TensorProto { string_data: vec![Bytes::from_static(b"ab")], ..TensorProto::default() };
        assert_eq!(of(DataType::Bytes, &texts), *b"\x02\0\0\0ab");
        let raw = TensorProto { raw_data: Bytes::from_static(&[0, 0, 128, 63]), ..TensorProto::default() };
        assert_eq!(of(DataType::Fp32, &raw), 1f32.to_le_bytes());
    }
}

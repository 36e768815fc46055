//! A response to the body of an inference response.
//!
//! Reads tensors, hands on JSON and raw bytes in one buffer. NaN and the infinities are bare tokens, as in Python's
//! `json`; other floats have the shortest digits that give them back. Does not know who receives it.

use half::f16;
use inferd_types::{DataType, Error, ErrorKind, InferResponse, Result, Signature, Tensor, TensorSpec, texts};
use smallvec::SmallVec;

use crate::invalid::invalid;
use crate::options::{RequestOptions, RequestedOutput, bf16_in_json};
use crate::region::RegionSlice;

/// The body of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedBody {
    /// JSON, followed by raw tensors if there are any.
    pub body: Vec<u8>,
    /// The length of the JSON in bytes, for `Inference-Header-Content-Length`; `None`: the body is JSON alone.
    pub header_length: Option<usize>,
}

/// Encodes the response of `model` (name and version) to the request `id`.
///
/// # Errors
/// `InvalidInput` if an output requested as JSON has no form there (BF16, BYTES that are not UTF-8); `Internal` if
/// the response does not match the signature.
pub fn encode_infer(
    model: (&str, u64),
    id: Option<&str>,
    signature: &Signature,
    options: &RequestOptions,
    response: &InferResponse,
) -> Result<EncodedBody> {
    let selected = options.outputs.resolve(signature);
    let pairs = pair(signature, response, options, &selected)?;
    let mut out =
        Vec::with_capacity(pairs.iter().map(|pair| estimate(pair.tensor, pair.binary)).sum::<usize>() + 256);
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
    out.extend_from_slice(b"\",\"outputs\":[");
    for (number, pair) in pairs.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        write_output(&mut out, pair)?;
    }
    out.extend_from_slice(b"]}");
    let json_length = out.len();
    for pair in pairs.iter().filter(|pair| pair.binary) {
        out.extend_from_slice(&pair.tensor.data);
    }
    let header_length = pairs.iter().any(|pair| pair.binary).then_some(json_length);
    Ok(EncodedBody { body: out, header_length })
}

/// One output to send.
struct Pair<'a> {
    spec: &'a TensorSpec,
    tensor: &'a Tensor,
    binary: bool,
    /// Its location in shared memory, if it is there.
    placed: Option<&'a RegionSlice>,
}

fn pair<'a>(
    signature: &'a Signature,
    response: &'a InferResponse,
    options: &'a RequestOptions,
    selected: &[RequestedOutput],
) -> Result<SmallVec<[Pair<'a>; 2]>> {
    let mut pairs = SmallVec::with_capacity(selected.len());
    for output in selected {
        let (Some(spec), Some(tensor)) =
            (signature.outputs.get(output.index), response.outputs.get(output.index))
        else {
            return Err(Error::new(ErrorKind::Internal, "the response lacks an output of the signature"));
        };
        let placed = options.placed.iter().find(|(index, _)| *index == output.index).map(|(_, slice)| slice);
        pairs.push(Pair { spec, tensor, binary: output.binary && placed.is_none(), placed });
    }
    Ok(pairs)
}

/// The approximate encoded size of a tensor, so that the buffer grows at most once.
fn estimate(tensor: &Tensor, binary: bool) -> usize {
    let elements = tensor.datatype.size().map_or(tensor.data.len() / 4, |size| tensor.data.len() / size);
    let data = match tensor.datatype {
        _ if binary => tensor.data.len(),
        DataType::Fp32 | DataType::Fp16 => elements * 12,
        DataType::Fp64 => elements * 20,
        _ => tensor.data.len() + elements * 4,
    };
    data + 128
}

fn write_output(out: &mut Vec<u8>, pair: &Pair<'_>) -> Result<()> {
    out.extend_from_slice(b"{\"name\":");
    write_string(out, &pair.spec.name);
    out.extend_from_slice(b",\"datatype\":\"");
    out.extend_from_slice(pair.tensor.datatype.name().as_bytes());
    out.extend_from_slice(b"\",\"shape\":[");
    for (number, dim) in pair.tensor.shape.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        write_integer(out, *dim);
    }
    out.push(b']');
    if let Some(placed) = pair.placed {
        write_place(out, placed, pair.tensor.data.len());
    } else if pair.binary {
        out.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
        write_integer(out, pair.tensor.data.len());
        out.push(b'}');
    } else {
        out.extend_from_slice(b",\"data\":[");
        write_data(out, &pair.spec.name, pair.tensor)?;
        out.push(b']');
    }
    out.push(b'}');
    Ok(())
}

/// Writes the location of an output of `bytes` bytes in shared memory.
fn write_place(out: &mut Vec<u8>, placed: &RegionSlice, bytes: usize) {
    out.extend_from_slice(b",\"parameters\":{\"shared_memory_region\":");
    write_string(out, &placed.region);
    out.extend_from_slice(b",\"shared_memory_byte_size\":");
    write_integer(out, bytes);
    if placed.offset > 0 {
        out.extend_from_slice(b",\"shared_memory_offset\":");
        write_integer(out, placed.offset);
    }
    out.push(b'}');
}

/// Writes the elements of `tensor`, flat.
pub(super) fn write_data(out: &mut Vec<u8>, name: &str, tensor: &Tensor) -> Result<()> {
    let data = &tensor.data;
    match tensor.datatype {
        DataType::Bool => each(out, data, |out, [byte]| {
            out.extend_from_slice(if byte == 0 { b"false" } else { b"true" });
        }),
        DataType::Uint8 => each(out, data, |out, bytes| write_integer(out, u8::from_le_bytes(bytes))),
        DataType::Uint16 => each(out, data, |out, bytes| write_integer(out, u16::from_le_bytes(bytes))),
        DataType::Uint32 => each(out, data, |out, bytes| write_integer(out, u32::from_le_bytes(bytes))),
        DataType::Uint64 => each(out, data, |out, bytes| write_integer(out, u64::from_le_bytes(bytes))),
        DataType::Int8 => each(out, data, |out, bytes| write_integer(out, i8::from_le_bytes(bytes))),
        DataType::Int16 => each(out, data, |out, bytes| write_integer(out, i16::from_le_bytes(bytes))),
        DataType::Int32 => each(out, data, |out, bytes| write_integer(out, i32::from_le_bytes(bytes))),
        DataType::Int64 => each(out, data, |out, bytes| write_integer(out, i64::from_le_bytes(bytes))),
        DataType::Fp16 => each(out, data, |out, bytes| {
            let value = f32::from(f16::from_le_bytes(bytes));
            write_float(out, value, value.is_finite(), value.is_nan(), value < 0.0);
        }),
        DataType::Fp32 => each(out, data, |out, bytes| {
            let value = f32::from_le_bytes(bytes);
            write_float(out, value, value.is_finite(), value.is_nan(), value < 0.0);
        }),
        DataType::Fp64 => each(out, data, |out, bytes| {
            let value = f64::from_le_bytes(bytes);
            write_float(out, value, value.is_finite(), value.is_nan(), value < 0.0);
        }),
        DataType::Bf16 => return Err(bf16_in_json(name)),
        DataType::Bytes => return write_texts(out, name, data),
    }
    Ok(())
}

/// Writes every element of `N` bytes, separated by commas.
#[inline]
fn each<const N: usize>(out: &mut Vec<u8>, data: &[u8], write: impl Fn(&mut Vec<u8>, [u8; N])) {
    let (elements, _) = data.as_chunks::<N>();
    for element in elements {
        write(out, *element);
        out.push(b',');
    }
    if !elements.is_empty() {
        out.pop();
    }
}

/// Null is a missing text, as in a pipeline that returns one of its inputs.
fn write_texts(out: &mut Vec<u8>, name: &str, data: &[u8]) -> Result<()> {
    for (index, element) in texts(data).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let Some(element) = element else {
            out.extend_from_slice(b"null");
            continue;
        };
        let text = std::str::from_utf8(element).map_err(|_| {
            invalid(format!(
                "output '{name}': element {index} is not UTF-8, which JSON cannot carry; request it with \
                 parameter binary_data: true, or for all with binary_data_output: true"
            ))
        })?;
        write_string(out, text);
    }
    Ok(())
}

#[inline]
pub(super) fn write_integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[inline]
fn write_float(out: &mut Vec<u8>, value: impl ryu::Float, finite: bool, nan: bool, negative: bool) {
    if finite {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    } else if nan {
        out.extend_from_slice(b"NaN");
    } else {
        out.extend_from_slice(if negative { b"-Infinity" } else { b"Infinity" });
    }
}

/// Writes `text` as a JSON string.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
        let byte = rest[end];
        out.extend_from_slice(&rest[..end]);
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
        rest = &rest[end + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

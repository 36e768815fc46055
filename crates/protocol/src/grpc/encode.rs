//! A response to a `ModelInferResponse`, unary or in a stream.
//!
//! Reads tensors, hands on messages that share the tensors' bytes: always `raw_output_contents`, as in Triton. In a
//! stream every message says in `triton_final_response` whether it is the last of its request; failures are in-band
//! and end only their own request. Does not know of the stream itself.

use bytes::Bytes;
use inferd_types::{Error, ErrorKind, InferResponse, Result, Signature};

use super::decode::Parameters;
use crate::options::RequestOptions;
use crate::pb::inference::infer_parameter::ParameterChoice;
use crate::pb::inference::model_infer_response::InferOutputTensor;
use crate::pb::inference::{InferParameter, ModelInferResponse, ModelStreamInferResponse};
use crate::region::RegionSlice;

/// Marks the last response of a request in a stream.
const FINAL: &str = "triton_final_response";

/// Encodes the response of `model` (name and version) to the request `id`.
///
/// # Errors
/// `Internal` if the response does not match the signature.
pub fn encode_infer(
    model: (&str, u64),
    id: Option<&str>,
    signature: &Signature,
    options: &RequestOptions,
    response: &InferResponse,
) -> Result<ModelInferResponse> {
    let selected = options.outputs.resolve(signature);
    let mut message = head(model, id);
    message.outputs.reserve_exact(selected.len());
    message.raw_output_contents.reserve_exact(selected.len());
    for output in selected {
        let (Some(spec), Some(tensor)) =
            (signature.outputs.get(output.index), response.outputs.get(output.index))
        else {
            return Err(Error::new(ErrorKind::Internal, "the response lacks an output of the signature"));
        };
        let placed = options.placed.iter().find(|(index, _)| *index == output.index).map(|(_, slice)| slice);
        message.outputs.push(InferOutputTensor {
            name: spec.name.as_ref().to_owned(),
            datatype: tensor.datatype.name().to_owned(),
            // A dimension beyond i64 is impossible: the tensor's element count fits one.
            shape: tensor.shape.iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX)).collect(),
            parameters: placed.map(|slice| place(slice, tensor.data.len())).unwrap_or_default(),
            contents: None,
        });
        // Clients find contents by the output's index: an output in shared memory has empty ones.
        let contents = if placed.is_some() { Bytes::new() } else { tensor.data.clone() };
        message.raw_output_contents.push(contents);
    }
    Ok(message)
}

/// Wraps a response for a stream. `last`: no other follows to the same request.
pub fn stream_response(mut message: ModelInferResponse, last: bool) -> ModelStreamInferResponse {
    message.parameters.insert(FINAL.to_owned(), flag(last));
    ModelStreamInferResponse { error_message: String::new(), infer_response: Some(message) }
}

/// The end of a request whose last response was not marked as such; sent only if requested with
/// [`RequestOptions::empty_final_response`].
pub fn empty_final_response(model: (&str, u64), id: Option<&str>) -> ModelStreamInferResponse {
    stream_response(head(model, id), true)
}

/// A failure in a stream: it ends the request `id`, not the stream. The parameter `status` is the status code of a
/// unary call.
pub fn stream_error(id: Option<&str>, error: &Error) -> ModelStreamInferResponse {
    let mut message = ModelInferResponse { id: id.unwrap_or_default().to_owned(), ..Default::default() };
    let status = ParameterChoice::Int64Param(error.kind().grpc_code().into());
    message.parameters.insert("status".to_owned(), InferParameter { parameter_choice: Some(status) });
    let mut response = stream_response(message, true);
    // Clients recognize a failure by a message that is not empty.
    let text = if error.message().is_empty() { error.kind().label() } else { error.message() };
    response.error_message = text.to_owned();
    response
}

fn head(model: (&str, u64), id: Option<&str>) -> ModelInferResponse {
    ModelInferResponse {
        model_name: model.0.to_owned(),
        model_version: model.1.to_string(),
        id: id.unwrap_or_default().to_owned(),
        ..Default::default()
    }
}

/// The location of an output of `bytes` bytes in shared memory.
fn place(slice: &RegionSlice, bytes: usize) -> Parameters {
    let number = |number: u64| ParameterChoice::Int64Param(i64::try_from(number).unwrap_or(i64::MAX));
    let mut values = vec![
        ("shared_memory_region", ParameterChoice::StringParam(slice.region.clone())),
        ("shared_memory_byte_size", number(bytes as u64)),
    ];
    if slice.offset > 0 {
        values.push(("shared_memory_offset", number(slice.offset)));
    }
    let parameter =
        |(name, value): (&str, _)| (name.to_owned(), InferParameter { parameter_choice: Some(value) });
    values.into_iter().map(parameter).collect()
}

fn flag(value: bool) -> InferParameter {
    InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(value)) }
}

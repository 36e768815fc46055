//! A `ModelInferRequest` to a [`Decoded`] request.
//!
//! Reads the message that tonic has parsed, hands on tensors; raw contents stay slices of the received message.
//! Does not know which model is meant: `model_name` and `model_version` are the router's.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use inferd_types::{Error, Result, Shape, Signature, shown};
use smallvec::SmallVec;

use super::contents;
use crate::check::{Claim, Inputs, Whole};
use crate::invalid::invalid;
use crate::options::{self, OutputSelection, RequestParameters, TensorParameters, Value};
use crate::pb::inference::infer_parameter::ParameterChoice;
use crate::pb::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::pb::inference::{InferParameter, ModelInferRequest};
use crate::{Decoded, Limits, RegionSlice, RequestOptions};

/// Decodes an inference request, by the same rules as REST.
///
/// # Errors
/// `Unimplemented` if it needs a feature that is off, else `InvalidInput` with what was expected.
pub fn decode_infer(request: ModelInferRequest, signature: &Signature, limits: &Limits) -> Result<Decoded> {
    let mut parameters = RequestParameters::default();
    for (name, value) in &request.parameters {
        parameters.take(name, &as_value(value))?;
    }
    let mut options = parameters.finish()?;
    options.outputs = requested(&request.outputs, signature, limits, &mut options)?;
    let inputs = decode_inputs(request.inputs, request.raw_input_contents, signature, limits)?;
    let Whole { tensors: inputs, outside, widened_bytes } = inputs.finish()?;
    let id = (!request.id.is_empty()).then_some(request.id);
    Ok(Decoded { id, inputs, outside, widened_bytes, options })
}

fn decode_inputs<'s>(
    tensors: Vec<InferInputTensor>,
    raw: Vec<Bytes>,
    signature: &'s Signature,
    limits: &Limits,
) -> Result<Inputs<'s>> {
    let mut inputs = Inputs::new(signature);
    let raw_form = !raw.is_empty();
    // Names and types first: an unknown input is more useful to the client than a count that follows from it.
    let mut claimed: SmallVec<[(Claim, Shape); 2]> = SmallVec::with_capacity(tensors.len());
    let mut inside: SmallVec<[InferInputTensor; 2]> = SmallVec::with_capacity(tensors.len());
    for tensor in tensors {
        let (claim, shape, slice) = claim(&mut inputs, &tensor, raw_form, limits)?;
        if let Some(slice) = slice {
            inputs.refer(claim, shape, slice)?;
            continue;
        }
        claimed.push((claim, shape));
        inside.push(tensor);
    }
    if raw_form && raw.len() != inside.len() {
        return Err(invalid(format!(
            "raw_input_contents has {} elements but there are {} inputs; one for each is expected",
            raw.len(),
            inside.len()
        )));
    }
    if raw_form {
        for ((claim, shape), data) in claimed.into_iter().zip(raw) {
            inputs.put(claim, shape, data)?;
        }
    } else {
        for ((claim, shape), tensor) in claimed.into_iter().zip(inside) {
            let input = inputs.input(claim.index);
            // Without contents a tensor of zero elements is complete; any other fails in the count.
            let contents = tensor.contents.unwrap_or_default();
            let empty = contents == Default::default();
            let data = if empty && shape.contains(&0) {
                Bytes::new()
            } else {
                contents::encode(claim.sent, contents).map_err(|error| error.within(input))?
            };
            inputs.put(claim, shape, data)?;
        }
    }
    Ok(inputs)
}

/// Checks the name, type and shape of one input.
fn claim(
    inputs: &mut Inputs<'_>,
    tensor: &InferInputTensor,
    raw_form: bool,
    limits: &Limits,
) -> Result<(Claim, Shape, Option<RegionSlice>)> {
    let index = inputs.claim(&tensor.name)?;
    let here = inputs.input(index);
    let mut parameters = TensorParameters::default();
    for (name, value) in &tensor.parameters {
        parameters.take(name, &as_value(value)).map_err(|error| error.within(here))?;
    }
    let mut shape = Shape::with_capacity(tensor.shape.len());
    for dim in &tensor.shape {
        shape.push(u64::try_from(*dim).map_err(|_| {
            invalid(format!("{here} has dimension {dim} in its shape; 0 or more is expected"))
        })?);
    }
    let claim = inputs.check(index, &tensor.datatype, &shape)?;
    if let Some(columns) = &parameters.columns {
        inputs.check_columns(index, columns)?;
    }
    let slice = parameters.slice(limits).map_err(|error| error.within(here))?;
    if slice.is_some() && tensor.contents.is_some() {
        return Err(invalid(format!("{here} has contents and is in shared memory; one of them is expected")));
    }
    if raw_form && tensor.contents.is_some() {
        return Err(invalid(format!(
            "{here} has contents although raw_input_contents is there; one form for all inputs is expected"
        )));
    }
    Ok((claim, shape, slice))
}

fn requested(
    outputs: &[InferRequestedOutputTensor],
    signature: &Signature,
    limits: &Limits,
    options: &mut RequestOptions,
) -> Result<OutputSelection> {
    if outputs.is_empty() {
        return Ok(OutputSelection::All { binary: true });
    }
    let mut requested = SmallVec::with_capacity(outputs.len());
    for output in outputs {
        let mut parameters = TensorParameters::default();
        let within = |error: Error| error.within(format_args!("output '{}'", shown(&output.name)));
        for (name, value) in &output.parameters {
            parameters.take(name, &as_value(value)).map_err(within)?;
        }
        let slice = parameters.slice(limits).map_err(within)?;
        let index = options::request_output(signature, &mut requested, &output.name, true)?;
        options.placed.extend(slice.map(|slice| (index, slice)));
        options.classes.extend(parameters.classes.map(|count| (index, count)));
    }
    Ok(OutputSelection::Named(requested))
}

fn as_value(parameter: &InferParameter) -> Value<'_> {
    match &parameter.parameter_choice {
        Some(ParameterChoice::BoolParam(value)) => Value::Bool(*value),
        Some(ParameterChoice::Int64Param(value)) => Value::Int(*value),
        Some(ParameterChoice::Uint64Param(value)) => Value::Uint(*value),
        Some(ParameterChoice::DoubleParam(value)) => Value::Float(*value),
        Some(ParameterChoice::StringParam(value)) => Value::Text(Cow::Borrowed(value)),
        None => Value::Other,
    }
}

/// The parameters of a message.
pub(super) type Parameters = HashMap<String, InferParameter>;

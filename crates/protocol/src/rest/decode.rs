//! The body of `POST …/infer` to a [`Decoded`] request.
//!
//! Reads JSON once, hands on tensors: numbers are parsed straight into their bytes, raw tensors after the JSON stay
//! slices of the body. Members may come in any order; unknown ones are skipped. Does not know which model is meant:
//! the path names it.

use std::borrow::Cow;

use bytes::Bytes;
use inferd_types::{Error, ErrorKind, Result, Shape, Signature, shown};
use smallvec::SmallVec;

use super::input::{Data, InputObject, read_data};
use super::members::{once, read_parameters};
use super::raw;
use super::scan::Scanner;
use crate::check::{Claim, Inputs, Whole};
use crate::decoded::Decoded;
use crate::invalid::invalid;
use crate::limits::Limits;
use crate::options::{self, OutputSelection, RequestParameters, RequestedOutput, TensorParameters};
use crate::region::RegionSlice;

/// Decodes the body of an inference request.
///
/// `header_length` is the value of `Inference-Header-Content-Length`: the end of the JSON and the beginning of raw
/// tensors; 0: there is no JSON, and the body is the only input.
///
/// # Errors
/// `TooLarge` if the body exceeds the limit, `Unimplemented` if it needs a feature that is off, else `InvalidInput`
/// with what was expected.
pub fn decode_infer(
    body: Bytes,
    header_length: Option<usize>,
    signature: &Signature,
    limits: &Limits,
) -> Result<Decoded> {
    if body.len() > limits.body_max_bytes {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("the body has {} bytes but body_max_bytes is {}", body.len(), limits.body_max_bytes),
        ));
    }
    if header_length == Some(0) {
        return raw::decode(body, signature);
    }
    let json_length = json_length(&body, header_length)?;
    let mut request = Request {
        inputs: Inputs::new(signature),
        signature,
        id: None,
        raw: SmallVec::new(),
        parameters: RequestParameters::default(),
        requested: None,
        limits,
    };
    let mut scanner = Scanner::new(&body[..json_length], limits.json_depth_max);
    request.read(&mut scanner)?;
    request.take_raw(body.slice(json_length..), header_length.is_some())?;
    request.finish()
}

/// The length of the JSON in bytes.
fn json_length(body: &Bytes, header_length: Option<usize>) -> Result<usize> {
    match header_length {
        Some(length) if length > body.len() => Err(invalid(format!(
            "Inference-Header-Content-Length is {length} but the body has {} bytes; \
             the length of the JSON is expected",
            body.len()
        ))),
        length => Ok(length.unwrap_or(body.len())),
    }
}

/// An output as the client wrote it; its form depends on the whole request.
struct OutputObject<'a> {
    name: Cow<'a, str>,
    binary: Option<bool>,
    slice: Option<RegionSlice>,
    classes: Option<usize>,
}

/// An input whose raw bytes are after the JSON.
struct RawInput {
    claim: Claim,
    shape: Shape,
    size: usize,
}

/// A request while it is read.
struct Request<'s, 'a> {
    inputs: Inputs<'s>,
    signature: &'s Signature,
    id: Option<String>,
    /// In the order of the JSON, which is that of the bytes.
    raw: SmallVec<[RawInput; 2]>,
    parameters: RequestParameters,
    requested: Option<SmallVec<[OutputObject<'a>; 2]>>,
    limits: &'s Limits,
}

impl<'a> Request<'_, 'a> {
    fn read(&mut self, scanner: &mut Scanner<'a>) -> Result<()> {
        let (mut has_id, mut has_inputs, mut has_parameters) = (false, false, false);
        let mut first = true;
        scanner.open(b'{')?;
        while let Some(key) = scanner.key(&mut first)? {
            match &*key {
                "id" => {
                    once(&mut has_id, "id")?;
                    if !scanner.eat_word(b"null") {
                        let id = scanner.string().map_err(|error| error.within("id"))?;
                        self.id = (!id.is_empty()).then(|| id.into_owned());
                    }
                }
                "inputs" => {
                    once(&mut has_inputs, "inputs")?;
                    self.read_inputs(scanner)?;
                }
                "outputs" => {
                    once(&mut self.requested.is_some(), "outputs")?;
                    self.requested = Some(SmallVec::new());
                    self.read_outputs(scanner)?;
                }
                "parameters" => {
                    once(&mut has_parameters, "parameters")?;
                    let parameters = &mut self.parameters;
                    read_parameters(scanner, |name, value| parameters.take(name, &value))?;
                }
                _ => scanner.skip_value()?,
            }
        }
        scanner.end()
    }

    fn read_inputs(&mut self, scanner: &mut Scanner<'a>) -> Result<()> {
        let mut first = true;
        scanner.open(b'[').map_err(|error| error.within("inputs"))?;
        while scanner.another(&mut first, b']')? {
            let mut input = InputObject::default();
            input.read(scanner, &mut self.inputs)?;
            self.take_input(scanner, input)?;
        }
        Ok(())
    }

    /// Adds an input whose object was read to its end.
    fn take_input(&mut self, scanner: &Scanner<'a>, mut input: InputObject<'a>) -> Result<()> {
        let claim = input.claim(&mut self.inputs)?;
        let here = self.inputs.input(claim.index);
        if let Some(columns) = &input.parameters.columns {
            self.inputs.check_columns(claim.index, columns)?;
        }
        let shape = input.shape.unwrap_or_default();
        let slice = input.parameters.slice(self.limits).map_err(|error| error.within(here))?;
        if let Some(slice) = slice {
            if input.data.is_some() || input.parameters.binary_data_size.is_some() {
                return Err(invalid(format!(
                    "{here} has data and is in shared memory; one of them is expected"
                )));
            }
            return self.inputs.refer(claim, shape, slice);
        }
        match (input.data, input.parameters.binary_data_size) {
            (None, Some(size)) => {
                self.raw.push(RawInput { claim, shape, size });
                Ok(())
            }
            (Some(data), None) => {
                let bytes = match data {
                    Data::Read(bytes) => bytes,
                    Data::Later(mark) => read_data(&mut scanner.resume(mark), &self.inputs, claim, &shape)?,
                };
                self.inputs.put(claim, shape, Bytes::from(bytes))
            }
            (Some(_), Some(_)) => {
                Err(invalid(format!("{here} has both data and binary_data_size; one of them is expected")))
            }
            (None, None) => {
                Err(invalid(format!("{here} has no data; an array of {} elements is expected", claim.count)))
            }
        }
    }

    fn read_outputs(&mut self, scanner: &mut Scanner<'a>) -> Result<()> {
        if scanner.eat_word(b"null") {
            return Ok(());
        }
        let mut first = true;
        scanner.open(b'[').map_err(|error| error.within("outputs"))?;
        while scanner.another(&mut first, b']')? {
            let mut name = None;
            let mut parameters = TensorParameters::default();
            let mut first = true;
            scanner.open(b'{').map_err(|error| error.within("outputs"))?;
            while let Some(key) = scanner.key(&mut first)? {
                match &*key {
                    "name" => {
                        once(&mut name.is_some(), "name")?;
                        name = Some(scanner.string()?);
                    }
                    "parameters" => read_parameters(scanner, |name, value| parameters.take(name, &value))?,
                    _ => scanner.skip_value()?,
                }
            }
            let name =
                name.ok_or_else(|| invalid("an element of outputs has no name; a string is expected"))?;
            let place = |error: Error| error.within(format_args!("output '{}'", shown(&name)));
            let slice = parameters.slice(self.limits).map_err(place)?;
            if let Some(requested) = &mut self.requested {
                requested.push(OutputObject {
                    name,
                    binary: parameters.binary_data,
                    slice,
                    classes: parameters.classes,
                });
            }
        }
        Ok(())
    }

    /// Slices the raw inputs out of what follows the JSON.
    fn take_raw(&mut self, mut rest: Bytes, has_header_length: bool) -> Result<()> {
        for raw in std::mem::take(&mut self.raw) {
            let here = self.inputs.input(raw.claim.index);
            if !has_header_length {
                return Err(invalid(format!(
                    "{here} has binary_data_size but the header Inference-Header-Content-Length is missing; \
                     the length of the JSON is expected there"
                )));
            }
            if raw.size > rest.len() {
                return Err(invalid(format!(
                    "{here} has binary_data_size {} but {} bytes are left after the JSON",
                    raw.size,
                    rest.len()
                )));
            }
            self.inputs.put(raw.claim, raw.shape, rest.split_to(raw.size))?;
        }
        if !rest.is_empty() {
            return Err(invalid(format!(
                "{} bytes after the JSON belong to no input; the sum of all binary_data_size is expected",
                rest.len()
            )));
        }
        Ok(())
    }

    fn finish(self) -> Result<Decoded> {
        let Whole { tensors: inputs, outside, widened_bytes } = self.inputs.finish()?;
        let binary = self.parameters.binary_data_output;
        let mut options = self.parameters.finish()?;
        options.outputs = match self.requested {
            Some(objects) if !objects.is_empty() => {
                let mut requested: SmallVec<[RequestedOutput; 2]> = SmallVec::new();
                for output in objects {
                    let binary = output.binary.unwrap_or(binary);
                    let index =
                        options::request_output(self.signature, &mut requested, &output.name, binary)?;
                    options.placed.extend(output.slice.map(|slice| (index, slice)));
                    options.classes.extend(output.classes.map(|count| (index, count)));
                }
                OutputSelection::Named(requested)
            }
            _ => OutputSelection::All { binary },
        };
        options::check_json_outputs(&options, self.signature)?;
        Ok(Decoded { id: self.id, inputs, outside, widened_bytes, options })
    }
}

/// Decodes the body of `POST /v2/repository/index`, which may be empty: whether only ready models are wanted.
///
/// # Errors
/// `InvalidInput` if the body is not JSON of that form.
pub fn decode_index_ready(body: &[u8], limits: &Limits) -> Result<bool> {
    let mut scanner = Scanner::new(body, limits.json_depth_max);
    if scanner.peek().is_none() {
        return Ok(false);
    }
    let mut ready = false;
    let mut first = true;
    scanner.open(b'{')?;
    while let Some(key) = scanner.key(&mut first)? {
        if &*key != "ready" {
            scanner.skip_value()?;
            continue;
        }
        ready = match scanner.value()? {
            options::Value::Bool(ready) => ready,
            _ => return Err(invalid("'ready' must be true or false")),
        };
    }
    scanner.end()?;
    Ok(ready)
}

//! Request parameters: their meaning, and which of them need a feature that is off.
//!
//! Reads names and values from `rest` and `grpc`, hands on [`RequestOptions`]. Does not know how a parameter was
//! encoded.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use inferd_types::{DataType, Error, Result, Sequence, SequenceId, Signature, shown};
use smallvec::SmallVec;

use crate::check;
use crate::invalid::invalid;
use crate::limits::Limits;
use crate::region::{self, RegionSlice};

/// A request's options. Unknown parameters are kept for the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestOptions {
    /// Parameter `priority`; 0 is served first. `None`: the model's default.
    pub priority: Option<u8>,
    /// Parameter `timeout`, sent in microseconds. `None` (or 0 as sent): no timeout.
    pub timeout: Option<Duration>,
    /// The outputs of the response, and their form.
    pub outputs: OutputSelection,
    /// Parameter `triton_enable_empty_final_response`: a stream that ends without a further output ends with an
    /// empty response marked as the final one.
    pub empty_final_response: bool,
    /// Outputs in shared memory instead of the response, by index in the signature.
    pub placed: Vec<(usize, RegionSlice)>,
    /// Outputs with classification, by index in the signature, and the number of classes: see [`crate::classify`].
    pub classes: Vec<(usize, usize)>,
    /// Parameters `sequence_id`, `sequence_start` and `sequence_end`. `None` (or 0, or empty as sent): none.
    pub sequence: Option<Arc<Sequence>>,
    /// Other parameters, for the model: numbers, text and booleans.
    pub parameters: Vec<(String, serde_json::Value)>,
}

/// Which outputs the response has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputSelection {
    /// Every output of the signature, in its order.
    All {
        /// As raw bytes after the JSON. No effect in gRPC, which is always raw.
        binary: bool,
    },
    /// These, in the client's order.
    Named(SmallVec<[RequestedOutput; 2]>),
}

impl Default for OutputSelection {
    fn default() -> Self {
        OutputSelection::All { binary: false }
    }
}

/// One requested output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestedOutput {
    /// Its index in the signature.
    pub index: usize,
    /// As raw bytes after the JSON. No effect in gRPC.
    pub binary: bool,
}

impl OutputSelection {
    /// The outputs to send, in the order of the response.
    pub fn resolve(&self, signature: &Signature) -> SmallVec<[RequestedOutput; 2]> {
        match self {
            OutputSelection::All { binary } => {
                (0..signature.outputs.len()).map(|index| RequestedOutput { index, binary: *binary }).collect()
            }
            OutputSelection::Named(requested) => requested.clone(),
        }
    }
}

/// The value of a parameter in either encoding.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(Cow<'a, str>),
    /// An array, an object, null, or bytes.
    Other,
}

impl Value<'_> {
    pub(crate) fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Int(value) => u64::try_from(*value).ok(),
            Value::Uint(value) => Some(*value),
            _ => None,
        }
    }

    fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// `None` unless it is a number, text or a boolean.
    fn to_json(&self) -> Option<serde_json::Value> {
        match self {
            Value::Bool(value) => Some((*value).into()),
            Value::Int(value) => Some((*value).into()),
            Value::Uint(value) => Some((*value).into()),
            Value::Float(value) => serde_json::Number::from_f64(*value).map(Into::into),
            Value::Text(value) => Some(value.as_ref().into()),
            Value::Other => None,
        }
    }

    /// Whether the value has an effect: clients send `sequence_id: 0` for *no sequence*.
    fn is_set(&self) -> bool {
        match self {
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Uint(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Text(value) => !value.is_empty(),
            Value::Other => true,
        }
    }
}

/// The parameters of the request as a whole, while they are read.
#[derive(Debug, Default)]
pub(crate) struct RequestParameters {
    options: RequestOptions,
    pub(crate) binary_data_output: bool,
    sequence_id: Option<SequenceId>,
    sequence_start: bool,
    sequence_end: bool,
}

impl RequestParameters {
    /// Adds one parameter.
    pub(crate) fn take(&mut self, name: &str, value: &Value<'_>) -> Result<()> {
        match name {
            "priority" => {
                let class = value.as_u64().and_then(|class| u8::try_from(class).ok());
                self.options.priority = Some(class.ok_or_else(|| wrong(name, "an integer from 0 to 255"))?);
            }
            "timeout" => {
                let micros = match value {
                    Value::Text(text) => text.parse().ok(),
                    number => number.as_u64(),
                };
                let micros = micros.ok_or_else(|| wrong(name, "a number of microseconds, 0 or more"))?;
                self.options.timeout = (micros != 0).then(|| Duration::from_micros(micros));
            }
            "binary_data_output" => {
                self.binary_data_output = value.as_bool().ok_or_else(|| wrong(name, "true or false"))?;
            }
            "triton_enable_empty_final_response" => {
                self.options.empty_final_response =
                    value.as_bool().ok_or_else(|| wrong(name, "true or false"))?;
            }
            "sequence_id" => {
                self.sequence_id = match value {
                    value if !value.is_set() => None,
                    Value::Text(text) => Some(SequenceId::Text(text.as_ref().into())),
                    number => Some(SequenceId::Number(
                        number.as_u64().ok_or_else(|| wrong(name, "text, or an integer of 0 or more"))?,
                    )),
                };
            }
            "sequence_start" => {
                self.sequence_start = value.as_bool().ok_or_else(|| wrong(name, "true or false"))?;
            }
            "sequence_end" => {
                self.sequence_end = value.as_bool().ok_or_else(|| wrong(name, "true or false"))?;
            }
            name => self.options.parameters.extend(value.to_json().map(|value| (name.to_owned(), value))),
        }
        Ok(())
    }

    /// The options.
    ///
    /// # Errors
    /// `InvalidInput` if a sequence without an id starts or ends.
    pub(crate) fn finish(self) -> Result<RequestOptions> {
        let RequestParameters { mut options, sequence_id, sequence_start: start, sequence_end: end, .. } =
            self;
        options.sequence = sequence_id.map(|id| Arc::new(Sequence { id, start, end }));
        if options.sequence.is_none() && (start || end) {
            let which = if start { "sequence_start" } else { "sequence_end" };
            return Err(invalid(format!("parameter '{which}' needs sequence_id: a number but 0, or text")));
        }
        Ok(options)
    }
}

/// The parameters of one input or output.
#[derive(Clone, Debug, Default)]
pub(crate) struct TensorParameters {
    /// Parameter `binary_data_size` of an input.
    pub(crate) binary_data_size: Option<usize>,
    /// Parameter `binary_data` of an output.
    pub(crate) binary_data: Option<bool>,
    /// Parameter `classification` of an output.
    pub(crate) classes: Option<usize>,
    /// Parameter `columns` of an input: a JSON array of names.
    pub(crate) columns: Option<String>,
    region: Option<String>,
    region_bytes: Option<u64>,
    region_offset: Option<u64>,
}

impl TensorParameters {
    /// Adds one parameter.
    pub(crate) fn take(&mut self, name: &str, value: &Value<'_>) -> Result<()> {
        match name {
            "binary_data_size" => {
                let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
                self.binary_data_size =
                    Some(size.ok_or_else(|| wrong(name, "a number of bytes, 0 or more"))?);
            }
            "binary_data" => {
                self.binary_data = Some(value.as_bool().ok_or_else(|| wrong(name, "true or false"))?);
            }
            "classification" if value.is_set() => {
                let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
                self.classes = Some(count.ok_or_else(|| wrong(name, "a number of classes, 1 or more"))?);
            }
            "columns" => {
                let Value::Text(names) = value else {
                    return Err(wrong(name, "text: a JSON array of names"));
                };
                self.columns = Some(names.to_string());
            }
            "shared_memory_region" if value.is_set() => {
                let Value::Text(region) = value else { return Err(wrong(name, "the name of a region")) };
                self.region = Some(region.to_string());
            }
            "shared_memory_byte_size" | "shared_memory_offset" if value.is_set() => {
                let number = value.as_u64().ok_or_else(|| wrong(name, "a number of bytes, 0 or more"))?;
                let place = match name {
                    "shared_memory_offset" => &mut self.region_offset,
                    _ => &mut self.region_bytes,
                };
                *place = Some(number);
            }
            _ => {}
        }
        Ok(())
    }

    /// The tensor's location in shared memory; `None`: in the request.
    ///
    /// # Errors
    /// `Unimplemented` if shared memory is off, `InvalidInput` if the location is incomplete.
    pub(crate) fn slice(&mut self, limits: &Limits) -> Result<Option<RegionSlice>> {
        let offset = self.region_offset.take();
        match (self.region.take(), self.region_bytes.take()) {
            (None, None) if offset.is_none() => Ok(None),
            (region, _) if !limits.shared_memory => {
                let more = if offset.is_some() { "shared_memory_offset" } else { "shared_memory_byte_size" };
                Err(region::is_off(if region.is_some() { "shared_memory_region" } else { more }))
            }
            (Some(region), Some(bytes)) => {
                Ok(Some(RegionSlice { region, offset: offset.unwrap_or_default(), bytes }))
            }
            _ => Err(invalid(
                "a tensor in shared memory needs the parameters shared_memory_region and shared_memory_byte_size; \
                 give both",
            )),
        }
    }
}

/// Adds the output `name` to the requested ones, and returns its index in the signature.
pub(crate) fn request_output(
    signature: &Signature,
    requested: &mut SmallVec<[RequestedOutput; 2]>,
    name: &str,
    binary: bool,
) -> Result<usize> {
    let Some(index) = signature.outputs.iter().position(|output| &*output.name == name) else {
        let known = check::names(&signature.outputs);
        return Err(invalid(format!("unknown output '{}'; the model gives {known}", shown(name))));
    };
    if requested.iter().any(|output| output.index == index) {
        return Err(invalid(format!("output '{name}' is requested twice; request it once")));
    }
    requested.push(RequestedOutput { index, binary });
    Ok(index)
}

/// Refuses outputs that JSON can't carry before the model runs in vain.
pub(crate) fn check_json_outputs(options: &RequestOptions, signature: &Signature) -> Result<()> {
    for output in options.outputs.resolve(signature) {
        let spec = &signature.outputs[output.index];
        let placed = options.placed.iter().any(|(index, _)| *index == output.index);
        if !placed && spec.datatype == DataType::Bf16 && !output.binary {
            return Err(bf16_in_json(&spec.name));
        }
    }
    Ok(())
}

/// The error for a BF16 output requested as JSON.
pub(crate) fn bf16_in_json(name: &str) -> Error {
    invalid(format!(
        "output '{name}' is BF16, which JSON cannot carry; request it with parameter binary_data: true, \
         or for all with binary_data_output: true"
    ))
}

fn wrong(name: &str, expected: &str) -> Error {
    invalid(format!("parameter '{name}' must be {expected}"))
}

#[cfg(test)]
mod tests {
    use inferd_types::ErrorKind;

    use super::*;

    fn take(name: &str, value: Value<'_>) -> Result<RequestOptions> {
        let mut parameters = RequestParameters::default();
        parameters.take(name, &value)?;
        parameters.finish()
    }

    #[test]
    fn a_timeout_is_in_microseconds_and_zero_means_none() {
        assert_eq!(take("timeout", Value::Int(1500)).unwrap().timeout, Some(Duration::from_micros(1500)));
        assert_eq!(take("timeout", Value::Text("7".into())).unwrap().timeout, Some(Duration::from_micros(7)));
        assert_eq!(take("timeout", Value::Int(0)).unwrap().timeout, None);
        for value in [Value::Int(-1), Value::Float(0.5), Value::Bool(true), Value::Text("soon".into())] {
            let error = take("timeout", value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.message().contains("microseconds"), "{error}");
        }
    }

    #[test]
    fn a_priority_is_one_byte() {
        assert_eq!(take("priority", Value::Uint(2)).unwrap().priority, Some(2));
        assert!(take("priority", Value::Uint(256)).unwrap_err().message().contains("0 to 255"));
    }

    #[test]
    fn a_sequence_has_a_name_and_may_begin_and_end() {
        let options = |given: &[(&str, Value<'_>)]| {
            let mut parameters = RequestParameters::default();
            given.iter().try_for_each(|(name, value)| parameters.take(name, value))?;
            parameters.finish()
        };
        let (start, end) = (("sequence_start", Value::Bool(true)), ("sequence_end", Value::Bool(true)));
        let found = options(&[start.clone(), ("sequence_id", Value::Uint(3))]).unwrap().sequence.unwrap();
        assert_eq!(*found, Sequence { id: SequenceId::Number(3), start: true, end: false });
        let found =
            options(&[("sequence_id", Value::Text("a".into())), end.clone()]).unwrap().sequence.unwrap();
        assert_eq!(*found, Sequence { id: SequenceId::Text("a".into()), start: false, end: true });
        for none in [Value::Int(0), Value::Text("".into())] {
            assert_eq!(
                options(&[("sequence_id", none), ("sequence_end", Value::Bool(false))]).unwrap().sequence,
                None
            );
        }
        for wrong in [
            vec![start],
            vec![end],
            vec![("sequence_id", Value::Int(-1))],
            vec![("sequence_id", Value::Other)],
        ] {
            let error = options(&wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.message().contains("sequence_"), "{error}");
        }
    }

    #[test]
    fn classes_are_counted_and_shared_memory_is_refused_by_name() {
        let mut parameters = TensorParameters::default();
        parameters.take("classification", &Value::Int(3)).unwrap();
        assert_eq!(parameters.classes, Some(3));
        let error = parameters.take("classification", &Value::Int(-1)).unwrap_err();
        assert!(error.message().contains("1 or more"), "{error}");
        parameters.take("shared_memory_region", &Value::Text("r".into())).unwrap();
        let error = parameters.slice(&Limits::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unimplemented);
        assert!(error.message().contains("shared_memory: true"), "{error}");
    }

    #[test]
    fn a_place_in_shared_memory_is_a_region_and_a_size() {
        let limits = Limits { shared_memory: true, ..Limits::default() };
        let slice = |given: &[(&str, Value<'_>)]| {
            let mut parameters = TensorParameters::default();
            given.iter().try_for_each(|(name, value)| parameters.take(name, value))?;
            parameters.slice(&limits)
        };
        let region = ("shared_memory_region", Value::Text("r".into()));
        let bytes = ("shared_memory_byte_size", Value::Int(16));
        let offset = ("shared_memory_offset", Value::Uint(4));
        assert_eq!(slice(&[]).unwrap(), None);
        let expected = RegionSlice { region: "r".into(), offset: 4, bytes: 16 };
        assert_eq!(slice(&[bytes.clone(), region.clone(), offset.clone()]).unwrap(), Some(expected));
        assert_eq!(slice(&[bytes.clone(), region.clone()]).unwrap().unwrap().offset, 0);
        for wrong in [
            vec![region.clone()],
            vec![bytes.clone()],
            vec![offset],
            vec![region, ("shared_memory_byte_size", Value::Int(-4))],
            vec![bytes, ("shared_memory_region", Value::Int(4))],
        ] {
            assert_eq!(slice(&wrong).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong:?}");
        }
    }

    #[test]
    fn an_unknown_parameter_is_the_models_where_it_is_a_plain_value() {
        assert_eq!(take("colour", Value::Other).unwrap(), RequestOptions::default());
        assert_eq!(take("heat", Value::Float(0.5)).unwrap().parameters, [("heat".to_owned(), 0.5.into())]);
    }
}

//! The tensors of a model that its clients don't see: inputs that the gateway fills, outputs that it keeps.
//!
//! Reads what the worker told and the settings, hands on the signature that clients see; turns their requests into the
//! worker's and its answers into theirs. Knows nothing of when a request runs.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use inferd_types::settings::{Control, LoadedModel, ModelSettings, SequenceSettings, StateSettings};
use inferd_types::{
    Batching, DataType, Error, ErrorKind, Extras, InferRequest, InferResponse, InputDefault, Result,
    SequenceId, Shape, Signature, Tensor, TensorSpec,
};
use serde_json::{Map, Value, json};
use smallvec::SmallVec;

/// Most bytes of headers and parameters of one request, all copies counted: a request of many rows is cut into parts,
/// each with its own.
const CONTEXTS_MAX_BYTES: u128 = 16 << 20;

/// What a model remembers of a sequence between two requests, in the order of its settings.
pub(crate) type SequenceState = SmallVec<[Tensor; 2]>;

/// What becomes of each tensor of the worker's signature.
#[derive(Debug)]
pub(crate) struct ImplicitTensors {
    /// Whether dimension 0 counts rows.
    batched: bool,
    /// Requests of more rows are cut into parts of so many.
    rows_max: u32,
    inputs: Vec<InputSource>,
    outputs: Vec<OutputSink>,
    /// What every sequence begins with.
    initial: SequenceState,
    /// The position of the input that says whose caller has gone.
    cancelled: Option<usize>,
    /// Makes the names under which a model remembers tenants' sequences.
    names: RandomState,
}

/// Where an input comes from.
#[derive(Clone, Debug)]
enum InputSource {
    Client,
    Control(Control, TensorSpec),
    State(usize),
}

/// Where an output goes.
#[derive(Clone, Copy, Debug)]
enum OutputSink {
    Client,
    State(usize),
}

impl ImplicitTensors {
    /// The signature that clients see, and how it becomes the worker's; `None` where they are the same.
    ///
    /// # Errors
    /// `InvalidInput` with the tensor that is not there or can't be what it is said to be.
    pub(crate) fn new(
        loaded: &LoadedModel,
        sequence: Option<&SequenceSettings>,
        rows_max: u32,
    ) -> Result<Option<(Signature, ImplicitTensors)>> {
        let signature = &loaded.signature;
        let mut controls: BTreeMap<&str, Control> =
            loaded.controls.iter().map(|(name, control)| (name.as_str(), *control)).collect();
        let none = Vec::new();
        let states = sequence.map_or(&none, |sequence| &sequence.state);
        controls.extend(
            sequence.iter().flat_map(|one| &one.controls).map(|(name, control)| (name.as_str(), *control)),
        );
        if controls.is_empty() && states.is_empty() {
            return Ok(None);
        }
        if signature.decoupled && !states.is_empty() {
            return Err(invalid(
                "a model that streams its responses can't give back state; leave sequence.state out",
            ));
        }
        for name in controls.keys().copied().chain(states.iter().map(|state| state.input.as_str())) {
            named(&signature.inputs, name, "input")?;
        }
        let initial =
            states.iter().map(|state| initial(state, signature)).collect::<Result<SequenceState>>()?;
        let source = |spec: &TensorSpec| {
            let mut of_state = states.iter().enumerate().filter(|(_, state)| *state.input == *spec.name);
            match (of_state.next(), of_state.next(), controls.get(&*spec.name)) {
                (None, None, None) => Ok(InputSource::Client),
                (Some((place, _)), None, None) => Ok(InputSource::State(place)),
                (None, None, Some(control)) => {
                    check_control(*control, spec).map(|()| InputSource::Control(*control, spec.clone()))
                }
                _ => Err(invalid(format!("sequence: input '{}' is named twice; name it once", spec.name))),
            }
        };
        let inputs = signature.inputs.iter().map(source).collect::<Result<Vec<_>>>()?;
        let drain = |spec: &TensorSpec| match states.iter().position(|state| *state.output == *spec.name) {
            Some(place) => OutputSink::State(place),
            None => OutputSink::Client,
        };
        let outputs: Vec<_> = signature.outputs.iter().map(drain).collect();
        let mut seen = Signature {
            inputs: seen(&signature.inputs, &inputs, |source| matches!(source, InputSource::Client)),
            outputs: seen(&signature.outputs, &outputs, |drain| matches!(drain, OutputSink::Client)),
            ..signature.clone()
        };
        seen.extras.defaults.retain(|default| seen.inputs.iter().any(|spec| spec.name == default.input));
        seen.extras.schemas.retain(|schema| seen.inputs.iter().any(|spec| spec.name == schema.input));
        seen.extras.labels.retain(|labels| seen.outputs.iter().any(|spec| spec.name == labels.output));
        let cancelled =
            inputs.iter().position(|source| matches!(source, InputSource::Control(Control::Cancelled, _)));
        let batched = signature.batched();
        let rows_max = rows_max.max(1);
        Ok(Some((
            seen,
            ImplicitTensors {
                batched,
                rows_max,
                inputs,
                outputs,
                initial,
                cancelled,
                names: RandomState::new(),
            },
        )))
    }

    /// Whether the model reads what comes with a request.
    pub(crate) fn wants_context(&self) -> bool {
        self.inputs.iter().any(|source| matches!(source, InputSource::Control(Control::Context, _)))
    }

    /// The position of the input that says whose caller has gone.
    pub(crate) fn cancelled(&self) -> Option<usize> {
        self.cancelled
    }

    /// Whether the inputs can hold the name of the sequence, and the request is one row as those of sequences are.
    ///
    /// # Errors
    /// `InvalidInput` where not.
    pub(crate) fn check_sequence(&self, request: &InferRequest, id: &SequenceId) -> Result<()> {
        let mut rows = request.inputs.iter().filter_map(|input| input.shape.first());
        if let Some(rows) = rows.find(|rows| self.batched && **rows != 1) {
            return Err(invalid(format!(
                "a request of a sequence has one row, and this one has {rows}; send it row by row"
            )));
        }
        for source in &self.inputs {
            let InputSource::Control(Control::SequenceId, spec) = source else { continue };
            let datatype = spec.datatype;
            let fits = match (id, datatype) {
                (_, DataType::Bytes) => true,
                (SequenceId::Text(_), _) => false,
                (SequenceId::Number(number), DataType::Int32) => i32::try_from(*number).is_ok(),
                (SequenceId::Number(number), DataType::Uint32) => u32::try_from(*number).is_ok(),
                (SequenceId::Number(number), DataType::Int64) => i64::try_from(*number).is_ok(),
                (SequenceId::Number(_), _) => true,
            };
            if !fits {
                return Err(invalid(format!(
                    "the model takes the sequence's id as {datatype}, which '{id}' is not"
                )));
            }
            if self.renames(request) && matches!(datatype, DataType::Int32 | DataType::Uint32) {
                return Err(invalid(format!(
                    "the model remembers sequences by an id of {datatype}, which can't tell tenants apart; let it take \
                     INT64, UINT64 or BYTES"
                )));
            }
        }
        Ok(())
    }

    /// Whether the model calls the sequence of `request` by another name than the client: it remembers by that name, and
    /// two tenants may have given one.
    fn renames(&self, request: &InferRequest) -> bool {
        self.initial.is_empty() && request.tenant.id != 0
    }

    /// What the model calls the sequence of `request`, in the client's form. A name that is made here is drawn from a
    /// keyed hash, so that no client can choose one that is another's.
    fn sequence_name(&self, request: &InferRequest) -> Option<SequenceId> {
        let id = &request.sequence.as_deref()?.id;
        if !self.renames(request) {
            return Some(id.clone());
        }
        // 63 bits, since an input may have a sign; 0 is no name.
        let number = (self.names.hash_one((request.tenant.id, id)) >> 1).max(1);
        Some(match id {
            SequenceId::Number(_) => SequenceId::Number(number),
            SequenceId::Text(_) => SequenceId::Text(format!("{number:016x}").into()),
        })
    }

    /// Puts what the client did not send into `request`: `state` as it was, `deadline_ns` on the machine's monotonic
    /// clock.
    ///
    /// # Errors
    /// `TooLarge` where headers and parameters take too much beside so many rows.
    pub(crate) fn fill(
        &self,
        request: &mut InferRequest,
        state: &[Tensor],
        deadline_ns: Option<u64>,
    ) -> Result<()> {
        let first = request.inputs.first().and_then(|input| input.shape.first().copied());
        let rows = if self.batched { first.unwrap_or(1) } else { 1 };
        let sequence = self.sequence_name(request);
        let row = Row { request, sequence, deadline_ns, rows, every: u64::from(self.rows_max) };
        let controls: SmallVec<[Tensor; 4]> = self
            .inputs
            .iter()
            .filter_map(|source| match source {
                InputSource::Control(control, spec) => Some(row.control(*control, spec)),
                _ => None,
            })
            .collect::<Result<_>>()?;
        let mut controls = controls.into_iter();
        let mut sent = std::mem::take(&mut request.inputs).into_iter();
        let mut inputs = SmallVec::with_capacity(self.inputs.len());
        for source in &self.inputs {
            let tensor = match source {
                // Too few are found out by the validator, as ever.
                InputSource::Client => sent.next(),
                InputSource::State(place) => state.get(*place).or_else(|| self.initial.get(*place)).cloned(),
                InputSource::Control(..) => controls.next(),
            };
            inputs.extend(tensor);
        }
        inputs.extend(sent);
        request.inputs = inputs;
        Ok(())
    }

    /// Takes out of `response` what is not for the client.
    pub(crate) fn take_state(&self, response: &mut InferResponse) -> SequenceState {
        if self.initial.is_empty() {
            return SequenceState::new();
        }
        let mut state: SmallVec<[Option<Tensor>; 2]> = self.initial.iter().map(|_| None).collect();
        let outputs = std::mem::take(&mut response.outputs);
        for (tensor, drain) in outputs.into_iter().zip(&self.outputs) {
            match drain {
                OutputSink::Client => response.outputs.push(tensor),
                OutputSink::State(place) => state[*place] = Some(tensor),
            }
        }
        state.into_iter().flatten().collect()
    }
}

/// Says what the inputs of `loaded` that no client sends are in requests that nobody sent: no sequence, no context.
///
/// # Errors
/// `ModelFailed` where one is too large to be held.
pub(crate) fn complete(loaded: &mut LoadedModel, settings: &ModelSettings) -> Result<()> {
    let sequence = settings.sequence.as_ref().or(loaded.sequence.as_ref());
    let state = |name: &str| sequence.and_then(|one| one.state.iter().find(|state| *state.input == *name));
    let is_control = |name: &str| {
        loaded.controls.contains_key(name) || sequence.is_some_and(|one| one.controls.contains_key(name))
    };
    let mut defaults = Vec::new();
    for (place, spec) in loaded.signature.inputs.iter().enumerate() {
        let state = state(&spec.name);
        if (state.is_some() || is_control(&spec.name)) && loaded.signature.default_of(place).is_none() {
            let shape = state.and_then(|state| state.shape.clone());
            let shape = shape
                .unwrap_or_else(|| spec.shape.iter().map(|dim| u64::try_from(*dim).unwrap_or(1)).collect());
            let zeros = zeros(spec, &shape)?;
            defaults.push(InputDefault { input: spec.name.clone(), shape, data: zeros.data });
        }
    }
    loaded.signature.extras.defaults.extend(defaults);
    Ok(())
}

/// Zeros or empty strings for `spec`.
fn zeros(spec: &TensorSpec, shape: &[u64]) -> Result<Tensor> {
    let one = Signature {
        inputs: vec![TensorSpec { shape: shape.iter().map(|dim| *dim as i64).collect(), ..spec.clone() }],
        outputs: Vec::new(),
        batching: Batching::Off { reason: String::new() },
        decoupled: false,
        extras: Extras::default(),
    };
    let zeros = crate::warmup::synthetic::request(&one, 1)?;
    zeros
        .into_iter()
        .next()
        .ok_or_else(|| invalid(format!("sequence: input '{}' has no first state", spec.name)))
}

fn seen<T>(specs: &[TensorSpec], roles: &[T], is_clients: impl Fn(&T) -> bool) -> Vec<TensorSpec> {
    specs.iter().zip(roles).filter(|(_, role)| is_clients(role)).map(|(spec, _)| spec.clone()).collect()
}

fn named<'a>(specs: &'a [TensorSpec], name: &str, side: &str) -> Result<&'a TensorSpec> {
    specs.iter().find(|spec| *spec.name == *name).ok_or_else(|| {
        let known: Vec<_> = specs.iter().map(|spec| &*spec.name).collect();
        invalid(format!("sequence: the model has no {side} '{name}'; it has {}", known.join(", ")))
    })
}

fn initial(state: &StateSettings, signature: &Signature) -> Result<Tensor> {
    let input = named(&signature.inputs, &state.input, "input")?;
    let output = named(&signature.outputs, &state.output, "output")?;
    let StateSettings { input: name, output: from, .. } = state;
    if input.datatype != output.datatype {
        let (one, other) = (input.datatype, output.datatype);
        return Err(invalid(format!(
            "sequence: state goes from output '{from}' of {other} to input '{name}' of {one}; name two of one datatype"
        )));
    }
    // One row: a request of a sequence has no more.
    let free = |axis: usize| if axis == 0 && signature.batched() { Some(1) } else { None };
    let shape: Option<Shape> = match &state.shape {
        Some(shape) => Some(shape.iter().copied().collect()),
        None => {
            let dims = input.shape.iter().enumerate();
            dims.map(|(axis, dim)| u64::try_from(*dim).ok().or_else(|| free(axis))).collect()
        }
    };
    let Some(shape) = shape else {
        return Err(invalid(format!(
            "sequence: input '{name}' leaves sizes open ({:?}); say the shape of the state at first, with shape:",
            input.shape
        )));
    };
    if !input.accepts(&shape) || (signature.batched() && shape.first() != Some(&1)) {
        return Err(invalid(format!(
            "sequence: the first state of input '{name}' can't be of shape {shape:?}, which is not one row of {:?}",
            input.shape
        )));
    }
    zeros(input, &shape)
}

/// Whether an input can hold what the gateway would put into it.
fn check_control(control: Control, spec: &TensorSpec) -> Result<()> {
    use DataType::{Bool, Bytes, Fp32, Int32, Int64, Uint32, Uint64};
    let fits: &[DataType] = match control {
        Control::SequenceStart | Control::SequenceEnd | Control::SequenceReady => &[Bool, Fp32, Int32, Int64],
        Control::SequenceId => &[Uint64, Int64, Uint32, Int32, Bytes],
        Control::Context => &[Bytes],
        Control::Cancelled => &[Bool],
    };
    if !fits.contains(&spec.datatype) {
        let known: Vec<_> = fits.iter().map(DataType::to_string).collect();
        return Err(invalid(format!(
            "sequence: input '{}' is {}, and what is put into it is one of {}",
            spec.name,
            spec.datatype,
            known.join(", ")
        )));
    }
    if spec.shape.iter().any(|dim| *dim != -1 && *dim != 1) || spec.shape.is_empty() {
        return Err(invalid(format!(
            "sequence: input '{}' of shape {:?} does not have one element for each row",
            spec.name, spec.shape
        )));
    }
    Ok(())
}

/// The request whose rows get a control.
struct Row<'a> {
    request: &'a InferRequest,
    /// What the model calls its sequence.
    sequence: Option<SequenceId>,
    deadline_ns: Option<u64>,
    rows: u64,
    /// Requests are cut at multiples of so many rows.
    every: u64,
}

impl Row<'_> {
    fn control(&self, control: Control, spec: &TensorSpec) -> Result<Tensor> {
        let data = match control {
            Control::Context => self.contexts()?,
            control => self.element(control, spec.datatype).repeat(usize::try_from(self.rows).unwrap_or(0)),
        };
        let mut shape: Shape = spec.shape.iter().map(|_| 1).collect();
        if let Some(first) = shape.first_mut() {
            *first = self.rows;
        }
        Ok(Tensor { datatype: spec.datatype, shape, data: Bytes::from(data) })
    }

    fn element(&self, control: Control, datatype: DataType) -> Vec<u8> {
        let sequence = self.request.sequence.as_deref();
        match control {
            Control::SequenceStart => element(datatype, sequence.is_some_and(|one| one.start).into()),
            Control::SequenceEnd => element(datatype, sequence.is_some_and(|one| one.end).into()),
            Control::SequenceId => match &self.sequence {
                Some(id) if datatype == DataType::Bytes => text(id.to_string().as_bytes()),
                Some(SequenceId::Number(id)) => element(datatype, *id),
                _ => element(datatype, 0),
            },
            Control::SequenceReady => element(datatype, 1),
            Control::Cancelled | Control::Context => element(datatype, 0),
        }
    }

    /// Rows with an empty text are of the same request as the row before: the text is long and the rows may be many.
    fn contexts(&self) -> Result<Vec<u8>> {
        let about = text(self.context().to_string().as_bytes());
        let (copies, empty) = (self.rows.div_ceil(self.every), text(b""));
        let bytes = u128::from(copies) * about.len() as u128;
        if bytes > CONTEXTS_MAX_BYTES {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "the headers and parameters of {} rows take {bytes} bytes, and a model that reads them takes \
                     {CONTEXTS_MAX_BYTES}; send fewer rows at once, or fewer headers",
                    self.rows
                ),
            ));
        }
        let rows = 0..self.rows;
        Ok(rows.flat_map(|row| if row % self.every == 0 { &about } else { &empty }).copied().collect())
    }

    fn context(&self) -> Value {
        let mut about = Map::new();
        if let Some(context) = &self.request.context {
            about.insert("id".to_owned(), json!(context.id));
            let headers = context.headers.iter().map(|(name, value)| (name.clone(), json!(value)));
            about.insert("headers".to_owned(), Value::Object(headers.collect()));
            about
                .insert("parameters".to_owned(), Value::Object(context.parameters.iter().cloned().collect()));
        }
        if let (Some(sequence), Some(name)) = (&self.request.sequence, &self.sequence) {
            let id = match name {
                SequenceId::Number(number) => json!(number),
                SequenceId::Text(text) => json!(**text),
            };
            let (start, end) = (sequence.start, sequence.end);
            about.insert("sequence".to_owned(), json!({ "id": id, "start": start, "end": end }));
        }
        if let Some(deadline) = self.deadline_ns {
            about.insert("deadline_ns".to_owned(), json!(deadline));
        }
        Value::Object(about)
    }
}

/// One element of raw data.
fn element(datatype: DataType, number: u64) -> Vec<u8> {
    match datatype {
        DataType::Fp32 => (number as f32).to_le_bytes().to_vec(),
        DataType::Bytes => text(if number == 0 { b"" } else { b"1" }),
        // Little-endian: the lower bytes come first.
        datatype => number.to_le_bytes()[..datatype.size().unwrap_or(1)].to_vec(),
    }
}

fn text(bytes: &[u8]) -> Vec<u8> {
    let mut element = (bytes.len() as u32).to_le_bytes().to_vec();
    element.extend_from_slice(bytes);
    element
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message.into())
}

#[cfg(test)]
mod tests;

//! Runs a session over memory of its caller.
//!
//! Reads inputs by address, hands on outputs to the memory that [`Outputs`] provides. Knows nothing of batches:
//! rows are a dimension like any other.

use std::ffi::c_char;
use std::marker::PhantomData;
use std::ptr;

use inferd_types::{DataType, Error, ErrorKind, Result, Shape, Tensor};
use ort_sys::{OrtSession, OrtValue};
use smallvec::{SmallVec, smallvec};

use crate::api::{Api, Failure, Owned};
use crate::control::Terminator;
use crate::graph::{Dim, Graph, Port};
use crate::outputs::Outputs;
use crate::owned_outputs::OwnedOutputs;
use crate::values::{Made, Values, byte_count};

/// One input of a run, by address.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    datatype: DataType,
    shape: &'a [u64],
    data: *const u8,
    len: usize,
    memory: PhantomData<&'a [u8]>,
}

impl<'a> Input<'a> {
    /// The `len` bytes at `data`.
    ///
    /// # Safety
    /// They must stay readable, aligned for `datatype`, for as long as `'a`. Concurrent writes only make the
    /// outputs wrong.
    pub unsafe fn from_raw(datatype: DataType, shape: &'a [u64], data: *const u8, len: usize) -> Input<'a> {
        Input { datatype, shape, data, len, memory: PhantomData }
    }

    /// Its dimensions.
    pub fn shape(&self) -> &[u64] {
        self.shape
    }

    /// The same elements in another shape.
    pub(crate) fn within<'s>(&self, shape: &'s [u64]) -> Input<'s>
    where
        'a: 's,
    {
        Input { shape, ..*self }
    }

    /// The elements of `tensor`.
    pub fn of(tensor: &'a Tensor) -> Input<'a> {
        Input {
            datatype: tensor.datatype,
            shape: &tensor.shape,
            data: tensor.data.as_ptr(),
            len: tensor.data.len(),
            memory: PhantomData,
        }
    }
}

/// How an output's size depends on the inputs'.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Extent {
    Fixed(u64),
    OfInput { input: usize, axis: usize },
}

/// A session and what it needs to run.
pub(crate) struct Runner {
    api: Api,
    session: Owned<OrtSession>,
    terminator: Terminator,
    values: Values,
    pub(crate) graph: Graph,
    input_names: Vec<*const c_char>,
    output_names: Vec<*const c_char>,
    /// The shape of each output that is known before a run and that the runtime can write to given memory.
    plans: Vec<Option<Vec<Extent>>>,
}

impl Runner {
    pub(crate) fn new(api: Api, session: Owned<OrtSession>, named: &[String]) -> Result<Runner> {
        let graph = Graph::read(api, &session, named)?;
        let fault = |failure: Failure| {
            Error::new(ErrorKind::ModelFailed, "the runtime can't be prepared").with_detail(failure.message)
        };
        // The names are on the heap, in `CString`s that never change: moving the ports is harmless.
        let names = |ports: &[Port]| ports.iter().map(|port| port.name.as_ptr()).collect();
        Ok(Runner {
            api,
            session,
            terminator: Terminator::new(api).map_err(fault)?,
            values: Values::new(api).map_err(fault)?,
            input_names: names(&graph.inputs),
            output_names: names(&graph.outputs),
            plans: vec![None; graph.outputs.len()],
            graph,
        })
    }

    pub(crate) fn terminator(&self) -> Terminator {
        self.terminator.clone()
    }

    /// Runs once over tensors.
    pub(crate) fn run_tensors(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let inputs: Vec<Input<'_>> = inputs.iter().map(Input::of).collect();
        let mut owned = OwnedOutputs::new(self.graph.outputs.len());
        self.run(&inputs, &mut owned)?;
        owned.tensors()
    }

    /// Runs once.
    ///
    /// # Errors
    /// `InvalidInput` if the runtime blames the inputs, else `ModelFailed`; or the error of `outputs`.
    pub(crate) fn run(&mut self, inputs: &[Input<'_>], outputs: &mut dyn Outputs) -> Result<()> {
        match self.attempt(inputs, outputs)? {
            Ok(()) => Ok(()),
            Err(failure) if self.misfits(&failure) => {
                // The model breaks its declared shape. From now on its outputs are copied.
                self.plans.fill(None);
                self.attempt(inputs, outputs)?.map_err(run_error)
            }
            Err(failure) => Err(run_error(failure)),
        }
    }

    /// One run: the outer result is ours, the inner one is the runtime's.
    fn attempt(&mut self, inputs: &[Input<'_>], outputs: &mut dyn Outputs) -> Result<Result<(), Failure>> {
        self.values.tidy();
        let mut strings: SmallVec<[Owned<OrtValue>; 2]> = SmallVec::new();
        let given = self.bind_inputs(inputs, &mut strings)?;
        let (mut fetched, bound) = self.bind(inputs, outputs)?;
        let ran = self.execute(&given, &mut fetched)?;
        let release = self.api.table().ReleaseValue;
        for (index, (value, bound)) in fetched.into_iter().zip(bound).enumerate() {
            // Owned first, so that a failed run frees what it allocated.
            let Some(made) = (!bound).then(|| Owned::new(value, release)).flatten() else { continue };
            if ran.is_ok() {
                self.copy_out(index, &made, outputs)?;
            }
        }
        Ok(ran)
    }

    /// The runtime's values over the inputs. Strings are copied and owned by `strings`.
    fn bind_inputs(
        &mut self,
        inputs: &[Input<'_>],
        strings: &mut SmallVec<[Owned<OrtValue>; 2]>,
    ) -> Result<SmallVec<[*const OrtValue; 8]>> {
        let ports = &self.graph.inputs;
        if inputs.len() != ports.len() {
            let message = format!("the model takes {} inputs but {} were given", ports.len(), inputs.len());
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let mut given = SmallVec::new();
        for (input, port) in inputs.iter().zip(ports) {
            if input.datatype != port.datatype {
                return Err(disagrees(
                    port,
                    format!("is {} but {} was given", port.datatype, input.datatype),
                ));
            }
            if input.datatype == DataType::Bytes {
                let data = if input.len == 0 {
                    &[]
                } else {
                    // SAFETY: the input's constructor requires that these bytes are readable for its lifetime.
                    unsafe { std::slice::from_raw_parts(input.data, input.len) }
                };
                let value = self.values.strings(data, input.shape)?;
                given.push(value.as_ptr().cast_const());
                strings.push(value);
                continue;
            }
            let expected = byte_count(input.datatype, input.shape)?;
            if input.len != expected {
                return Err(disagrees(port, format!("takes {expected} bytes but {} were given", input.len)));
            }
            // The runtime takes the address as mutable but never writes to inputs.
            let value = self.values.over(input.data.cast_mut(), input.datatype, input.shape)?;
            given.push(value.cast_const());
        }
        Ok(given)
    }

    /// Values over the memory of outputs of known shape; null, for the runtime to allocate, elsewhere.
    #[expect(clippy::type_complexity, reason = "two lists that go together for a moment")]
    fn bind(
        &mut self,
        inputs: &[Input<'_>],
        outputs: &mut dyn Outputs,
    ) -> Result<(SmallVec<[*mut OrtValue; 8]>, SmallVec<[bool; 8]>)> {
        let count = self.plans.len();
        let mut fetched: SmallVec<[*mut OrtValue; 8]> = smallvec![ptr::null_mut(); count];
        let mut bound: SmallVec<[bool; 8]> = smallvec![false; count];
        for (index, plan) in self.plans.iter().enumerate() {
            let Some(shape) = plan.as_deref().and_then(|plan| resolve(plan, inputs)) else { continue };
            let datatype = self.graph.outputs[index].datatype;
            let address = outputs.place(index, datatype, &shape)?;
            fetched[index] = self.values.over(address, datatype, &shape)?;
            bound[index] = true;
        }
        Ok((fetched, bound))
    }

    /// The outer error is a run that was stopped.
    fn execute(
        &self,
        given: &[*const OrtValue],
        fetched: &mut [*mut OrtValue],
    ) -> Result<Result<(), Failure>> {
        if let Err(failure) = self.terminator.begin() {
            return Ok(Err(failure));
        }
        // SAFETY: session and options are alive; names and values agree in number; every value is over memory that
        // its owner keeps valid until this returns, or is the runtime's own.
        let status = unsafe {
            (self.api.table().Run)(
                self.session.as_ptr(),
                self.terminator.options().as_ptr(),
                self.input_names.as_ptr(),
                given.as_ptr(),
                given.len(),
                self.output_names.as_ptr(),
                fetched.len(),
                fetched.as_mut_ptr(),
            )
        };
        let stopped = self.terminator.end();
        match self.api.check(status) {
            Err(failure) if stopped => {
                Err(Error::new(ErrorKind::ModelFailed, "the run took too long and was stopped")
                    .with_detail(failure.message))
            }
            ran => Ok(ran),
        }
    }

    fn copy_out(&self, index: usize, value: &Owned<OrtValue>, outputs: &mut dyn Outputs) -> Result<()> {
        let made = Made { api: self.api, value };
        let (datatype, shape) = made.describe()?;
        if datatype == DataType::Bytes {
            let count = usize::try_from(inferd_types::element_count(&shape)?).unwrap_or(usize::MAX);
            let data = made.strings(count)?;
            let room = outputs.place_bytes(index, &shape, data.len())?;
            // SAFETY: there is room for as many bytes, in memory that is not `data`'s.
            unsafe { ptr::copy_nonoverlapping(data.as_ptr(), room, data.len()) };
            return Ok(());
        }
        let bytes = byte_count(datatype, &shape)?;
        let room = outputs.place(index, datatype, &shape)?;
        if bytes > 0 {
            // SAFETY: the tensor has that many bytes and so has the room, in memory that is not the runtime's.
            unsafe { ptr::copy_nonoverlapping(made.data()?, room, bytes) };
        }
        Ok(())
    }

    /// Whether a run failed because an output did not have the declared shape.
    fn misfits(&self, failure: &Failure) -> bool {
        // The runtime has no code for it, only these texts (older and newer versions).
        const WORDS: [&str; 2] = ["shape verification failed", "pre-allocated output"];
        self.plans.iter().any(Option::is_some) && WORDS.iter().any(|words| failure.message.contains(words))
    }

    /// Determines which outputs can be bound to memory, and verifies it with two runs: one to see their real
    /// shapes, one to see that the runtime writes to the given memory.
    pub(crate) fn plan(&mut self, batched: bool, trial: &[Tensor]) -> Result<()> {
        self.plans.fill(None);
        let seen = self.run_tensors(trial)?;
        let inputs: Vec<Input<'_>> = trial.iter().map(Input::of).collect();
        for (index, (port, seen)) in self.graph.outputs.iter().zip(&seen).enumerate() {
            self.plans[index] = extents(port, &self.graph.inputs, batched)
                .filter(|plan| resolve(plan, &inputs).as_ref() == Some(&seen.shape))
                .filter(|_| port.datatype == seen.datatype);
        }
        let mut owned = OwnedOutputs::new(self.graph.outputs.len());
        if self.run(&inputs, &mut owned).is_err() {
            self.plans.fill(None);
        }
        for (plan, untouched) in self.plans.iter_mut().zip(owned.untouched()) {
            if untouched {
                *plan = None;
            }
        }
        Ok(())
    }

    /// Number of outputs that are written directly to the caller's memory.
    pub(crate) fn bound_outputs(&self) -> usize {
        self.plans.iter().flatten().count()
    }
}

fn disagrees(port: &Port, how: String) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("input '{}' {how}", port.name()))
}

/// How the shape of `port` depends on the inputs', if it does.
fn extents(port: &Port, inputs: &[Port], batched: bool) -> Option<Vec<Extent>> {
    port.datatype.size()?;
    let named = |name: &str| {
        inputs.iter().enumerate().find_map(|(input, port)| {
            let axis =
                port.dims().iter().position(|dim| matches!(dim, Dim::Named(known) if known == name))?;
            Some(Extent::OfInput { input, axis })
        })
    };
    let dims = port.dims.as_deref()?.iter().enumerate();
    dims.map(|(axis, dim)| match dim {
        _ if batched && axis == 0 => Some(Extent::OfInput { input: 0, axis: 0 }),
        Dim::Fixed(size) => Some(Extent::Fixed(*size)),
        Dim::Named(name) => named(name),
        Dim::Free => None,
    })
    .collect()
}

fn resolve(plan: &[Extent], inputs: &[Input<'_>]) -> Option<Shape> {
    plan.iter()
        .map(|extent| match extent {
            Extent::Fixed(size) => Some(*size),
            Extent::OfInput { input, axis } => inputs.get(*input)?.shape.get(*axis).copied(),
        })
        .collect()
}

/// The prefix of the name of a node that fails where the original library of a converted model would refuse the
/// input. The rest is the reason.
const REFUSING: &str = "Name:'refuse: ";

/// The error for the client of a failed run.
fn run_error(failure: Failure) -> Error {
    if failure.blames_arguments() {
        let named = failure.message.split_once(REFUSING).and_then(|(_, said)| said.split_once('\''));
        if let Some((said, _)) = named {
            return Error::new(ErrorKind::InvalidInput, format!("the model can't take this input: {said}"));
        }
        // Of an operator's failure only the status is for clients; names of nodes precede it.
        let said = failure.message.rsplit("Status Message: ").next().unwrap_or(&failure.message);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let said = said.trim_end_matches("Please fix either the inputs/outputs or the model.").trim_end();
        // A text with a path in it was written for developers of the runtime.
        if !said.contains("/onnxruntime") {
            return Error::new(ErrorKind::InvalidInput, format!("the model can't take this input: {said}"))
                .with_detail(failure.message);
        }
    }
    Error::new(ErrorKind::ModelFailed, "the model failed while it ran; the server's log says why")
        .with_detail(failure.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: ort_sys::OrtErrorCode, message: &str) -> Failure {
        Failure { code: code as i32, message: message.into() }
    }

    #[test]
    fn what_the_runtime_blames_on_the_input_is_reported_without_names_of_nodes() {
        let message = "Non-zero status code returned while running Gather node. Name:'/secret/Gather' \
                       Status Message: indices element out of data bounds, idx=99\n must be within [-10,9]";
        let error = run_error(failure(ort_sys::OrtErrorCode::ORT_INVALID_ARGUMENT, message));
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.message().ends_with("idx=99 must be within [-10,9]"), "{error}");
        assert!(!error.message().contains("secret") && error.detail().unwrap().contains("secret"));
    }

    #[test]
    fn a_node_that_is_there_to_refuse_says_why() {
        let message = "Non-zero status code returned while running Gather node. Name:'refuse: a value is beyond FP32' \
                       Status Message: indices element out of data bounds, idx=1";
        let error = run_error(failure(ort_sys::OrtErrorCode::ORT_INVALID_ARGUMENT, message));
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.message(), "the model can't take this input: a value is beyond FP32");
    }

    #[test]
    fn every_other_failure_is_the_models_and_its_text_is_for_the_log() {
        for code in [ort_sys::OrtErrorCode::ORT_FAIL, ort_sys::OrtErrorCode::ORT_INVALID_ARGUMENT] {
            let error = run_error(failure(code, "/onnxruntime_src/core/x.cc:7 boom"));
            assert_eq!(error.kind(), ErrorKind::ModelFailed);
            assert!(!error.message().contains("boom") && error.detail().unwrap().contains("boom"));
        }
    }
}

//! The rules for a request's tensors, the same for REST and gRPC.
//!
//! Reads a signature and, input by input, what a client claims; hands on tensors in the signature's order.
//! Does not know how a name, a shape or an element was written.

use std::fmt;

use bytes::Bytes;
pub(crate) use inferd_types::values::shown;
use inferd_types::{DataType, Error, ErrorKind, Result, Shape, Signature, Tensor, TensorSpec, element_count};
use smallvec::SmallVec;

use crate::region::{OutsideInput, RegionSlice};

/// An error that the client made.
#[cold]
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message.into())
}

/// The names, types and shapes of `specs`, as messages list them.
pub(crate) fn names(specs: &[TensorSpec]) -> String {
    let mut list = String::new();
    for spec in specs {
        let separator = if list.is_empty() { "" } else { ", " };
        list.push_str(&format!("{separator}'{}' ({})", spec.name, Expected(spec)));
    }
    if list.is_empty() { "nothing".to_owned() } else { list }
}

/// A type with its shape: `FP32 [-1, 4]`.
struct Expected<'a>(&'a TensorSpec);

impl fmt::Display for Expected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.0.datatype, self.0.shape)
    }
}

/// The inputs of one request, as they come in.
pub(crate) struct Inputs<'a> {
    signature: &'a Signature,
    tensors: SmallVec<[Option<Tensor>; 2]>,
    seen: SmallVec<[bool; 4]>,
    outside: Vec<OutsideInput>,
}

impl<'a> Inputs<'a> {
    pub(crate) fn new(signature: &'a Signature) -> Self {
        let count = signature.inputs.len();
        Inputs {
            signature,
            tensors: smallvec::smallvec![None; count],
            seen: smallvec::smallvec![false; count],
            outside: Vec::new(),
        }
    }

    /// The place of the input `name`, which from now on may not come again.
    ///
    /// # Errors
    /// `InvalidInput` where the model has no such input or it has come before.
    pub(crate) fn claim(&mut self, name: &str) -> Result<usize> {
        let Some(index) = self.signature.inputs.iter().position(|spec| &*spec.name == name) else {
            let known = names(&self.signature.inputs);
            return Err(invalid(format!("unknown input '{}'; the model takes {known}", shown(name))));
        };
        if std::mem::replace(&mut self.seen[index], true) {
            return Err(invalid(format!("input '{name}' is given twice; each input is expected once")));
        }
        Ok(index)
    }

    /// The specification of the input at `index`.
    pub(crate) fn spec(&self, index: usize) -> &'a TensorSpec {
        &self.signature.inputs[index]
    }

    /// Checks the claimed type and shape of the input at `index` and returns how many elements it has.
    ///
    /// # Errors
    /// `InvalidInput` that says what was given and what was expected.
    pub(crate) fn check(&self, index: usize, datatype: &str, shape: &[u64]) -> Result<u64> {
        let spec = self.spec(index);
        if datatype != spec.datatype.name() {
            shown(datatype).parse::<DataType>().map_err(|error| error.within(Input(spec)))?;
            return Err(invalid(format!(
                "input '{}' has datatype {datatype} but {} is expected",
                spec.name, spec.datatype
            )));
        }
        // Before the comparison: a shape that overflows is worth saying so, even where it doesn't fit either.
        let count = element_count(shape).map_err(|error| error.within(Input(spec)))?;
        if !spec.accepts(shape) {
            return Err(invalid(format!(
                "input '{}' has shape {shape:?} but {:?} is expected (-1 stands for any size)",
                spec.name, spec.shape
            )));
        }
        if shape.first() == Some(&0) && self.signature.batched() && !self.signature.answers_no_rows() {
            return Err(invalid(format!(
                "input '{}' has shape {shape:?}: no rows; at least one row is expected, since the shape of the \
                 outputs depends on it",
                spec.name
            )));
        }
        Ok(count)
    }

    /// Takes the data of the input at `index`, whose type and shape have been checked.
    ///
    /// # Errors
    /// `InvalidInput` where the number of bytes or elements does not fit the shape, or a BOOL is neither 0 nor 1.
    pub(crate) fn put(&mut self, index: usize, shape: Shape, data: Bytes) -> Result<()> {
        self.tensors[index] = Some(tensor(self.spec(index), shape, data)?);
        Ok(())
    }

    /// Notes where the data of the input at `index` is, whose type and shape have been checked.
    ///
    /// # Errors
    /// `InvalidInput` where the shape takes another number of bytes.
    pub(crate) fn refer(&mut self, index: usize, shape: Shape, slice: RegionSlice) -> Result<()> {
        let spec = self.spec(index);
        let count = element_count(&shape).map_err(|error| error.within(Input(spec)))?;
        if let Some(size) = spec.datatype.size()
            && count.checked_mul(size as u64) != Some(slice.bytes)
        {
            return Err(invalid(format!(
                "input '{}': shape {:?} of {} does not take {} bytes, as shared_memory_byte_size says",
                spec.name,
                &shape[..],
                spec.datatype,
                slice.bytes
            )));
        }
        self.tensors[index] = Some(Tensor { datatype: spec.datatype, shape, data: Bytes::new() });
        self.outside.push(OutsideInput { index, slice });
        Ok(())
    }

    /// All inputs in the signature's order, and those whose data are elsewhere. What was left out and may be is its
    /// default.
    ///
    /// # Errors
    /// `InvalidInput` where one is missing, or where a batched model's inputs differ in rows.
    pub(crate) fn finish(mut self) -> Result<(SmallVec<[Tensor; 2]>, Vec<OutsideInput>)> {
        if self.tensors.iter().any(Option::is_none) {
            self.fill()?;
        }
        let mut tensors = SmallVec::with_capacity(self.tensors.len());
        tensors.extend(self.tensors.into_iter().flatten());
        if self.signature.batched() {
            check_rows(self.signature, &tensors)?;
        }
        Ok((tensors, self.outside))
    }

    #[cold]
    fn fill(&mut self) -> Result<()> {
        for (index, spec) in self.signature.inputs.iter().enumerate() {
            if self.tensors[index].is_none() {
                let given = self.tensors.iter().map(Option::as_ref);
                let Some(default) = self.signature.left_out(index, given)? else {
                    let wanted = Expected(spec);
                    return Err(invalid(format!("input '{}' is missing; {wanted} is expected", spec.name)));
                };
                self.tensors[index] = Some(default);
            }
        }
        Ok(())
    }
}

/// The tensor of an input whose type and shape have been checked.
///
/// # Errors
/// `InvalidInput` where the number of bytes or elements does not fit the shape, or a BOOL is neither 0 nor 1.
pub(crate) fn tensor(spec: &TensorSpec, shape: Shape, data: Bytes) -> Result<Tensor> {
    let tensor = Tensor::new(spec.datatype, shape, data).map_err(|error| error.within(Input(spec)))?;
    // `fold` and not `any`: without an early exit the loop becomes a handful of vector instructions.
    if spec.datatype == DataType::Bool && tensor.data.iter().fold(0, |all, byte| all | byte) > 1 {
        return Err(invalid(format!("input '{}' has a BOOL that is neither 0 nor 1", spec.name)));
    }
    Ok(tensor)
}

/// Every input must count as many rows as the first.
fn check_rows(signature: &Signature, tensors: &[Tensor]) -> Result<()> {
    let rows = |tensor: &Tensor| tensor.shape.first().copied();
    let Some(first) = tensors.first() else { return Ok(()) };
    for (spec, tensor) in signature.inputs.iter().zip(tensors) {
        if let (Some(found), Some(expected)) = (rows(tensor), rows(first))
            && found != expected
        {
            return Err(invalid(format!(
                "input '{}' has {found} rows but input '{}' has {expected}; all inputs of a request must have \
                 equally many",
                spec.name, signature.inputs[0].name
            )));
        }
    }
    Ok(())
}

/// How messages about one input begin.
pub(crate) struct Input<'a>(pub(crate) &'a TensorSpec);

impl fmt::Display for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "input '{}'", self.0.name)
    }
}

#[cfg(test)]
mod tests {
    use inferd_types::{Batching, InputDefault};
    use smallvec::smallvec;

    use super::*;

    fn signature(batched: bool) -> Signature {
        let spec = |name: &str, datatype, shape: &[i64]| TensorSpec {
            name: name.into(),
            datatype,
            shape: shape.to_vec(),
        };
        Signature {
            inputs: vec![spec("a", DataType::Fp32, &[-1, 2]), spec("b", DataType::Bool, &[-1])],
            outputs: vec![],
            batching: if batched { Batching::On } else { Batching::Off { reason: "told so".into() } },
            decoupled: false,
            extras: Default::default(),
        }
    }

    fn message<T: fmt::Debug>(result: Result<T>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.message().to_owned()
    }

    #[test]
    fn an_unknown_name_gets_the_list_of_known_ones() {
        let signature = signature(true);
        let message = message(Inputs::new(&signature).claim("c"));
        assert_eq!(message, "unknown input 'c'; the model takes 'a' (FP32 [-1, 2]), 'b' (BOOL [-1])");
    }

    #[test]
    fn a_long_name_is_cut_in_the_message() {
        let signature = signature(true);
        assert!(message(Inputs::new(&signature).claim(&"é".repeat(10_000))).len() < 300);
    }

    #[test]
    fn an_input_given_twice_is_named() {
        let signature = signature(true);
        let mut inputs = Inputs::new(&signature);
        inputs.claim("a").unwrap();
        assert!(message(inputs.claim("a")).contains("'a' is given twice"));
    }

    #[test]
    fn a_missing_input_is_named_with_what_was_expected() {
        let signature = signature(true);
        let mut inputs = Inputs::new(&signature);
        inputs.put(0, smallvec![1, 2], Bytes::from_static(&[0; 8])).unwrap();
        assert_eq!(message(inputs.finish()), "input 'b' is missing; BOOL [-1] is expected");
    }

    #[test]
    fn an_input_with_a_default_may_be_left_out_and_has_as_many_rows_as_the_others() {
        let mut signature = signature(true);
        let optional = serde_json::json!(true);
        signature.extras.defaults.push(InputDefault::of_value(&signature.inputs[1], &optional).unwrap());
        let mut inputs = Inputs::new(&signature);
        inputs.put(0, smallvec![3, 2], Bytes::from_static(&[0; 24])).unwrap();
        let (tensors, _) = inputs.finish().unwrap();
        assert_eq!((&tensors[1].shape[..], &tensors[1].data[..]), (&[3][..], &[1, 1, 1][..]));
        let mut inputs = Inputs::new(&signature);
        inputs.put(1, smallvec![1], Bytes::from_static(&[0])).unwrap();
        assert!(message(inputs.finish()).starts_with("input 'a' is missing"));
    }

    #[test]
    fn a_wrong_type_or_shape_says_which_and_what_was_expected() {
        let signature = signature(true);
        let inputs = Inputs::new(&signature);
        assert_eq!(
            message(inputs.check(0, "FP64", &[1, 2])),
            "input 'a' has datatype FP64 but FP32 is expected"
        );
        assert!(message(inputs.check(0, "FLOAT", &[1, 2])).contains("unknown datatype 'FLOAT'"));
        let wrong = message(inputs.check(0, "FP32", &[1, 3]));
        assert!(wrong.contains("[1, 3]") && wrong.contains("[-1, 2]"), "{wrong}");
        assert!(
            message(inputs.check(0, "FP32", &[u64::MAX, 2])).contains("more elements than can be counted")
        );
    }

    #[test]
    fn inputs_of_a_batched_model_must_agree_in_rows_and_have_one() {
        let mut signature = signature(true);
        let known = Inputs::new(&signature).check(0, "FP32", &[0, 2]);
        assert_eq!(
            known.unwrap(),
            0,
            "the answer to no rows is known where no output's other dimension is free"
        );
        signature.outputs =
            vec![TensorSpec { name: "y".into(), datatype: DataType::Fp32, shape: vec![-1, -1] }];
        let mut inputs = Inputs::new(&signature);
        assert!(message(inputs.check(0, "FP32", &[0, 2])).contains("at least one row"));
        inputs.put(0, smallvec![1, 2], Bytes::from_static(&[0; 8])).unwrap();
        inputs.put(1, smallvec![2], Bytes::from_static(&[0; 2])).unwrap();
        assert!(message(inputs.finish()).contains("'b' has 2 rows but input 'a' has 1"));
    }

    #[test]
    fn a_model_without_batching_takes_what_its_shapes_allow() {
        let signature = signature(false);
        let mut inputs = Inputs::new(&signature);
        assert_eq!(inputs.check(0, "FP32", &[0, 2]).unwrap(), 0);
        inputs.put(0, smallvec![0, 2], Bytes::new()).unwrap();
        inputs.put(1, smallvec![2], Bytes::from_static(&[0; 2])).unwrap();
        assert_eq!(inputs.finish().unwrap().0.len(), 2);
    }

    #[test]
    fn a_bool_is_zero_or_one() {
        let signature = signature(true);
        let mut inputs = Inputs::new(&signature);
        assert!(
            message(inputs.put(1, smallvec![2], Bytes::from_static(&[1, 2]))).contains("neither 0 nor 1")
        );
    }
}

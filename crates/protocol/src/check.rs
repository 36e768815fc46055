//! The rules for a request's tensors, the same for REST and gRPC.
//!
//! Reads a signature and, input by input, what a client claims; hands on tensors in the signature's order.
//! Does not know how a name, a shape or an element was written.

use std::fmt;

use bytes::Bytes;
pub(crate) use inferd_types::values::shown;
use inferd_types::widening::{narrower, widen, widens};
use inferd_types::{
    DataType, Error, ErrorKind, Input, Result, Shape, Signature, Tensor, TensorSpec, element_count, listed,
};
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

/// An input as a request names it: its name, type and shape are checked, its data are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Its place in the signature.
    pub(crate) index: usize,
    /// The type that its elements are sent as: the signature's, or one that is widened to it.
    pub(crate) sent: DataType,
    /// How many elements it has.
    pub(crate) count: u64,
}

/// The inputs of one request, as they come in.
pub(crate) struct Inputs<'a> {
    signature: &'a Signature,
    tensors: SmallVec<[Option<Tensor>; 2]>,
    seen: SmallVec<[bool; 4]>,
    /// The place behind the one that came last.
    next: usize,
    outside: Vec<OutsideInput>,
    widened_bytes: usize,
}

/// The inputs of one request, all of them.
#[derive(Debug)]
pub(crate) struct Whole {
    /// In the signature's order.
    pub(crate) tensors: SmallVec<[Tensor; 2]>,
    /// Those whose data are elsewhere.
    pub(crate) outside: Vec<OutsideInput>,
    /// What those that were widened take.
    pub(crate) widened_bytes: usize,
}

impl<'a> Inputs<'a> {
    pub(crate) fn new(signature: &'a Signature) -> Self {
        let count = signature.inputs.len();
        Inputs {
            signature,
            tensors: smallvec::smallvec![None; count],
            seen: smallvec::smallvec![false; count],
            next: 0,
            outside: Vec::new(),
            widened_bytes: 0,
        }
    }

    /// The place of the input `name`, which from now on may not come again.
    ///
    /// # Errors
    /// `InvalidInput` where the model has no such input or it has come before.
    pub(crate) fn claim(&mut self, name: &str) -> Result<usize> {
        // Most clients send them in the signature's order.
        let is_next = self.signature.inputs.get(self.next).is_some_and(|spec| &*spec.name == name);
        let next = is_next.then_some(self.next);
        let place = next.or_else(|| self.signature.inputs.iter().position(|spec| &*spec.name == name));
        let Some(index) = place else {
            let known = names(&self.signature.inputs);
            return Err(invalid(format!("unknown input '{}'; the model takes {known}", shown(name))));
        };
        if std::mem::replace(&mut self.seen[index], true) {
            return Err(invalid(format!("input '{name}' is given twice; each input is expected once")));
        }
        self.next = index + 1;
        Ok(index)
    }

    /// The input at `index`.
    pub(crate) fn input(&self, index: usize) -> Input<'a> {
        self.signature.input(index)
    }

    /// The specification of the input at `index`.
    pub(crate) fn spec(&self, index: usize) -> &'a TensorSpec {
        &self.signature.inputs[index]
    }

    /// Checks the type and shape that the input at `index` is said to have.
    ///
    /// # Errors
    /// `InvalidInput` that says what was given and what was expected.
    pub(crate) fn check(&self, index: usize, datatype: &str, shape: &[u64]) -> Result<Claim> {
        let spec = self.spec(index);
        let sent =
            if datatype == spec.datatype.name() { spec.datatype } else { self.other(index, datatype)? };
        // Before the comparison: a shape that overflows is worth saying so, even where it doesn't fit either.
        let count = element_count(shape).map_err(|error| error.within(self.input(index)))?;
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
        Ok(Claim { index, sent, count })
    }

    /// The type `datatype`, which is not that of the input at `index` but may be widened to it.
    #[cold]
    fn other(&self, index: usize, datatype: &str) -> Result<DataType> {
        let spec = self.spec(index);
        let sent: DataType =
            shown(datatype).parse().map_err(|error: Error| error.within(self.input(index)))?;
        if widens(sent, spec.datatype) {
            return Ok(sent);
        }
        let names: Vec<_> = narrower(spec.datatype).iter().map(|narrower| narrower.name()).collect();
        let more = match &names[..] {
            [] => String::new(),
            names => format!(" (or one that is widened to it without loss: {})", names.join(", ")),
        };
        Err(invalid(format!(
            "input '{}' has datatype {datatype} but {} is expected{more}",
            spec.name, spec.datatype
        )))
    }

    /// Checks the names that a client gives to the columns of the input at `index`: JSON, an array of text.
    ///
    /// # Errors
    /// `InvalidInput` where the model's are others, or it knows none.
    pub(crate) fn check_columns(&self, index: usize, given: &str) -> Result<()> {
        let input = self.input(index);
        let given: Vec<String> = serde_json::from_str(given).map_err(|_| {
            invalid("parameter 'columns' must be text that is a JSON array of names, such as '[\"age\", \"income\"]'")
                .within(input)
        })?;
        let known = input.columns();
        if known.is_empty() {
            return Err(invalid(format!(
                "{input} has no named columns, and the request names some; leave the parameter 'columns' out"
            )));
        }
        if given.len() == known.len() && given.iter().zip(known).all(|(given, known)| **given == **known) {
            return Ok(());
        }
        Err(invalid(format!(
            "the columns of {input} are {}, but the request says {}; send them in the model's order",
            listed(known.iter().map(|name| &**name)),
            listed(given.iter().map(String::as_str))
        )))
    }

    /// Takes the data of an input.
    ///
    /// # Errors
    /// `InvalidInput` where the number of bytes or elements does not fit the shape, a BOOL is neither 0 nor 1, an element
    /// would be rounded, or the schema does not take it.
    pub(crate) fn put(&mut self, claim: Claim, shape: Shape, data: Bytes) -> Result<()> {
        let tensor = tensor(self.input(claim.index), claim.sent, shape, data)?;
        if claim.sent != tensor.datatype {
            self.widened_bytes += tensor.data.len();
        }
        self.tensors[claim.index] = Some(tensor);
        Ok(())
    }

    /// Notes where the data of an input are.
    ///
    /// # Errors
    /// `InvalidInput` where the shape takes another number of bytes.
    pub(crate) fn refer(&mut self, claim: Claim, shape: Shape, slice: RegionSlice) -> Result<()> {
        let Claim { index, sent, count } = claim;
        if let Some(size) = sent.size()
            && count.checked_mul(size as u64) != Some(slice.bytes)
        {
            return Err(invalid(format!(
                "{}: shape {:?} of {sent} does not take {} bytes, as shared_memory_byte_size says",
                self.input(index),
                &shape[..],
                slice.bytes
            )));
        }
        let datatype = self.spec(index).datatype;
        self.tensors[index] = Some(Tensor { datatype, shape, data: Bytes::new() });
        self.outside.push(OutsideInput { index, sent, slice });
        Ok(())
    }

    /// All inputs. What was left out and may be is its default.
    ///
    /// # Errors
    /// `InvalidInput` where one is missing, or where a batched model's inputs differ in rows.
    pub(crate) fn finish(mut self) -> Result<Whole> {
        if self.tensors.iter().any(Option::is_none) {
            self.fill()?;
        }
        let mut tensors = SmallVec::with_capacity(self.tensors.len());
        tensors.extend(self.tensors.into_iter().flatten());
        if self.signature.batched() {
            check_rows(self.signature, &tensors)?;
        }
        Ok(Whole { tensors, outside: self.outside, widened_bytes: self.widened_bytes })
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

/// The tensor of `input` whose elements came as those of `sent`. Takes at most eight times the bytes of `data`.
///
/// # Errors
/// As for [`Inputs::put`].
pub(crate) fn tensor(input: Input<'_>, sent: DataType, shape: Shape, data: Bytes) -> Result<Tensor> {
    let datatype = input.spec.datatype;
    if sent == datatype {
        let tensor = input.tensor(shape, data)?;
        return if datatype == DataType::Bool {
            check_bools(input, &tensor.data).map(|()| tensor)
        } else {
            Ok(tensor)
        };
    }
    Tensor::check(sent, &shape, &data, false).map_err(|error| error.within(input))?;
    if sent == DataType::Bool {
        check_bools(input, &data)?;
    }
    let wide = widen(sent, datatype, &data).map_err(|inexact| {
        let place = input.place(&shape, inexact.index as u64);
        let digits = if datatype == DataType::Fp32 { f32::MANTISSA_DIGITS } else { f64::MANTISSA_DIGITS };
        invalid(format!(
            "{place} is {} of {sent}, which {datatype} would round to {}; send whole numbers up to 2**{digits}, or round it \
             yourself and send {datatype}",
            inexact.value, inexact.nearest
        ))
    })?;
    input.tensor(shape, wide.into())
}

/// # Errors
/// `InvalidInput` where a byte is neither 0 nor 1.
fn check_bools(input: Input<'_>, data: &[u8]) -> Result<()> {
    // `fold` and not `any`: without an early exit the loop becomes a handful of vector instructions.
    if data.iter().fold(0, |all, byte| all | byte) > 1 {
        return Err(invalid(format!("{input} has a BOOL that is neither 0 nor 1")));
    }
    Ok(())
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

    /// A claim on the input at `index` in its own type.
    fn whole(signature: &Signature, index: usize) -> Claim {
        Claim { index, sent: signature.inputs[index].datatype, count: 0 }
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
        inputs.put(whole(&signature, 0), smallvec![1, 2], Bytes::from_static(&[0; 8])).unwrap();
        assert_eq!(message(inputs.finish()), "input 'b' is missing; BOOL [-1] is expected");
    }

    #[test]
    fn an_input_with_a_default_may_be_left_out_and_has_as_many_rows_as_the_others() {
        let mut signature = signature(true);
        let optional = serde_json::json!(true);
        signature.extras.defaults.push(InputDefault::of_value(signature.input(1), &optional).unwrap());
        let mut inputs = Inputs::new(&signature);
        inputs.put(whole(&signature, 0), smallvec![3, 2], Bytes::from_static(&[0; 24])).unwrap();
        let tensors = inputs.finish().unwrap().tensors;
        assert_eq!((&tensors[1].shape[..], &tensors[1].data[..]), (&[3][..], &[1, 1, 1][..]));
        let mut inputs = Inputs::new(&signature);
        inputs.put(whole(&signature, 1), smallvec![1], Bytes::from_static(&[0])).unwrap();
        assert!(message(inputs.finish()).starts_with("input 'a' is missing"));
    }

    #[test]
    fn a_wrong_type_or_shape_says_which_and_what_was_expected() {
        let signature = signature(true);
        let inputs = Inputs::new(&signature);
        assert_eq!(
            message(inputs.check(0, "FP64", &[1, 2])),
            "input 'a' has datatype FP64 but FP32 is expected (or one that is widened to it without loss: BOOL, UINT8, \
             UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, BF16)"
        );
        assert_eq!(
            message(inputs.check(1, "INT8", &[1])),
            "input 'b' has datatype INT8 but BOOL is expected"
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
            known.unwrap().count,
            0,
            "the answer to no rows is known where no output's other dimension is free"
        );
        signature.outputs =
            vec![TensorSpec { name: "y".into(), datatype: DataType::Fp32, shape: vec![-1, -1] }];
        let mut inputs = Inputs::new(&signature);
        assert!(message(inputs.check(0, "FP32", &[0, 2])).contains("at least one row"));
        inputs.put(whole(&signature, 0), smallvec![1, 2], Bytes::from_static(&[0; 8])).unwrap();
        inputs.put(whole(&signature, 1), smallvec![2], Bytes::from_static(&[0; 2])).unwrap();
        assert!(message(inputs.finish()).contains("'b' has 2 rows but input 'a' has 1"));
    }

    #[test]
    fn a_model_without_batching_takes_what_its_shapes_allow() {
        let signature = signature(false);
        let mut inputs = Inputs::new(&signature);
        assert_eq!(inputs.check(0, "FP32", &[0, 2]).unwrap().count, 0);
        inputs.put(whole(&signature, 0), smallvec![0, 2], Bytes::new()).unwrap();
        inputs.put(whole(&signature, 1), smallvec![2], Bytes::from_static(&[0; 2])).unwrap();
        assert_eq!(inputs.finish().unwrap().tensors.len(), 2);
    }

    #[test]
    fn a_bool_is_zero_or_one() {
        let signature = signature(true);
        let mut inputs = Inputs::new(&signature);
        assert!(
            message(inputs.put(whole(&signature, 1), smallvec![2], Bytes::from_static(&[1, 2])))
                .contains("neither 0 nor 1")
        );
    }
}

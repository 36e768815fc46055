//! The rules for a request's tensors, the same for REST and gRPC.
//!
//! Reads a signature and a client's inputs one by one, hands on tensors in the signature's order. Does not know how
//! a name, a shape or an element was encoded.

use std::fmt;

use bytes::Bytes;
use inferd_types::widening::{narrower, widens};
use inferd_types::{
    DataType, Error, Input, Result, Shape, Signature, Tensor, TensorSpec, element_count, listed, shown,
};
use smallvec::SmallVec;

use crate::invalid::invalid;
use crate::region::{OutsideInput, RegionSlice};

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

/// An input of a request: its name, type and shape are checked, its data are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Its index in the signature.
    pub(crate) index: usize,
    /// The type of its elements as sent: the signature's, or one that is widened to it.
    pub(crate) sent: DataType,
    /// Number of elements.
    pub(crate) count: u64,
}

/// The inputs of one request, while they are read.
pub(crate) struct Inputs<'a> {
    signature: &'a Signature,
    tensors: SmallVec<[Option<Tensor>; 2]>,
    seen: SmallVec<[bool; 4]>,
    /// The index after that of the last input.
    next: usize,
    outside: Vec<OutsideInput>,
    widened_bytes: usize,
}

/// All inputs of one request.
#[derive(Debug)]
pub(crate) struct Whole {
    /// In the signature's order.
    pub(crate) tensors: SmallVec<[Tensor; 2]>,
    /// Those whose data are in shared memory.
    pub(crate) outside: Vec<OutsideInput>,
    /// Size of the inputs that were widened.
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

    /// The index of the input `name`, which may occur once.
    ///
    /// # Errors
    /// `InvalidInput` if the model has no such input or it occurs again.
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

    /// Checks the type and shape of the input at `index`.
    ///
    /// # Errors
    /// `InvalidInput` with what was given and what was expected.
    pub(crate) fn check(&self, index: usize, datatype: &str, shape: &[u64]) -> Result<Claim> {
        let spec = self.spec(index);
        let sent =
            if datatype == spec.datatype.name() { spec.datatype } else { self.other(index, datatype)? };
        // Before the comparison: an overflow is reported even if the shape does not match either.
        let count = element_count(shape).map_err(|error| error.within(self.input(index)))?;
        if !spec.accepts(shape) {
            return Err(invalid(format!(
                "input '{}' has shape {shape:?} but {:?} is expected (-1 stands for any size)",
                spec.name, spec.shape
            )));
        }
        Ok(Claim { index, sent, count })
    }

    /// The type `datatype`, which differs from the type of the input at `index` but may be widened to it.
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

    /// Checks the column names that a client gives for the input at `index`: a JSON array of strings. Empty: it
    /// sent them by position, since the metadata had no names.
    ///
    /// # Errors
    /// `InvalidInput` if the model's differ, or it has none.
    pub(crate) fn check_columns(&self, index: usize, given: &str) -> Result<()> {
        let input = self.input(index);
        let given: Vec<String> = serde_json::from_str(given).map_err(|_| {
            invalid("parameter 'columns' must be text that is a JSON array of names, such as '[\"age\", \"income\"]'")
                .within(input)
        })?;
        let known = input.columns();
        if given.len() == known.len() && given.iter().zip(known).all(|(given, known)| **given == **known) {
            return Ok(());
        }
        if known.is_empty() {
            return Err(invalid(format!(
                "{input} has no named columns, and the request names some; omit the parameter 'columns'"
            )));
        }
        Err(invalid(format!(
            "the columns of {input} are {}, but the request says {}; send them in the model's order",
            listed(known.iter().map(|name| &**name)),
            listed(given.iter().map(String::as_str))
        )))
    }

    /// Adds the data of an input.
    ///
    /// # Errors
    /// `InvalidInput` if the number of bytes or elements does not match the shape, a BOOL is neither 0 nor 1, an
    /// element would be rounded, or the schema refuses it.
    pub(crate) fn put(&mut self, claim: Claim, shape: Shape, data: Bytes) -> Result<()> {
        let tensor = self.input(claim.index).receive(claim.sent, shape, data)?;
        if claim.sent != tensor.datatype {
            self.widened_bytes += tensor.data.len();
        }
        self.tensors[claim.index] = Some(tensor);
        Ok(())
    }

    /// Records where the data of an input are.
    ///
    /// # Errors
    /// `InvalidInput` if the shape takes another number of bytes.
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

    /// All inputs. Omitted optional ones get their default.
    ///
    /// # Errors
    /// `InvalidInput` if a required input is missing, or if inputs of a batched model differ in rows.
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

/// Every input must have as many rows as the first.
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
mod tests;

//! Reshapes: tensors whose shape for clients differs from the model's, with the same elements.
//!
//! Reads shapes from the settings and the model's graph, hands on shapes of either side. Knows nothing of runs and
//! of elements.

use inferd_types::{DataType, Error, ErrorKind, Result, Shape};
use smallvec::SmallVec;

use crate::graph::{Dim, Port};
use crate::outputs::Outputs;
use crate::runner::Input;
use crate::settings::{Reshape, ReshapeSettings};

/// The reshapes of a model, by tensor.
#[derive(Debug, Default)]
pub(crate) struct Reshapes {
    inputs: Vec<Option<Reshape>>,
    outputs: Vec<Option<Reshape>>,
}

impl Reshapes {
    /// The reshapes that `settings` declare for a model with these ports.
    ///
    /// # Errors
    /// `ModelFailed` if they name an unknown tensor, or a shape that is not the model's.
    pub(crate) fn new(settings: &ReshapeSettings, inputs: &[Port], outputs: &[Port]) -> Result<Reshapes> {
        if settings.inputs.is_empty() && settings.outputs.is_empty() {
            return Ok(Reshapes::default());
        }
        let of = |side: &str, wanted: &std::collections::BTreeMap<String, Reshape>, ports: &[Port]| {
            if let Some(name) = wanted.keys().find(|name| !ports.iter().any(|port| port.name() == **name)) {
                let message = format!(
                    "{side} '{name}' is declared with a reshape; the model has no such {side}\n\
                     help: declare what the model has"
                );
                return Err(Error::new(ErrorKind::ModelFailed, message));
            }
            ports
                .iter()
                .map(|port| wanted.get(&port.name()).map(|one| fitting(side, one, port)).transpose())
                .collect()
        };
        Ok(Reshapes {
            inputs: of("input", &settings.inputs, inputs)?,
            outputs: of("output", &settings.outputs, outputs)?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.outputs.is_empty()
    }

    /// The shape of input `index` for clients; `None` if it is the model's own.
    pub(crate) fn seen_input(&self, index: usize) -> Option<&[i64]> {
        self.inputs.get(index)?.as_ref().map(|reshape| reshape.seen.as_slice())
    }

    /// The shape of output `index` for clients; `None` if it is the model's own.
    pub(crate) fn seen_output(&self, index: usize) -> Option<&[i64]> {
        self.outputs.get(index)?.as_ref().map(|reshape| reshape.seen.as_slice())
    }

    /// The model's shape of each of `inputs`.
    ///
    /// # Errors
    /// `InvalidInput` if an input does not have the shape for clients.
    pub(crate) fn inner(&self, inputs: &[Input<'_>]) -> Result<SmallVec<[Shape; 4]>> {
        inputs
            .iter()
            .enumerate()
            .map(|(index, input)| match self.inputs.get(index).and_then(Option::as_ref) {
                None => Ok(input.shape().into()),
                Some(one) => translate(&one.seen, &one.own, input.shape()).ok_or_else(|| {
                    let message =
                        format!("an input of shape {:?} is expected, not {:?}", one.seen, input.shape());
                    Error::new(ErrorKind::InvalidInput, message)
                }),
            })
            .collect()
    }

    fn outer(&self, index: usize, shape: &[u64]) -> Result<Shape> {
        match self.outputs.get(index).and_then(Option::as_ref) {
            None => Ok(shape.into()),
            Some(one) => translate(&one.own, &one.seen, shape).ok_or_else(|| {
                let message =
                    format!("the model gave an output of shape {shape:?}, but {:?} is declared", one.own);
                Error::new(ErrorKind::ModelFailed, message)
            }),
        }
    }
}

/// `reshape`, if it matches the model's own shape.
fn fitting(side: &str, reshape: &Reshape, port: &Port) -> Result<Reshape> {
    let fits = |dims: &Vec<Dim>| {
        dims.len() == reshape.own.len()
            && dims.iter().zip(&reshape.own).all(|(dim, size)| match dim {
                Dim::Fixed(fixed) => u64::try_from(*size) == Ok(*fixed),
                Dim::Named(_) | Dim::Free => true,
            })
    };
    if port.dims.as_ref().is_none_or(fits) {
        return Ok(reshape.clone());
    }
    let (name, own, real) = (port.name(), &reshape.own, port.spec().shape);
    let message = format!(
        "{side} '{name}' is declared to be {own:?} after its reshape; the model has {real:?}\n\
         help: declare what the model has"
    );
    Err(Error::new(ErrorKind::ModelFailed, message))
}

/// Translates `shape`, an instance of `from`, to `to`. Free sizes keep their order.
fn translate(from: &[i64], to: &[i64], shape: &[u64]) -> Option<Shape> {
    let mut free: SmallVec<[u64; 4]> = SmallVec::new();
    if from.len() != shape.len() {
        return None;
    }
    for (wanted, size) in from.iter().zip(shape) {
        match u64::try_from(*wanted) {
            Err(_) => free.push(*size),
            Ok(wanted) if wanted != *size => return None,
            Ok(_) => {}
        }
    }
    let mut free = free.into_iter();
    to.iter().map(|size| u64::try_from(*size).ok().or_else(|| free.next())).collect()
}

/// Provides outputs in the shapes for clients.
pub(crate) struct Reshaped<'a> {
    pub(crate) reshapes: &'a Reshapes,
    pub(crate) outputs: &'a mut dyn Outputs,
}

// SAFETY: the wrapped owner keeps the contract; the number of elements is the same in either shape.
unsafe impl Outputs for Reshaped<'_> {
    fn place(&mut self, index: usize, datatype: DataType, shape: &[u64]) -> Result<*mut u8> {
        let outer = self.reshapes.outer(index, shape)?;
        same_count(shape, &outer)?;
        self.outputs.place(index, datatype, &outer)
    }

    fn place_bytes(&mut self, index: usize, shape: &[u64], len: usize) -> Result<*mut u8> {
        let outer = self.reshapes.outer(index, shape)?;
        same_count(shape, &outer)?;
        self.outputs.place_bytes(index, &outer, len)
    }
}

/// Memory is requested by shape: another number of elements would be another number of bytes.
fn same_count(one: &[u64], other: &[u64]) -> Result<()> {
    if inferd_types::element_count(one)? == inferd_types::element_count(other)? {
        return Ok(());
    }
    let message =
        format!("an output of shape {one:?} can't be given as {other:?}: the elements differ in number");
    Err(Error::new(ErrorKind::ModelFailed, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(sizes: &[u64]) -> Option<Shape> {
        Some(sizes.into())
    }

    #[test]
    fn fixed_sizes_are_exchanged_and_free_ones_keep_their_order() {
        assert_eq!(translate(&[3, 4], &[1, 3, 4], &[3, 4]), shape(&[1, 3, 4]));
        assert_eq!(translate(&[-1, 1], &[-1], &[7, 1]), shape(&[7]));
        assert_eq!(translate(&[-1, 2, -1], &[-1, -1, 1, 2], &[5, 2, 9]), shape(&[5, 9, 1, 2]));
    }

    #[test]
    fn a_shape_that_is_not_the_declared_one_has_no_counterpart() {
        assert_eq!(translate(&[3, 4], &[12], &[4, 3]), None);
        assert_eq!(translate(&[3, 4], &[12], &[12]), None);
        assert_eq!(translate(&[3], &[-1, 3], &[3]), None);
    }

    #[test]
    fn elements_must_not_change_in_number() {
        assert!(same_count(&[2, 6], &[12]).is_ok());
        assert!(same_count(&[2, 6], &[11]).is_err());
    }
}

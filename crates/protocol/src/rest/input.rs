//! One element of `inputs` in the body of an inference request.
//!
//! Reads the members in any order, hands on an input; if name, type and shape come first, as clients write them,
//! the data are parsed at once, else when the object has ended. Does not know of the other inputs, nor of raw
//! tensors after the JSON.

use std::borrow::Cow;

use inferd_types::values::{Kind, Unfit};
use inferd_types::{Result, Shape, shown};

use super::data;
use super::members::{once, read_parameters};
use super::scan::Scanner;
use crate::check::{Claim, Inputs};
use crate::invalid::invalid;
use crate::options::TensorParameters;

/// An element of `inputs` while it is read.
#[derive(Default)]
pub(super) struct InputObject<'a> {
    name: Option<Cow<'a, str>>,
    datatype: Option<Cow<'a, str>>,
    pub(super) shape: Option<Shape>,
    pub(super) parameters: TensorParameters,
    pub(super) data: Option<Data>,
    /// Its claim, once name, type and shape are known and valid.
    claim: Option<Claim>,
}

pub(super) enum Data {
    Read(Vec<u8>),
    /// It precedes its type or shape; the place where it begins.
    Later((usize, usize)),
}

impl<'a> InputObject<'a> {
    pub(super) fn read(&mut self, scanner: &mut Scanner<'a>, inputs: &mut Inputs<'_>) -> Result<()> {
        let mut first = true;
        scanner.open(b'{').map_err(|error| error.within("inputs"))?;
        while let Some(key) = scanner.key(&mut first)? {
            match &*key {
                "name" => {
                    once(&mut self.name.is_some(), "name")?;
                    self.name = Some(scanner.string().map_err(|error| error.within("name of an input"))?);
                }
                "datatype" => {
                    once(&mut self.datatype.is_some(), "datatype")?;
                    self.datatype =
                        Some(scanner.string().map_err(|error| error.within(self.place("datatype")))?);
                }
                "shape" => {
                    once(&mut self.shape.is_some(), "shape")?;
                    self.shape =
                        Some(read_shape(scanner).map_err(|error| error.within(self.place("shape")))?);
                }
                "parameters" => {
                    let parameters = &mut self.parameters;
                    read_parameters(scanner, |name, value| parameters.take(name, &value))?;
                }
                "data" => {
                    once(&mut self.data.is_some(), "data")?;
                    self.data = Some(self.read_data(scanner, inputs)?);
                }
                _ => scanner.skip_value()?,
            }
        }
        Ok(())
    }

    fn read_data(&mut self, scanner: &mut Scanner<'a>, inputs: &mut Inputs<'_>) -> Result<Data> {
        if self.name.is_none() || self.datatype.is_none() || self.shape.is_none() {
            let mark = scanner.mark();
            scanner.skip_value()?;
            return Ok(Data::Later(mark));
        }
        let claim = self.claim(inputs)?;
        let shape = self.shape.as_deref().unwrap_or_default();
        read_data(scanner, inputs, claim, shape).map(Data::Read)
    }

    /// The input's claim, checked once.
    pub(super) fn claim(&mut self, inputs: &mut Inputs<'_>) -> Result<Claim> {
        if let Some(claim) = self.claim {
            return Ok(claim);
        }
        let missing = |input: &Self, what: &str, expected: &str| {
            invalid(format!("{} is missing; {expected} is expected", input.place(what)))
        };
        let name = self.name.as_deref().ok_or_else(|| missing(self, "name", "a string"))?;
        let index = inputs.claim(name)?;
        let datatype = self
            .datatype
            .as_deref()
            .ok_or_else(|| missing(self, "datatype", &format!("\"{}\"", inputs.spec(index).datatype)))?;
        let shape = self.shape.as_deref().ok_or_else(|| {
            missing(self, "shape", &format!("{:?} (-1 stands for any size)", inputs.spec(index).shape))
        })?;
        let claim = inputs.check(index, datatype, shape)?;
        self.claim = Some(claim);
        Ok(claim)
    }

    /// `input 'x': shape`, for messages.
    fn place(&self, what: &str) -> String {
        match &self.name {
            Some(name) => format!("input '{}': {what}", shown(name)),
            None => format!("an input: {what}"),
        }
    }
}

pub(super) fn read_data(
    scanner: &mut Scanner<'_>,
    inputs: &Inputs<'_>,
    claim: Claim,
    shape: &[u64],
) -> Result<Vec<u8>> {
    let input = inputs.input(claim.index);
    let kind = Kind { datatype: claim.sent, missing: input.takes_missing_text() };
    data::read(scanner, kind, shape).map_err(|unfit| match unfit {
        Unfit::Null(element) => input.null(claim.sent, shape, element),
        Unfit::Other(error) => error.within(input),
    })
}

fn read_shape(scanner: &mut Scanner<'_>) -> Result<Shape> {
    let mut shape = Shape::new();
    let mut first = true;
    scanner.open(b'[')?;
    while scanner.another(&mut first, b']')? {
        let number = scanner.number()?;
        let dim = number.integer::<i64>().and_then(|dim| u64::try_from(dim).ok());
        shape.push(dim.ok_or_else(|| {
            let (place, text) = (shape.len(), shown(number.text()));
            invalid(format!("dimension {place} is {text}; an integer of 0 or more is expected"))
        })?);
    }
    Ok(shape)
}

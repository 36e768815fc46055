//! Inputs of different lengths made equal, so that they share a batch, and outputs cut back to what each was.
//!
//! Reads the model's `padding` and tensors, hands back tensors. Functions of values.
//! Knows nothing of batches: how long the longest input is arrives as an argument.

use bytes::BytesMut;
use inferd_types::settings::PaddingSettings;
use inferd_types::{DataType, Error, ErrorKind, Result, Signature, Tensor, TensorSpec};
use smallvec::SmallVec;

type Inputs = SmallVec<[Tensor; 2]>;

/// What is padded and what is cut back, by position.
#[derive(Debug)]
pub(crate) struct Padding {
    inputs: Vec<Input>,
    outputs: Vec<Output>,
}

#[derive(Debug)]
struct Input {
    index: usize,
    axis: usize,
    /// One element of the value.
    element: SmallVec<[u8; 8]>,
}

#[derive(Debug)]
struct Output {
    index: usize,
    axis: usize,
    name: String,
}

impl Padding {
    /// `settings` as they apply to a model of this signature.
    ///
    /// # Errors
    /// `InvalidInput` where they name what the model doesn't have, or an axis that is not free.
    pub(crate) fn new(settings: &PaddingSettings, signature: &Signature) -> Result<Padding> {
        let mut padding = Padding { inputs: Vec::new(), outputs: Vec::new() };
        for (name, input) in &settings.inputs {
            let (index, spec) = free_axis("input", name, input.axis, &signature.inputs)?;
            let element = element(spec.datatype, input.value).ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidInput,
                    format!(
                        "padding: input '{name}' is {} and can't be padded with {}; give a value that the type holds",
                        spec.datatype, input.value
                    ),
                )
            })?;
            padding.inputs.push(Input { index, axis: input.axis, element });
        }
        for (name, output) in &settings.outputs {
            let (index, _) = free_axis("output", name, output.axis, &signature.outputs)?;
            padding.outputs.push(Output { index, axis: output.axis, name: name.clone() });
        }
        Ok(padding)
    }

    /// The length that all padded inputs of one request share.
    ///
    /// # Errors
    /// `InvalidInput` where they don't.
    pub(crate) fn length(&self, inputs: &[Tensor]) -> Result<u64> {
        let mut lengths = self.inputs.iter().map(|padded| dim(inputs, padded.index, padded.axis));
        let first = lengths.next().unwrap_or(0);
        match lengths.find(|length| *length != first) {
            None => Ok(first),
            Some(other) => Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "the padded inputs are {first} and {other} long; all inputs that the model's padding names must \
                     have one length"
                ),
            )),
        }
    }

    /// Whether `axis` of input `index` is the one that may differ.
    pub(crate) fn is_padded(&self, index: usize, axis: usize) -> bool {
        self.inputs.iter().any(|padded| (padded.index, padded.axis) == (index, axis))
    }

    /// `inputs` with the padded axes at `length`, which none of them is over.
    pub(crate) fn pad(&self, inputs: &[Tensor], length: u64) -> Inputs {
        let mut inputs: Inputs = inputs.iter().cloned().collect();
        for padded in &self.inputs {
            if let Some(tensor) = inputs.get_mut(padded.index) {
                let filler = padded.element.as_slice();
                resize(tensor, padded.axis, length, filler);
            }
        }
        inputs
    }

    /// Cuts the outputs that follow the padded axis from the batch's length back to one request's.
    ///
    /// # Errors
    /// `ModelFailed` where such an output does not have the batch's length.
    pub(crate) fn cut(&self, outputs: &mut [Tensor], batch: u64, own: u64) -> Result<()> {
        for Output { index, axis, name } in &self.outputs {
            let Some(tensor) = outputs.get_mut(*index) else { continue };
            let found = tensor.shape.get(*axis).copied().unwrap_or(0);
            if found != batch {
                return Err(Error::new(
                    ErrorKind::ModelFailed,
                    format!(
                        "output '{name}' is {found} long in dimension {axis} for inputs padded to {batch}, so it can't \
                         be cut back to what each request sent; remove it from padding.outputs"
                    ),
                ));
            }
            resize(tensor, *axis, own, &[]);
        }
        Ok(())
    }
}

fn dim(tensors: &[Tensor], index: usize, axis: usize) -> u64 {
    tensors.get(index).and_then(|tensor| tensor.shape.get(axis).copied()).unwrap_or(0)
}

/// Makes `axis` of `tensor` as long as `length`: cut, or filled up with elements of `filler`.
fn resize(tensor: &mut Tensor, axis: usize, length: u64, filler: &[u8]) {
    let Some(size) = tensor.datatype.size() else { return };
    let Some(have) = tensor.shape.get(axis).copied().filter(|have| *have != length) else { return };
    let product = |dims: &[u64]| dims.iter().product::<u64>() as usize;
    let (outer, inner) = (product(&tensor.shape[..axis]), product(&tensor.shape[axis + 1..]) * size);
    let (have_bytes, kept) = (have as usize * inner, have.min(length) as usize * inner);
    let wanted = length as usize * inner;
    let mut data = BytesMut::with_capacity(outer * wanted);
    for block in 0..outer {
        let start = block * have_bytes;
        data.extend_from_slice(&tensor.data[start..start + kept]);
        if filler.iter().all(|byte| *byte == 0) {
            data.resize((block + 1) * wanted, 0);
        } else {
            (kept..wanted).step_by(size).for_each(|_| data.extend_from_slice(filler));
        }
    }
    tensor.shape[axis] = length;
    tensor.data = data.freeze();
}

fn free_axis<'a>(
    what: &str,
    name: &str,
    axis: usize,
    specs: &'a [TensorSpec],
) -> Result<(usize, &'a TensorSpec)> {
    let wrong =
        |why: String| Err(Error::new(ErrorKind::InvalidInput, format!("padding: {what} '{name}' {why}")));
    let Some((index, spec)) = specs.iter().enumerate().find(|(_, spec)| *spec.name == *name) else {
        let known: Vec<&str> = specs.iter().map(|spec| &*spec.name).collect();
        return wrong(format!("is not one of the model's; it has {}", known.join(", ")));
    };
    if spec.datatype.size().is_none() {
        return wrong("is BYTES, whose elements have no common size; leave it out".into());
    }
    match spec.shape.get(axis) {
        Some(-1) if axis > 0 => Ok((index, spec)),
        _ => wrong(format!(
            "has no free dimension {axis} in {:?}; name one that is -1, not the first",
            spec.shape
        )),
    }
}

/// The bytes of `value` as one element; `None` where the type does not hold it.
fn element(datatype: DataType, value: f64) -> Option<SmallVec<[u8; 8]>> {
    let whole = (value.fract() == 0.0).then_some(value as i128);
    macro_rules! integer {
        ($type:ty) => {
            <$type>::try_from(whole?).ok()?.to_le_bytes().into_iter().collect()
        };
    }
    Some(match datatype {
        DataType::Bool => SmallVec::from_slice(&[u8::try_from(whole?).ok().filter(|bit| *bit <= 1)?]),
        DataType::Uint8 => integer!(u8),
        DataType::Uint16 => integer!(u16),
        DataType::Uint32 => integer!(u32),
        DataType::Uint64 => integer!(u64),
        DataType::Int8 => integer!(i8),
        DataType::Int16 => integer!(i16),
        DataType::Int32 => integer!(i32),
        DataType::Int64 => integer!(i64),
        DataType::Fp16 => half(value as f32).to_le_bytes().into_iter().collect(),
        DataType::Bf16 => ((value as f32).to_bits() >> 16).to_le_bytes().into_iter().take(2).collect(),
        DataType::Fp32 => (value as f32).to_le_bytes().into_iter().collect(),
        DataType::Fp64 => value.to_le_bytes().into_iter().collect(),
        DataType::Bytes => return None,
    })
}

/// Rounded towards zero; too large is infinite, too small is zero.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let (sign, exponent) = ((bits >> 16) as u16 & 0x8000, (bits >> 23 & 0xff) as i32 - 112);
    match exponent {
        ..=0 => sign,
        31.. => sign | 0x7c00,
        _ => sign | (exponent as u16) << 10 | (bits >> 13) as u16 & 0x3ff,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use inferd_types::Batching;
    use inferd_types::settings::{CutOutput, PaddedInput};

    use super::*;

    fn spec(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: name.into(), datatype, shape: shape.to_vec() }
    }

    fn signature() -> Signature {
        Signature {
            inputs: vec![spec("x", DataType::Int16, &[-1, -1, 2]), spec("m", DataType::Uint8, &[-1, -1])],
            outputs: vec![spec("y", DataType::Int16, &[-1, -1])],
            batching: Batching::On,
            decoupled: false,
            extras: Default::default(),
        }
    }

    fn settings(input: &str, axis: usize, value: f64) -> PaddingSettings {
        let inputs = [
            (input.to_owned(), PaddedInput { axis, value }),
            ("m".into(), PaddedInput { axis: 1, value: 0.0 }),
        ];
        PaddingSettings {
            inputs: inputs.into_iter().collect(),
            outputs: BTreeMap::from([("y".to_owned(), CutOutput { axis: 1 })]),
        }
    }

    fn tensor(datatype: DataType, shape: &[u64], data: &[u8]) -> Tensor {
        Tensor::new(datatype, shape.iter().copied().collect(), data.to_vec().into()).unwrap()
    }

    #[test]
    fn every_row_is_filled_up_with_the_value_and_cut_back_to_its_own() {
        let padding = Padding::new(&settings("x", 1, -1.0), &signature()).unwrap();
        let inputs = [
            tensor(DataType::Int16, &[2, 1, 2], &[1, 0, 2, 0, 3, 0, 4, 0]),
            tensor(DataType::Uint8, &[2, 1], &[1, 1]),
        ];
        assert_eq!(padding.length(&inputs).unwrap(), 1);
        let padded = padding.pad(&inputs, 2);
        assert_eq!(padded[0].shape[..], [2, 2, 2]);
        assert_eq!(padded[0].data[..], [1, 0, 2, 0, 255, 255, 255, 255, 3, 0, 4, 0, 255, 255, 255, 255]);
        assert_eq!(padded[1].data[..], [1, 0, 1, 0]);
        let mut outputs = [tensor(DataType::Int16, &[2, 2], &[5, 0, 6, 0, 7, 0, 8, 0])];
        padding.cut(&mut outputs, 2, 1).unwrap();
        assert_eq!((&outputs[0].shape[..], &outputs[0].data[..]), (&[2, 1][..], &[5, 0, 7, 0][..]));
        assert_eq!(padding.pad(&inputs, 1)[..], inputs);
    }

    #[test]
    fn an_output_that_does_not_follow_the_padded_axis_is_found_out_even_when_nothing_was_padded() {
        let padding = Padding::new(&settings("x", 1, 0.0), &signature()).unwrap();
        let mut outputs = [tensor(DataType::Int16, &[1, 3], &[0; 6])];
        assert!(padding.cut(&mut outputs, 5, 5).unwrap_err().message().contains("padding.outputs"));
    }

    #[test]
    fn inputs_of_one_request_have_one_length() {
        let padding = Padding::new(&settings("x", 1, 0.0), &signature()).unwrap();
        let inputs =
            [tensor(DataType::Int16, &[1, 1, 2], &[0; 4]), tensor(DataType::Uint8, &[1, 2], &[0; 2])];
        assert_eq!(padding.length(&inputs).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn what_the_model_does_not_have_or_hold_is_an_error_at_load() {
        for (input, axis, value, part) in [
            ("z", 1, 0.0, "it has x, m"),
            ("x", 2, 0.0, "no free dimension 2"),
            ("x", 0, 0.0, "no free dimension 0"),
            ("x", 1, 0.5, "padded with 0.5"),
            ("x", 1, 40_000.0, "padded with 40000"),
        ] {
            let error = Padding::new(&settings(input, axis, value), &signature()).unwrap_err();
            assert!(error.message().contains(part), "{error}");
        }
    }

    #[test]
    fn values_are_written_in_the_form_of_their_type() {
        let bytes = |datatype, value| element(datatype, value).unwrap().to_vec();
        assert_eq!(bytes(DataType::Fp16, 1.5), [0, 0x3e]);
        assert_eq!(bytes(DataType::Fp16, -2.0), [0, 0xc0]);
        assert_eq!(bytes(DataType::Bf16, 1.0), [0x80, 0x3f]);
        assert_eq!(bytes(DataType::Int64, -1.0), [0xff; 8]);
        assert_eq!(bytes(DataType::Bool, 1.0), [1]);
        assert!(element(DataType::Bool, 2.0).is_none());
    }
}

//! Requests that the operator wants run before a replica is ready.
//!
//! Reads settings and a signature, hands back requests that fit it. A function of values.
//! Knows nothing of workers, nor of files: what they hold is in the settings.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use inferd_types::settings::{ModelSettings, Sample, SampleData, SampleInput};
use inferd_types::values::{Kind, measure, push, push_all, push_bytes};
use inferd_types::{DataType, Error, ErrorKind, Input, Result, Shape, Signature, Tensor, element_count};
use serde_json::Value;
use smallvec::SmallVec;

use crate::warmup::synthetic;

/// Maximum bytes of one generated input.
const MADE_UP_MAX_BYTES: usize = 1 << 30;

/// One sample, ready to be staged.
#[derive(Debug)]
pub(crate) struct WarmUp {
    name: String,
    count: u32,
    pub(crate) rows: u32,
    pub(crate) inputs: SmallVec<[Tensor; 2]>,
}

/// The samples of `settings` as requests of a model of `signature`.
///
/// # Errors
/// `ModelFailed` that names the first sample that does not fit, and why.
pub(crate) fn prepare(settings: &ModelSettings, signature: &Signature) -> Result<Vec<WarmUp>> {
    let rows_max = settings.batch_rows_max;
    let one = |sample: &Sample| {
        one(sample, signature, rows_max).map_err(|error| sample_failed(&sample.name, &error))
    };
    settings.samples.iter().map(one).collect()
}

/// What the run of this number is of.
pub(crate) fn at(samples: &[WarmUp], mut run: u32) -> Option<&WarmUp> {
    samples.iter().find(|sample| {
        let here = run < sample.count;
        run = run.saturating_sub(sample.count);
        here
    })
}

/// The error of a model whose run of this number failed.
pub(crate) fn failed(samples: &[WarmUp], run: u32, error: &Error) -> Error {
    match at(samples, run) {
        Some(sample) => sample_failed(&sample.name, error),
        None => error.clone(),
    }
}

fn sample_failed(name: &str, error: &Error) -> Error {
    let message = format!(
        "warm-up sample '{name}': {}\nhelp: correct the sample, or leave it out of warmup: (model_warmup)",
        error.message()
    );
    Error::new(ErrorKind::ModelFailed, message).with_detail(error.detail().unwrap_or_default())
}

fn one(sample: &Sample, signature: &Signature, rows_max: u32) -> Result<WarmUp> {
    let known = |name: &str| signature.inputs.iter().any(|spec| *spec.name == *name);
    if let Some(name) = sample.inputs.keys().find(|name| !known(name)) {
        let names: Vec<_> = signature.inputs.iter().map(|spec| format!("'{}'", spec.name)).collect();
        return Err(invalid(format!("the model has no input '{name}'; its inputs are {}", names.join(", "))));
    }
    let inputs = if sample.inputs.is_empty() {
        synthetic::request(signature, sample.rows.unwrap_or(1))?
    } else {
        given(sample, signature)?
    };
    let rows = if signature.batched() { rows_of(signature, &inputs)? } else { 1 };
    if rows > rows_max && signature.batched() {
        return Err(invalid(format!("it has {rows} rows, and batch_rows_max is {rows_max}")));
    }
    Ok(WarmUp { name: sample.name.clone(), count: sample.count.max(1), rows, inputs })
}

fn given(sample: &Sample, signature: &Signature) -> Result<SmallVec<[Tensor; 2]>> {
    let mut tensors: SmallVec<[Option<Tensor>; 2]> = SmallVec::new();
    for (index, spec) in signature.inputs.iter().enumerate() {
        let input = signature.input(index);
        let tensor = sample
            .inputs
            .get(&*spec.name)
            .map(|given| tensor(input, given, sample.rows).map_err(|error| error.within(input)));
        tensors.push(tensor.transpose()?);
    }
    for (index, spec) in signature.inputs.iter().enumerate() {
        if tensors[index].is_none() {
            tensors[index] = signature.left_out(index, tensors.iter().map(Option::as_ref))?;
        }
        if tensors[index].is_none() {
            return Err(invalid(format!(
                "it lacks input '{}' ({} {:?})",
                spec.name, spec.datatype, spec.shape
            )));
        }
    }
    Ok(tensors.into_iter().flatten().collect())
}

/// Every input of a batched model has as many rows as the first, at least one.
fn rows_of(signature: &Signature, inputs: &[Tensor]) -> Result<u32> {
    let rows = |tensor: &Tensor| tensor.shape.first().copied().unwrap_or(0);
    let first = inputs.first().map_or(1, rows);
    for (spec, tensor) in signature.inputs.iter().zip(inputs) {
        if rows(tensor) != first || first == 0 {
            return Err(invalid(format!(
                "input '{}' has {} rows where the first has {first}; all must have equally many, at least one",
                spec.name,
                rows(tensor)
            )));
        }
    }
    Ok(u32::try_from(first).unwrap_or(u32::MAX))
}

fn tensor(input: Input<'_>, given: &SampleInput, rows: Option<u32>) -> Result<Tensor> {
    let spec = input.spec;
    if let Some(datatype) = given.datatype.filter(|datatype| *datatype != spec.datatype) {
        return Err(invalid(format!(
            "it is {datatype} in the sample, but the model takes {}",
            spec.datatype
        )));
    }
    let stated: Option<Shape> = given.shape.as_ref().map(|shape| Shape::from_slice(shape));
    let ones = || spec.shape.iter().map(|dim| u64::try_from(*dim).unwrap_or(1)).collect();
    let (mut shape, mut data) = match &given.data {
        SampleData::Values(value) => values(input, value, stated)?,
        SampleData::Zeros => {
            let shape = stated.unwrap_or_else(ones);
            let data = vec![0; made_up_bytes(&shape, spec.datatype)?];
            (shape, data)
        }
        SampleData::Random => {
            let shape = stated.unwrap_or_else(ones);
            let data = random(&shape, spec.datatype)?;
            (shape, data)
        }
        SampleData::Raw(text) => {
            let data = STANDARD.decode(text).map_err(|error| invalid(format!("it is no base64: {error}")))?;
            (stated.unwrap_or_else(ones), data)
        }
    };
    if let (Some(rows), Some(have)) = (rows, shape.first_mut())
        && spec.shape[0] < 0
    {
        let times = u64::from(rows).checked_div(*have).filter(|times| times * *have == u64::from(rows));
        let Some(times) = times.and_then(|times| usize::try_from(times).ok()) else {
            return Err(invalid(format!("it has {have} rows, which can't be repeated to {rows}")));
        };
        if data.len().checked_mul(times).is_none_or(|bytes| bytes > MADE_UP_MAX_BYTES) {
            return Err(too_large());
        }
        data = data.repeat(times);
        *have = u64::from(rows);
    }
    if !spec.accepts(&shape) {
        return Err(invalid(format!(
            "it has the shape {:?}, but the model takes {:?} (-1 stands for any size)",
            &shape[..],
            spec.shape
        )));
    }
    if spec.datatype == DataType::Bool && data.iter().any(|byte| *byte > 1) {
        return Err(invalid("it has a BOOL that is neither 0 nor 1"));
    }
    input.tensor(shape, data.into())
}

/// Values nested as they are, or of a shape that is stated and then in any nesting.
fn values(input: Input<'_>, value: &Value, stated: Option<Shape>) -> Result<(Shape, Vec<u8>)> {
    let kind = Kind::of(input);
    let mut data = Vec::new();
    if let Some(shape) = stated {
        flat(value, kind, &mut data)?;
        return Ok((shape, data));
    }
    let mut shape = Shape::new();
    measure(value, input.spec.shape.len(), &mut shape);
    push_all(value, &shape, kind, &mut data)?;
    Ok((shape, data))
}

fn flat(value: &Value, kind: Kind, data: &mut Vec<u8>) -> Result<()> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| flat(item, kind, data)),
        value => Ok(push(value, kind, data)?),
    }
}

/// How many bytes a tensor of `shape` takes, an empty string for each element of BYTES.
fn made_up_bytes(shape: &[u64], datatype: DataType) -> Result<usize> {
    element_count(shape)
        .ok()
        .and_then(|count| usize::try_from(count).ok()?.checked_mul(datatype.size().unwrap_or(4)))
        .filter(|bytes| *bytes <= MADE_UP_MAX_BYTES)
        .ok_or_else(too_large)
}

fn random(shape: &[u64], datatype: DataType) -> Result<Vec<u8>> {
    made_up_bytes(shape, datatype)?;
    let mut data = Vec::new();
    let mut state = 0u64;
    for _ in 0..element_count(shape)? {
        let bits = splitmix(&mut state);
        match datatype {
            DataType::Bytes => push_bytes(format!("word {}", bits % 1000).as_bytes(), &mut data)?,
            DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => {
                let number = (bits >> 11) as f64 / (1u64 << 53) as f64;
                push(&number.into(), Kind { datatype, missing: false }, &mut data)?;
            }
            // 0 and 1 are valid for flags, counts and most vocabularies.
            whole => {
                let at = data.len();
                data.resize(at + whole.size().unwrap_or(1), 0);
                data[at] = (bits % 2) as u8;
            }
        }
    }
    Ok(data)
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cold]
fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message.into())
}

#[cold]
fn too_large() -> Error {
    invalid(format!("it takes more than {} MiB; give it fewer rows", MADE_UP_MAX_BYTES >> 20))
}

#[cfg(test)]
mod tests {
    use inferd_types::{Batching, TensorSpec};
    use serde_json::json;

    use super::*;

    fn signature() -> Signature {
        let spec = |name: &str, datatype, shape: &[i64]| TensorSpec {
            name: name.into(),
            datatype,
            shape: shape.to_vec(),
        };
        Signature {
            inputs: vec![spec("text", DataType::Bytes, &[-1]), spec("x", DataType::Fp32, &[-1, 2])],
            outputs: Vec::new(),
            batching: Batching::On,
            decoupled: false,
            extras: Default::default(),
        }
    }

    fn prepared(sample: Value) -> Result<WarmUp> {
        one(&serde_json::from_value(sample).unwrap(), &signature(), 8)
    }

    fn refusal(sample: Value) -> String {
        prepared(sample).unwrap_err().message().to_owned()
    }

    #[test]
    fn values_raw_bytes_and_made_up_data_become_the_models_inputs() {
        let sample = prepared(json!({"name": "a", "rows": 4, "count": 2, "inputs": {
            "text": {"datatype": "BYTES", "shape": [1], "data": {"raw": "AQAAAGE="}},
            "x": {"datatype": null, "shape": null, "data": {"values": [[1, 2], [3, 4]]}},
        }}))
        .unwrap();
        assert_eq!((sample.rows, sample.count), (4, 2));
        assert_eq!(sample.inputs[0].data[..], *b"\x01\0\0\0a".repeat(4));
        assert_eq!(sample.inputs[1].shape[..], [4, 2]);
        let made_up = prepared(json!({"name": "a", "rows": null, "count": 1, "inputs": {
            "text": {"datatype": null, "shape": [3], "data": "zeros"},
            "x": {"datatype": null, "shape": [3, 2], "data": "random"},
        }}))
        .unwrap();
        assert_eq!(made_up.inputs[0].data[..], [0; 12]);
        let numbers = made_up.inputs[1].data.as_chunks::<4>().0;
        assert!(numbers.iter().all(|bytes| (0.0..1.0).contains(&f32::from_le_bytes(*bytes))));
        assert_eq!(prepared(json!({"name": "a", "rows": 8, "count": 1, "inputs": {}})).unwrap().rows, 8);
    }

    #[test]
    fn what_does_not_fit_the_model_is_named() {
        let text = json!({"datatype": null, "shape": null, "data": {"values": ["a"]}});
        let with =
            |x: Value| json!({"name": "a", "rows": null, "count": 1, "inputs": {"text": text, "x": x}});
        let lacking = json!({"name": "a", "rows": null, "count": 1, "inputs": {"text": text}});
        assert_eq!(refusal(lacking), "it lacks input 'x' (FP32 [-1, 2])");
        let x = |datatype: Value, values: Value| json!({"datatype": datatype, "shape": null, "data": {"values": values}});
        assert!(refusal(with(x(json!("FP64"), json!([[1, 2]])))).contains("'x': it is FP64"));
        assert!(refusal(with(x(json!(null), json!([[1, 2, 3]])))).contains("[1, 3]"));
        assert!(
            refusal(with(x(json!(null), json!([[1, 2], [3, 4]])))).contains("2 rows where the first has 1")
        );
        assert!(
            refusal(json!({"name": "a", "rows": 9, "count": 1, "inputs": {}}))
                .contains("batch_rows_max is 8")
        );
        let unknown = json!({"name": "a", "rows": null, "count": 1, "inputs": {"y": text}});
        assert!(refusal(unknown).contains("no input 'y'"));
    }

    #[test]
    fn every_sample_is_run_as_often_as_it_says() {
        let sample = |name: &str, count| {
            let settings = json!({"name": name, "rows": null, "count": count, "inputs": {}});
            prepared(settings).unwrap()
        };
        let samples = [sample("a", 2), sample("b", 1)];
        let names: Vec<_> = (0..4).map(|run| at(&samples, run).map(|sample| sample.name.as_str())).collect();
        assert_eq!(names, [Some("a"), Some("a"), Some("b"), None]);
    }
}

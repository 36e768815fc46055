//! The classification extension: replaces scores by the classes with the highest ones.
//!
//! Reads a response and the request's options, hands on BYTES of `value:index` in place of numbers, or
//! `value:index:label` if the class has a label. Does not know how the response is sent.

use std::sync::Arc;

use half::{bf16, f16};
use inferd_types::{DataType, Error, ErrorKind, InferResponse, Result, Signature, Tensor};

use crate::RequestOptions;
use crate::invalid::invalid;

/// Replaces every output for which `options` request it by its highest elements, as many as requested.
///
/// In a batched model each row is a set of scores, otherwise the whole output is. If there are fewer scores than
/// requested, all are named.
///
/// # Errors
/// `InvalidInput` if an output is not numeric; `Internal` if the response does not match the signature.
pub fn classify(options: &RequestOptions, signature: &Signature, response: &mut InferResponse) -> Result<()> {
    for (index, count) in &options.classes {
        let (Some(spec), Some(tensor)) = (signature.outputs.get(*index), response.outputs.get_mut(*index))
        else {
            return Err(Error::new(ErrorKind::Internal, "the response lacks an output of the signature"));
        };
        let scores = scores(tensor).ok_or_else(|| {
            invalid(format!(
                "output '{}' is {}, which has no order; request it without classification",
                spec.name, tensor.datatype
            ))
        })?;
        let labels = signature.labels_of(*index).map_or(&[][..], |labels| &labels.names);
        *tensor = greatest(&scores, tensor, *count, signature.batched(), labels)?;
    }
    Ok(())
}

fn greatest(
    scores: &[f64],
    tensor: &Tensor,
    count: usize,
    batched: bool,
    labels: &[Arc<str>],
) -> Result<Tensor> {
    let rows = if batched { tensor.shape.first().copied().unwrap_or(1) } else { 1 };
    let width = usize::try_from(rows).ok().filter(|rows| *rows > 0).map_or(0, |rows| scores.len() / rows);
    let count = count.min(width);
    let mut data = Vec::new();
    for row in scores.chunks_exact(width.max(1)) {
        let mut order: Vec<usize> = (0..row.len()).collect();
        // NaN ranks last; equal scores keep their order.
        order.sort_by(|a, b| rank(row[*b]).total_cmp(&rank(row[*a])));
        for place in &order[..count] {
            let mut text = format!("{:.6}:{place}", row[*place]);
            if let Some(label) = labels.get(*place).filter(|label| !label.is_empty()) {
                text.push(':');
                text.push_str(label);
            }
            data.extend_from_slice(&(text.len() as u32).to_le_bytes());
            data.extend_from_slice(text.as_bytes());
        }
    }
    let shape = if batched {
        [rows, count as u64].into_iter().collect()
    } else {
        [count as u64].into_iter().collect()
    };
    Tensor::new(DataType::Bytes, shape, data.into())
}

fn rank(score: f64) -> f64 {
    if score.is_nan() { f64::NEG_INFINITY } else { score }
}

/// Every element as a number; `None` if they are not numeric.
fn scores(tensor: &Tensor) -> Option<Vec<f64>> {
    let data = &tensor.data[..];
    Some(match tensor.datatype {
        DataType::Uint8 => each(data, |bytes| u8::from_le_bytes(bytes).into()),
        DataType::Uint16 => each(data, |bytes| u16::from_le_bytes(bytes).into()),
        DataType::Uint32 => each(data, |bytes| u32::from_le_bytes(bytes).into()),
        DataType::Uint64 => each(data, |bytes| u64::from_le_bytes(bytes) as f64),
        DataType::Int8 => each(data, |bytes| i8::from_le_bytes(bytes).into()),
        DataType::Int16 => each(data, |bytes| i16::from_le_bytes(bytes).into()),
        DataType::Int32 => each(data, |bytes| i32::from_le_bytes(bytes).into()),
        DataType::Int64 => each(data, |bytes| i64::from_le_bytes(bytes) as f64),
        DataType::Fp16 => each(data, |bytes| f16::from_le_bytes(bytes).to_f64()),
        DataType::Bf16 => each(data, |bytes| bf16::from_le_bytes(bytes).to_f64()),
        DataType::Fp32 => each(data, |bytes| f32::from_le_bytes(bytes).into()),
        DataType::Fp64 => each(data, f64::from_le_bytes),
        DataType::Bool | DataType::Bytes => return None,
    })
}

fn each<const N: usize>(data: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    data.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)).collect()
}

#[cfg(test)]
mod tests {
    use inferd_types::{Batching, ReplicaId, TensorSpec, Timing};

    use super::*;

    fn classified(
        datatype: DataType,
        shape: &[u64],
        data: Vec<u8>,
        batching: Batching,
        count: usize,
    ) -> Result<Tensor> {
        let spec = TensorSpec { name: "y".into(), datatype, shape: vec![-1; shape.len()] };
        let signature = Signature {
            inputs: Vec::new(),
            outputs: vec![spec],
            batching,
            decoupled: false,
            extras: Default::default(),
        };
        let tensor = Tensor::new(datatype, shape.iter().copied().collect(), data.into())?;
        let mut response = InferResponse {
            outputs: [tensor].into_iter().collect(),
            timing: Timing::default(),
            replica: ReplicaId(0),
            steps: Vec::new(),
        };
        let options = RequestOptions { classes: vec![(0, count)], ..RequestOptions::default() };
        classify(&options, &signature, &mut response)?;
        Ok(response.outputs.remove(0))
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn texts(tensor: &Tensor) -> Vec<String> {
        let mut texts = Vec::new();
        let mut data = &tensor.data[..];
        while let Some((length, rest)) = data.split_first_chunk::<4>() {
            let (text, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
            texts.push(String::from_utf8(text.to_vec()).unwrap());
            data = rest;
        }
        texts
    }

    #[test]
    fn each_row_names_its_greatest_first() {
        let data = floats(&[0.1, 0.7, 0.2, 0.5, 0.25, f32::NAN]);
        let found = classified(DataType::Fp32, &[2, 3], data, Batching::On, 2).unwrap();
        assert_eq!(found.shape[..], [2, 2]);
        assert_eq!(texts(&found), ["0.700000:1", "0.200000:2", "0.500000:0", "0.250000:1"]);
    }

    #[test]
    fn classes_that_have_a_name_are_called_by_it_too() {
        let labels = ["cat", "dog", ""].map(Into::into);
        let tensor =
            Tensor::new(DataType::Fp32, [1, 4].into_iter().collect(), floats(&[0.1, 0.7, 0.2, 0.5]).into());
        let found = greatest(&[0.1, 0.7, 0.2, 0.5], &tensor.unwrap(), 4, true, &labels).unwrap();
        assert_eq!(texts(&found), ["0.700000:1:dog", "0.500000:3", "0.200000:2", "0.100000:0:cat"]);
    }

    #[test]
    fn without_batching_the_whole_output_is_one_set_and_no_more_are_named_than_there_are() {
        let off = Batching::Off { reason: "test".into() };
        let found = classified(DataType::Int8, &[1, 2], vec![3, 0xff], off, 9).unwrap();
        assert_eq!(found.shape[..], [2]);
        assert_eq!(texts(&found), ["3.000000:0", "-1.000000:1"]);
    }

    #[test]
    fn no_rows_have_no_classes_and_text_has_no_order() {
        let none = classified(DataType::Fp32, &[0, 3], Vec::new(), Batching::On, 2).unwrap();
        assert_eq!(none.shape[..], [0, 0]);
        let error = classified(DataType::Bytes, &[1], vec![0; 4], Batching::On, 1).unwrap_err();
        assert!(error.message().contains("has no order"), "{error}");
    }
}

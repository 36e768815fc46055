//! Compares the outputs of a row that ran alone with those of the same row in a batch.
//!
//! Reads outputs and a tolerance, hands on the first difference. Pure functions. Does not know where the outputs
//! come from.

use serde::{Deserialize, Serialize};

use crate::{DataType, Tensor, texts};

/// Two numbers are equal where `|a - b| <= absolute + relative * |b|`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tolerance {
    /// Absolute term, in the output's unit.
    pub absolute: f64,
    /// Relative term, as a fraction of the output.
    pub relative: f64,
}

impl Default for Tolerance {
    /// Summation order changes the last bits of an FP32; a mix-up of rows changes the first.
    fn default() -> Self {
        Tolerance { absolute: 1e-5, relative: 1e-3 }
    }
}

/// One element of an output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Element<'a> {
    /// Equal within the tolerance.
    Float(f64),
    /// Equal if the bytes are; `None` is a missing BYTES element.
    Exact(Option<&'a [u8]>),
}

/// Where two responses differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Index of the output.
    pub output: usize,
    /// Index of the row in its request; `None` where shapes or types differ.
    pub row: Option<u64>,
    /// The row's largest absolute difference; `None` where it is not numeric.
    pub size: Option<f64>,
}

/// The first difference between the outputs `alone` and `batched` of a request of `rows` rows; `None` if they are
/// equal.
///
/// A different class is no difference where the scores of the same row, in another output, tie for the best,
/// because rounding decides between them. The same holds for two places of a list that is sorted by score.
pub fn difference(
    alone: &[Tensor],
    batched: &[Tensor],
    rows: u64,
    tolerance: Tolerance,
) -> Option<Difference> {
    if alone.len() != batched.len() {
        return Some(Difference { output: alone.len().min(batched.len()), row: None, size: None });
    }
    for (output, (one, other)) in alone.iter().zip(batched).enumerate() {
        if one.datatype != other.datatype || one.shape != other.shape {
            return Some(Difference { output, row: None, size: None });
        }
        if one.data == other.data {
            continue;
        }
        let (one, other, datatype) = (elements(one), elements(other), one.datatype);
        let width = one.len() / usize::try_from(rows).unwrap_or(1).max(1);
        for (row, (one, other)) in (0..).zip(one.chunks(width.max(1)).zip(other.chunks(width.max(1)))) {
            if close(one, other, datatype, tolerance) {
                continue;
            }
            if !ties(one, other, alone, row, tolerance) {
                return Some(Difference { output, row: Some(row), size: largest(one, other) });
            }
        }
    }
    None
}

/// Whether `one` and `other`, exact elements of `row`, differ only where scores of that row tie.
fn ties(
    one: &[Element<'_>],
    other: &[Element<'_>],
    outputs: &[Tensor],
    row: u64,
    tolerance: Tolerance,
) -> bool {
    let apart: Vec<usize> = (0..one.len()).filter(|at| one[*at] != other[*at]).collect();
    let exact = one.iter().all(|element| matches!(element, Element::Exact(_)));
    exact
        && outputs.iter().any(|output| {
            let Some(scores) = floats_of(output, row) else { return false };
            let equal = |a: f64, b: f64| {
                close(&[Element::Float(a)], &[Element::Float(b)], output.datatype, tolerance)
            };
            if one.len() > 1 {
                let near =
                    |at: usize| [at.wrapping_sub(1), at + 1].into_iter().filter_map(|at| scores.get(at));
                return scores.len() == one.len()
                    && apart.iter().all(|at| near(*at).any(|score| equal(scores[*at], *score)));
            }
            let mut best = scores.clone();
            best.sort_by(|a, b| b.total_cmp(a));
            matches!(best[..], [best, second, ..] if second.is_finite() && equal(best, second))
        })
}

/// The values of one row; `None` if they are not floats.
fn floats_of(output: &Tensor, row: u64) -> Option<Vec<f64>> {
    let elements = elements(output);
    let rows = usize::try_from(*output.shape.first()?).ok()?;
    let width = elements.len().checked_div(rows)?;
    let at = usize::try_from(row).ok()? * width;
    let number = |element: &Element<'_>| match element {
        Element::Float(number) => Some(*number),
        Element::Exact(_) => None,
    };
    elements.get(at..at + width)?.iter().map(number).collect()
}

fn largest(one: &[Element<'_>], other: &[Element<'_>]) -> Option<f64> {
    let apart = one.iter().zip(other).filter_map(|pair| match pair {
        (Element::Float(one), Element::Float(other)) => Some((one - other).abs()),
        _ => None,
    });
    apart.reduce(f64::max)
}

/// The elements of `tensor`, row-major.
pub fn elements(tensor: &Tensor) -> Vec<Element<'_>> {
    fn number(datatype: DataType, bytes: &[u8]) -> Element<'_> {
        match (datatype, bytes) {
            (DataType::Fp16, &[a, b]) => Element::Float(half::f16::from_le_bytes([a, b]).to_f64()),
            (DataType::Bf16, &[a, b]) => Element::Float(half::bf16::from_le_bytes([a, b]).to_f64()),
            (DataType::Fp32, &[a, b, c, d]) => Element::Float(f64::from(f32::from_le_bytes([a, b, c, d]))),
            (DataType::Fp64, &[a, b, c, d, e, f, g, h]) => {
                Element::Float(f64::from_le_bytes([a, b, c, d, e, f, g, h]))
            }
            _ => Element::Exact(Some(bytes)),
        }
    }
    let data = &tensor.data[..];
    match tensor.datatype.size() {
        Some(size) => data.chunks_exact(size).map(|bytes| number(tensor.datatype, bytes)).collect(),
        None => texts(data).map(Element::Exact).collect(),
    }
}

/// Whether two rows' elements `a` and `b` are equal within the tolerance.
pub fn close(a: &[Element<'_>], b: &[Element<'_>], datatype: DataType, tolerance: Tolerance) -> bool {
    // Half-precision values can't be closer than their resolution, whatever the tolerance is.
    let step = match datatype {
        DataType::Fp16 => 4.0 / 1024.0,
        DataType::Bf16 => 4.0 / 128.0,
        _ => 0.0,
    };
    let relative = tolerance.relative.max(step);
    // A small result of large operands has their rounding error.
    let size = |element: &Element<'_>| if let Element::Float(b) = element { b.abs() } else { 0.0 };
    let greatest = b.iter().map(size).filter(|size| size.is_finite()).fold(1.0, f64::max);
    let absolute = tolerance.absolute.max(step / 16.0) * greatest;
    let same = |a: f64, b: f64| {
        let near = b.is_finite() && (a - b).abs() <= absolute + relative * b.abs();
        a == b || (a.is_nan() && b.is_nan()) || near
    };
    a.len() == b.len()
        && a.iter().zip(b).all(|pair| match pair {
            (Element::Float(a), Element::Float(b)) => same(*a, *b),
            (a, b) => a == b,
        })
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use smallvec::smallvec;

    use super::*;

    fn floats(width: u64, values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let rows = values.len() as u64 / width;
        Tensor::new(DataType::Fp32, smallvec![rows, width], data.into()).unwrap()
    }

    fn classes(values: &[i64]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(DataType::Int64, smallvec![values.len() as u64], data.into()).unwrap()
    }

    fn found(alone: &[Tensor], batched: &[Tensor], rows: u64) -> Option<Difference> {
        difference(alone, batched, rows, Tolerance::default())
    }

    #[test]
    fn rounding_is_no_difference_and_the_row_that_differs_is_named() {
        let one = floats(2, &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(found(from_ref(&one), &[floats(2, &[1.0001, 2.0, 3.0, 4.0])], 2), None);
        let other = found(from_ref(&one), &[floats(2, &[1.0, 2.0, 3.0, 4.5])], 2).unwrap();
        assert_eq!(other, Difference { output: 0, row: Some(1), size: Some(0.5) });
        let shape = found(from_ref(&one), &[floats(4, &[1.0, 2.0, 3.0, 4.0])], 2).unwrap();
        assert_eq!(shape, Difference { output: 0, row: None, size: None });
        assert_eq!(found(&[one.clone(), one.clone()], &[one], 2).unwrap().output, 1);
    }

    #[test]
    fn another_class_is_a_difference_unless_its_scores_tie() {
        let batched = [classes(&[1, 7]), floats(2, &[0.5, 0.5, 0.9, 0.1])];
        let alone = [classes(&[0, 7]), floats(2, &[0.500_01, 0.499_99, 0.9, 0.1])];
        assert_eq!(found(&alone, &batched, 2), None);
        let clear = [classes(&[1, 6]), floats(2, &[0.5, 0.5, 0.9, 0.1])];
        assert_eq!(found(&alone, &clear, 2).unwrap().row, Some(1));
        // One score ties with nothing.
        let single = |class| [classes(&[class]), floats(1, &[0.5])];
        assert_eq!(found(&single(0), &single(1), 1).unwrap().size, None);
    }

    #[test]
    fn places_of_a_list_differ_only_where_their_own_scores_tie() {
        let list = |ids: &[i64]| {
            let data: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            Tensor::new(DataType::Int64, smallvec![1, ids.len() as u64], data.into()).unwrap()
        };
        let scores = floats(3, &[0.9, 0.5, 0.5]);
        let alone = [list(&[4, 7, 2]), scores.clone()];
        assert_eq!(found(&alone, &[list(&[4, 2, 7]), scores.clone()], 1), None);
        assert_eq!(found(&alone, &[list(&[7, 4, 2]), scores], 1).unwrap().output, 0);
    }

    #[test]
    fn nothing_but_infinity_is_near_infinity() {
        let one = |value| floats(1, &[value]);
        assert_eq!(found(&[one(f32::INFINITY)], &[one(f32::INFINITY)], 1), None);
        for (alone, batched) in
            [(1.0, f32::INFINITY), (f32::INFINITY, 1.0), (f32::INFINITY, f32::NEG_INFINITY)]
        {
            assert!(found(&[one(alone)], &[one(batched)], 1).is_some());
        }
    }

    #[test]
    fn texts_are_equal_by_their_bytes_and_nan_is_equal_to_itself() {
        let text = |data: &'static [u8]| {
            Tensor::with_missing(DataType::Bytes, smallvec![2], bytes::Bytes::from_static(data)).unwrap()
        };
        let (one, other) = (text(b"\x01\0\0\0a\xff\xff\xff\xff"), text(b"\x01\0\0\0a\0\0\0\0"));
        assert_eq!(found(from_ref(&one), from_ref(&one), 2), None);
        assert_eq!(found(&[one], &[other], 2).unwrap().row, Some(1));
        let odd = |first| floats(2, &[f32::NAN, first]);
        assert_eq!(found(&[odd(1.0)], &[odd(1.000_001)], 1), None);
    }
}

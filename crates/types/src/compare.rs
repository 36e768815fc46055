//! Whether what a row was answered alone is what it was answered in company.
//!
//! Reads answers and a tolerance, hands back the first difference. Functions of values.
//! Knows nothing of where the answers come from.

use serde::{Deserialize, Serialize};

use crate::{DataType, Tensor, texts};

/// Two numbers are equal where `|a - b| <= absolute + relative * |b|`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tolerance {
    /// In the output's own unit.
    pub absolute: f64,
    /// As a fraction of the output.
    pub relative: f64,
}

impl Default for Tolerance {
    /// Sums in another order differ in the last bits of a 32-bit float; mixed-up rows differ in the first.
    fn default() -> Self {
        Tolerance { absolute: 1e-5, relative: 1e-3 }
    }
}

/// One element of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Element<'a> {
    /// It is equal to what is near.
    Float(f64),
    /// It is equal to what has the same bytes; `None` is an element of BYTES that is missing.
    Exact(Option<&'a [u8]>),
}

/// Where two answers differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The number of the output.
    pub output: usize,
    /// The number of the row in its request; `None` where shapes or types differ.
    pub row: Option<u64>,
    /// The largest difference of two numbers of the row; `None` where it is no number.
    pub size: Option<f64>,
}

/// The first difference between the answers `alone` and `company` to a request of `rows` rows; `None` where they are equal.
///
/// A class or a text that differs is none where the scores of the same row, in another output, tie for the best: rounding
/// decides between them.
pub fn difference(
    alone: &[Tensor],
    company: &[Tensor],
    rows: u64,
    tolerance: Tolerance,
) -> Option<Difference> {
    if alone.len() != company.len() {
        return Some(Difference { output: alone.len().min(company.len()), row: None, size: None });
    }
    for (output, (one, other)) in alone.iter().zip(company).enumerate() {
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
            let exact = matches!(one.first(), Some(Element::Exact(_)));
            if !(exact && ties(alone, row, rows, tolerance)) {
                return Some(Difference { output, row: Some(row), size: largest(one, other) });
            }
        }
    }
    None
}

/// Whether some float output has two best scores in `row` that are equal within the tolerance.
fn ties(outputs: &[Tensor], row: u64, rows: u64, tolerance: Tolerance) -> bool {
    outputs.iter().any(|output| {
        let scores = elements(output);
        let width = scores.len() / usize::try_from(rows).unwrap_or(1).max(1);
        let at = usize::try_from(row).unwrap_or(0) * width;
        let (mut best, mut second) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        for score in scores.get(at..at + width).unwrap_or_default() {
            let Element::Float(score) = score else { return false };
            if *score > best {
                (best, second) = (*score, best);
            } else if *score > second {
                second = *score;
            }
        }
        let tied = [Element::Float(best)];
        second.is_finite() && close(&tied, &[Element::Float(second)], output.datatype, tolerance)
    })
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

/// Whether `a` and `b`, elements of one row, are equal within the tolerance.
pub fn close(a: &[Element<'_>], b: &[Element<'_>], datatype: DataType, tolerance: Tolerance) -> bool {
    // A short float can't be closer than its own steps, whatever the operator asks for.
    let step = match datatype {
        DataType::Fp16 => 4.0 / 1024.0,
        DataType::Bf16 => 4.0 / 128.0,
        _ => 0.0,
    };
    let relative = tolerance.relative.max(step);
    // What large numbers come to is rounded like them, however small it is.
    let size = |element: &Element<'_>| if let Element::Float(b) = element { b.abs() } else { 0.0 };
    let greatest = b.iter().map(size).filter(|size| size.is_finite()).fold(1.0, f64::max);
    let absolute = tolerance.absolute.max(step / 16.0) * greatest;
    let same = |a: f64, b: f64| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= absolute + relative * b.abs()
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

    fn found(alone: &[Tensor], company: &[Tensor], rows: u64) -> Option<Difference> {
        difference(alone, company, rows, Tolerance::default())
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
        let company = [classes(&[1, 7]), floats(2, &[0.5, 0.5, 0.9, 0.1])];
        let alone = [classes(&[0, 7]), floats(2, &[0.500_01, 0.499_99, 0.9, 0.1])];
        assert_eq!(found(&alone, &company, 2), None);
        let clear = [classes(&[1, 6]), floats(2, &[0.5, 0.5, 0.9, 0.1])];
        assert_eq!(found(&alone, &clear, 2).unwrap().row, Some(1));
        // One score ties with nothing.
        let single = |class| [classes(&[class]), floats(1, &[0.5])];
        assert_eq!(found(&single(0), &single(1), 1).unwrap().size, None);
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

//! Exact conversion of elements to a wider type.
//!
//! Reads raw elements and two types, hands on raw elements, at most eight times as many bytes. Pure functions.
//! Knows nothing of tensors.

use half::{bf16, f16};

use crate::DataType;
use crate::DataType::{
    Bf16, Bool, Fp16, Fp32, Fp64, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64,
};

/// Types whose elements are exact in `to`, all or once checked; without `to` itself.
pub const fn narrower(to: DataType) -> &'static [DataType] {
    match to {
        Fp64 => &[Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Bf16, Fp32],
        Fp32 => &[Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Bf16],
        Int64 => &[Bool, Uint8, Uint16, Uint32, Int8, Int16, Int32],
        Int32 => &[Bool, Uint8, Uint16, Int8, Int16],
        Int16 => &[Bool, Uint8, Int8],
        Uint64 => &[Bool, Uint8, Uint16, Uint32],
        Uint32 => &[Bool, Uint8, Uint16],
        Uint16 => &[Bool, Uint8],
        Int8 | Uint8 => &[Bool],
        Fp16 | Bf16 | Bool | DataType::Bytes => &[],
    }
}

/// Whether elements of `from` can be widened to `to`.
pub fn widens(from: DataType, to: DataType) -> bool {
    narrower(to).contains(&from)
}

/// An integer that the wider float type would round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inexact {
    /// Its index among the elements.
    pub index: usize,
    /// The number.
    pub value: i128,
    /// What it would be rounded to.
    pub nearest: i128,
}

/// The elements of `data`, of type `from`, converted to `to`.
///
/// # Errors
/// The first element that would be rounded.
///
/// # Panics
/// If [`widens`] is false.
pub fn widen(from: DataType, to: DataType, data: &[u8]) -> Result<Vec<u8>, Inexact> {
    /// For types whose every value converts exactly.
    macro_rules! convert {
        ($from:ty => $to:ty) => {
            each(data, |bytes| <$to>::from(<$from>::from_le_bytes(bytes)).to_le_bytes())
        };
    }
    /// For integers that may have more digits than the float.
    macro_rules! round {
        ($from:ty => $to:ty) => {{
            const EXACT: u64 = 1 << <$to>::MANTISSA_DIGITS;
            let value = |bytes| <$from>::from_le_bytes(bytes);
            check(
                data,
                |bytes| u64::from(value(bytes).abs_diff(0)) <= EXACT,
                |bytes| (value(bytes).into(), value(bytes) as $to as i128),
            )?;
            each(data, |bytes| (value(bytes) as $to).to_le_bytes())
        }};
    }
    Ok(match (from, to) {
        (Bool | Uint8, Fp64) => convert!(u8 => f64),
        (Uint16, Fp64) => convert!(u16 => f64),
        (Uint32, Fp64) => convert!(u32 => f64),
        (Uint64, Fp64) => round!(u64 => f64),
        (Int8, Fp64) => convert!(i8 => f64),
        (Int16, Fp64) => convert!(i16 => f64),
        (Int32, Fp64) => convert!(i32 => f64),
        (Int64, Fp64) => round!(i64 => f64),
        (Fp16, Fp64) => convert!(f16 => f64),
        (Bf16, Fp64) => convert!(bf16 => f64),
        (Fp32, Fp64) => convert!(f32 => f64),
        (Bool | Uint8, Fp32) => convert!(u8 => f32),
        (Uint16, Fp32) => convert!(u16 => f32),
        (Uint32, Fp32) => round!(u32 => f32),
        (Uint64, Fp32) => round!(u64 => f32),
        (Int8, Fp32) => convert!(i8 => f32),
        (Int16, Fp32) => convert!(i16 => f32),
        (Int32, Fp32) => round!(i32 => f32),
        (Int64, Fp32) => round!(i64 => f32),
        (Fp16, Fp32) => convert!(f16 => f32),
        (Bf16, Fp32) => convert!(bf16 => f32),
        (Bool | Uint8, Int64 | Uint64) => convert!(u8 => u64),
        (Uint16, Int64 | Uint64) => convert!(u16 => u64),
        (Uint32, Int64 | Uint64) => convert!(u32 => u64),
        (Int8, Int64) => convert!(i8 => i64),
        (Int16, Int64) => convert!(i16 => i64),
        (Int32, Int64) => convert!(i32 => i64),
        (Bool | Uint8, Int32 | Uint32) => convert!(u8 => u32),
        (Uint16, Int32 | Uint32) => convert!(u16 => u32),
        (Int8, Int32) => convert!(i8 => i32),
        (Int16, Int32) => convert!(i16 => i32),
        (Bool | Uint8, Int16 | Uint16) => convert!(u8 => u16),
        (Int8, Int16) => convert!(i8 => i16),
        (Bool, Int8 | Uint8) => data.to_vec(),
        (from, to) => unreachable!("{from} is not widened to {to}"),
    })
}

/// Converts every element of `N` bytes to one of `M`.
#[inline]
fn each<const N: usize, const M: usize>(data: &[u8], convert: impl Fn([u8; N]) -> [u8; M]) -> Vec<u8> {
    let elements = data.as_chunks::<N>().0;
    let mut wide = vec![0; elements.len() * M];
    for (element, place) in elements.iter().zip(wide.as_chunks_mut::<M>().0) {
        *place = convert(*element);
    }
    wide
}

/// Finds the first element that changes. Those that are `safe` can't.
#[inline]
fn check<const N: usize>(
    data: &[u8],
    safe: impl Fn([u8; N]) -> bool,
    pair: impl Fn([u8; N]) -> (i128, i128),
) -> Result<(), Inexact> {
    let elements = data.as_chunks::<N>().0;
    // `fold` and not `all`: without an early exit the loop becomes a handful of vector instructions.
    if elements.iter().fold(true, |all, element| all & safe(*element)) {
        return Ok(());
    }
    let unequal = |(index, element): (usize, &[u8; N])| {
        let (value, nearest) = pair(*element);
        (value != nearest).then_some(Inexact { index, value, nearest })
    };
    elements.iter().enumerate().find_map(unequal).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An element as in numpy: integers and floats are compared by value alone.
    #[derive(Clone, Copy, Debug)]
    enum Number {
        Whole(i128),
        Float(f64),
    }

    fn read(datatype: DataType, bytes: &[u8]) -> Number {
        let mut wide = [0; 16];
        wide[..bytes.len()].copy_from_slice(bytes);
        let unsigned = u128::from_le_bytes(wide) as i128;
        let bits = 8 * bytes.len() as u32;
        match datatype {
            Int8 | Int16 | Int32 | Int64 => Number::Whole(unsigned << (128 - bits) >> (128 - bits)),
            Fp16 => Number::Float(f16::from_bits(unsigned as u16).to_f64()),
            Bf16 => Number::Float(f32::from_bits((unsigned as u32) << 16).into()),
            Fp32 => Number::Float(f32::from_bits(unsigned as u32).into()),
            Fp64 => Number::Float(f64::from_bits(unsigned as u64)),
            _ => Number::Whole(unsigned),
        }
    }

    /// Whether `number`, converted as by numpy's `astype`, keeps its value.
    fn keeps(number: Number, to: DataType) -> bool {
        match (number, to) {
            (Number::Whole(value), Fp64) => (value as f64) as i128 == value,
            (Number::Whole(value), Fp32) => (value as f32) as i128 == value,
            _ => true,
        }
    }

    fn same(one: Number, other: Number) -> bool {
        match (one, other) {
            (Number::Whole(one), Number::Whole(other)) => one == other,
            (Number::Float(one), Number::Float(other)) => {
                one.is_nan() && other.is_nan() || one.to_bits() == other.to_bits()
            }
            (Number::Whole(whole), Number::Float(float)) | (Number::Float(float), Number::Whole(whole)) => {
                float as i128 == whole
            }
        }
    }

    fn pairs() -> Vec<(DataType, DataType)> {
        let all = DataType::ALL.into_iter();
        all.flat_map(|to| narrower(to).iter().map(move |from| (*from, to))).collect()
    }

    /// Elements of `from`: arbitrary ones, and those at the limits of float precision.
    fn elements(from: DataType, seeds: &[(u64, u8)]) -> Vec<u8> {
        let size = from.size().unwrap();
        let element = |(bits, kind): &(u64, u8)| {
            let edge = [1u64 << 24, 1 << 53, 1 << 63, u64::MAX, 0][usize::from(kind % 5)];
            let bits = match kind % 4 {
                0 => *bits,
                1 => edge.wrapping_add(bits % 5).wrapping_sub(2),
                2 => edge.wrapping_neg().wrapping_add(bits % 5).wrapping_sub(2),
                _ => bits >> (bits % 64),
            };
            let bits = if from == Bool { bits % 2 } else { bits };
            bits.to_le_bytes()[..size].to_vec()
        };
        seeds.iter().flat_map(element).collect()
    }

    proptest! {
        #[test]
        fn every_value_is_what_it_was_or_is_named(seeds in prop::collection::vec(any::<(u64, u8)>(), 0..40)) {
            for (from, to) in pairs() {
                let data = elements(from, &seeds);
                let sent: Vec<_> = data.chunks(from.size().unwrap()).map(|bytes| read(from, bytes)).collect();
                let rounded = sent.iter().position(|number| !keeps(*number, to));
                match widen(from, to, &data) {
                    Ok(wide) => {
                        prop_assert_eq!(rounded, None, "{} to {}", from, to);
                        let size = to.size().unwrap();
                        prop_assert_eq!(wide.len(), sent.len() * size);
                        for (number, bytes) in sent.iter().zip(wide.chunks(size)) {
                            prop_assert!(same(*number, read(to, bytes)), "{number:?} of {from} to {to}");
                        }
                    }
                    Err(inexact) => {
                        prop_assert_eq!(Some(inexact.index), rounded, "{} to {}", from, to);
                        prop_assert!(inexact.value != inexact.nearest);
                    }
                }
            }
        }
    }

    #[test]
    fn a_number_past_the_floats_digits_is_named_and_its_neighbours_are_taken() {
        let of = |values: &[i64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let edge = 1i64 << 53;
        assert!(widen(Int64, Fp64, &of(&[edge, edge + 2, -edge, i64::MIN])).is_ok());
        let (value, nearest) = (i128::from(edge) + 1, i128::from(edge));
        let inexact = Inexact { index: 1, value, nearest };
        assert_eq!(widen(Int64, Fp64, &of(&[0, edge + 1, edge + 3])), Err(inexact));
        let most = widen(Int64, Fp64, &of(&[i64::MAX])).unwrap_err();
        assert_eq!((most.value, most.nearest), (i64::MAX.into(), 1 << 63));
        assert_eq!(widen(Int32, Fp32, &((1i32 << 24) + 1).to_le_bytes()).unwrap_err().nearest, 1 << 24);
    }

    #[test]
    fn what_loses_digits_or_signs_is_not_widened() {
        for (from, to) in
            [(Fp64, Fp32), (Int64, Int32), (Int64, Uint64), (Uint64, Int64), (Fp16, Bf16), (Fp32, Int64)]
        {
            assert!(!widens(from, to), "{from} to {to}");
        }
        assert!(DataType::ALL.into_iter().all(|one| !widens(one, one) && !widens(DataType::Bytes, one)));
    }

    #[test]
    fn a_float_is_the_one_that_was_sent() {
        assert_eq!(widen(Fp32, Fp64, &0.1f32.to_le_bytes()).unwrap(), f64::from(0.1f32).to_le_bytes());
        assert_eq!(widen(Bf16, Fp32, &[0x80, 0x3f]).unwrap(), 1f32.to_le_bytes());
        assert_eq!(
            widen(Fp16, Fp64, &f16::NEG_INFINITY.to_le_bytes()).unwrap(),
            f64::NEG_INFINITY.to_le_bytes()
        );
    }
}

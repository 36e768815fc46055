//! One JSON value to the bytes of one tensor element.
//!
//! Reads from a scanner, hands on little-endian bytes. Does not know which tensor the element belongs to.

use half::f16;
use inferd_types::{DataType, Error, MISSING, Result, shown};

use super::number::Number;
use super::scan::Scanner;
use crate::invalid::invalid;

/// How elements of one datatype are read. Generic, so that the loop over `data` has no branch on the type.
pub(crate) trait Element {
    /// Its name in messages.
    const DATATYPE: DataType;

    /// Reads one element and appends its bytes to `out`.
    fn read(scanner: &mut Scanner<'_>, out: &mut Vec<u8>) -> Result<()>;
}

/// BOOL: true, false, 1 or 0.
pub(crate) struct Bool;

impl Element for Bool {
    const DATATYPE: DataType = DataType::Bool;

    fn read(scanner: &mut Scanner<'_>, out: &mut Vec<u8>) -> Result<()> {
        let value = match scanner.peek() {
            Some(b't') if scanner.eat_word(b"true") => 1,
            Some(b'f') if scanner.eat_word(b"false") => 0,
            Some(b'0'..=b'9') => {
                let number = scanner.number()?;
                number.integer::<u8>().filter(|value| *value < 2).ok_or_else(|| {
                    invalid(format!("{} is not a BOOL; true or false is expected", shown(number.text())))
                })?
            }
            _ => return Err(scanner.error("true or false")),
        };
        out.push(value);
        Ok(())
    }
}

macro_rules! integers {
    ($($name:ident: $type:ty, $datatype:ident;)*) => {$(
        pub(crate) struct $name;

        impl Element for $name {
            const DATATYPE: DataType = DataType::$datatype;

            #[inline]
            fn read(scanner: &mut Scanner<'_>, out: &mut Vec<u8>) -> Result<()> {
                let number = scanner.number()?;
                let value: $type = number.integer().ok_or_else(|| {
                    let (text, least, most) = (shown(number.text()), <$type>::MIN, <$type>::MAX);
                    invalid(if number.is_whole() {
                        format!("{text} is out of range for {}: {least} to {most}", Self::DATATYPE)
                    } else {
                        format!("{text} is not an integer, as {} expects", Self::DATATYPE)
                    })
                })?;
                out.extend_from_slice(&value.to_le_bytes());
                Ok(())
            }
        }
    )*};
}

integers! {
    Uint8: u8, Uint8;
    Uint16: u16, Uint16;
    Uint32: u32, Uint32;
    Uint64: u64, Uint64;
    Int8: i8, Int8;
    Int16: i16, Int16;
    Int32: i32, Int32;
    Int64: i64, Int64;
}

macro_rules! floats {
    ($($name:ident: $type:ty, $datatype:ident, $value:expr;)*) => {$(
        pub(crate) struct $name;

        impl Element for $name {
            const DATATYPE: DataType = DataType::$datatype;

            #[inline]
            fn read(scanner: &mut Scanner<'_>, out: &mut Vec<u8>) -> Result<()> {
                let value: $type = match scanner.peek() {
                    Some(b'N') if scanner.eat_word(b"NaN") => <$type>::NAN,
                    Some(b'n') if scanner.eat_word(b"null") => <$type>::NAN,
                    Some(b'I') if scanner.eat_word(b"Infinity") => <$type>::INFINITY,
                    Some(b'-') if scanner.eat_word(b"-Infinity") => <$type>::NEG_INFINITY,
                    _ => {
                        let number = scanner.number()?;
                        let value: $type = $value(number);
                        if !value.is_finite() {
                            return Err(too_large(number.text(), Self::DATATYPE));
                        }
                        value
                    }
                };
                out.extend_from_slice(&value.to_le_bytes());
                Ok(())
            }
        }
    )*};
}

floats! {
    // Via f64: its own rounding can change the result only for a decimal almost exactly between two FP16.
    Fp16: f16, Fp16, |number: Number<'_>| f16::from_f64(number.to_f64());
    Fp32: f32, Fp32, Number::to_f32;
    Fp64: f64, Fp64, Number::to_f64;
}

#[cold]
fn too_large(text: &str, datatype: DataType) -> Error {
    invalid(format!("{} is out of range for {datatype}; write Infinity if that is meant", shown(text)))
}

/// BYTES: a string, as UTF-8 after its length.
pub(crate) struct Text;

impl Element for Text {
    const DATATYPE: DataType = DataType::Bytes;

    fn read(scanner: &mut Scanner<'_>, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        // What was read before an error is counted to locate it.
        scanner.string_into(out).inspect_err(|_| out.truncate(start))?;
        let length = u32::try_from(out.len() - start - 4).ok().filter(|length| *length < MISSING);
        let length = length.ok_or_else(|| invalid("a string of 4 GiB or more cannot be a BYTES element"))?;
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }
}

/// The same, or null for a missing one.
pub(crate) struct TextOrMissing;

impl Element for TextOrMissing {
    const DATATYPE: DataType = DataType::Bytes;

    fn read(scanner: &mut Scanner<'_>, out: &mut Vec<u8>) -> Result<()> {
        if scanner.peek() == Some(b'n') && scanner.eat_word(b"null") {
            out.extend_from_slice(&MISSING.to_le_bytes());
            return Ok(());
        }
        Text::read(scanner, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<E: Element>(text: &str) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut scanner = Scanner::new(text.as_bytes(), 4);
        E::read(&mut scanner, &mut out)?;
        scanner.end().map(|()| out)
    }

    #[test]
    fn integers_are_taken_to_the_edge_of_their_range_and_not_beyond() {
        assert_eq!(read::<Uint8>("255").unwrap(), [255]);
        assert_eq!(read::<Uint8>("-0").unwrap(), [0]);
        assert_eq!(read::<Int8>("-128").unwrap(), [0x80]);
        assert_eq!(read::<Int64>("-9223372036854775808").unwrap(), i64::MIN.to_le_bytes());
        assert_eq!(read::<Uint64>("18446744073709551615").unwrap(), u64::MAX.to_le_bytes());
        for (error, range) in [
            (read::<Uint8>("256"), "0 to 255"),
            (read::<Uint8>("-1"), "0 to 255"),
            (read::<Int16>("32768"), "-32768 to 32767"),
            (read::<Int32>("-2147483649"), "-2147483648 to 2147483647"),
            (read::<Uint64>("18446744073709551616"), "18446744073709551615"),
        ] {
            assert!(error.unwrap_err().message().contains(range));
        }
    }

    #[test]
    fn an_integer_has_no_fraction_and_is_no_word() {
        assert!(read::<Int32>("1.0").unwrap_err().message().contains("not an integer"));
        assert!(read::<Int32>("1e3").unwrap_err().message().contains("not an integer"));
        assert!(read::<Int32>("NaN").is_err());
        assert!(read::<Int32>("true").is_err());
        assert!(read::<Int32>("\"1\"").is_err());
    }

    #[test]
    fn floats_take_bare_words_but_no_number_beyond_their_range() {
        assert_eq!(read::<Fp32>("0.1").unwrap(), 0.1f32.to_le_bytes());
        assert_eq!(read::<Fp32>("-0.0").unwrap(), (-0.0f32).to_le_bytes());
        assert_eq!(read::<Fp64>("1e-400").unwrap(), 0f64.to_le_bytes());
        assert_eq!(read::<Fp32>("Infinity").unwrap(), f32::INFINITY.to_le_bytes());
        assert_eq!(read::<Fp64>("-Infinity").unwrap(), f64::NEG_INFINITY.to_le_bytes());
        assert_eq!(read::<Fp16>("1.5").unwrap(), f16::from_f32(1.5).to_le_bytes());
        assert!(f32::from_le_bytes(read::<Fp32>("NaN").unwrap().try_into().unwrap()).is_nan());
        assert!(read::<Fp32>("1e39").unwrap_err().message().contains("out of range for FP32"));
        assert!(read::<Fp64>("1e999").is_err());
        assert!(read::<Fp16>("65520").is_err());
        assert!(read::<Fp16>("65504").is_ok());
        assert!(f64::from_le_bytes(read::<Fp64>("null").unwrap().try_into().unwrap()).is_nan());
        assert!(read::<Fp32>("nul").is_err() && read::<Fp32>("nullx").is_err());
        assert!(read::<Fp32>("nan").is_err());
        assert!(read::<Fp32>("\"1\"").is_err());
    }

    #[test]
    fn a_bool_is_a_word_or_one_of_two_numbers() {
        assert_eq!(read::<Bool>("true").unwrap(), [1]);
        assert_eq!(read::<Bool>("0").unwrap(), [0]);
        assert!(read::<Bool>("2").is_err());
        assert!(read::<Bool>("1.0").is_err());
        assert!(read::<Bool>("\"true\"").is_err());
    }

    #[test]
    fn a_text_keeps_its_nul() {
        assert_eq!(read::<Text>(r#""a\u0000b""#).unwrap(), b"\x03\0\0\0a\0b");
        assert_eq!(read::<Text>("\"\"").unwrap(), [0; 4]);
        assert!(read::<Text>("1").is_err() && read::<Text>("null").is_err());
        assert_eq!(read::<TextOrMissing>("null").unwrap(), [0xff; 4]);
        assert_eq!(read::<TextOrMissing>("\"null\"").unwrap(), b"\x04\0\0\0null");
    }
}

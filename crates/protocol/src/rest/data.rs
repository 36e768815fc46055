//! The `data` array of an input, flat or nested, to the bytes of a tensor.
//!
//! Reads from a scanner the elements of a checked shape, hands on bytes. Does not know which input it reads.

use inferd_types::values::{Kind, Unfit};
use inferd_types::{DataType, Error, Result, element_count};

use super::element::{self, Element};
use super::scan::Scanner;
use crate::invalid::invalid;

/// Reads a `data` value of `shape`.
///
/// The first token in the outermost array tells flat from nested arrays. Nesting must match the shape exactly.
///
/// # Errors
/// If an element is not of the kind, the nesting is ragged or not that of the shape, or the number of elements does
/// not match the shape.
pub(crate) fn read(scanner: &mut Scanner<'_>, kind: Kind, shape: &[u64]) -> Result<Vec<u8>, Unfit> {
    let read = match kind.datatype {
        DataType::Bool => read_as::<element::Bool>,
        DataType::Uint8 => read_as::<element::Uint8>,
        DataType::Uint16 => read_as::<element::Uint16>,
        DataType::Uint32 => read_as::<element::Uint32>,
        DataType::Uint64 => read_as::<element::Uint64>,
        DataType::Int8 => read_as::<element::Int8>,
        DataType::Int16 => read_as::<element::Int16>,
        DataType::Int32 => read_as::<element::Int32>,
        DataType::Int64 => read_as::<element::Int64>,
        DataType::Fp16 => read_as::<element::Fp16>,
        DataType::Fp32 => read_as::<element::Fp32>,
        DataType::Fp64 => read_as::<element::Fp64>,
        DataType::Bytes if kind.missing => read_as::<element::TextOrMissing>,
        DataType::Bytes => read_as::<element::Text>,
        DataType::Bf16 => {
            return Err(invalid(
                "BF16 has no form in JSON; send it raw, after the JSON, with parameter binary_data_size",
            )
            .into());
        }
    };
    read(scanner, shape)
}

fn read_as<E: Element>(scanner: &mut Scanner<'_>, shape: &[u64]) -> Result<Vec<u8>, Unfit> {
    let count = element_count(shape)?;
    // An element and its comma take two bytes of text: a shape can't reserve more memory than the text can fill.
    let room = usize::try_from(count).unwrap_or(usize::MAX).min(scanner.left() / 2 + 1);
    let mut out = Vec::with_capacity(room * E::DATATYPE.size().unwrap_or(8));
    if shape.is_empty() && scanner.peek() != Some(b'[') {
        return match E::read(scanner, &mut out) {
            Ok(()) => Ok(out),
            Err(_) if scanner.eat_word(b"null") => Err(Unfit::Null(0)),
            Err(error) => Err(error.into()),
        };
    }
    let mut reader = Reader::<E> { scanner, shape, out, path: Vec::new(), element: std::marker::PhantomData };
    reader.scanner.open(b'[')?;
    if shape.len() > 1 && reader.scanner.peek() == Some(b'[') {
        reader.nested()?;
    } else {
        reader.flat(count)?;
    }
    Ok(reader.out)
}

/// A `data` array while it is read.
struct Reader<'s, 'a, E> {
    scanner: &'s mut Scanner<'a>,
    shape: &'s [u64],
    out: Vec<u8>,
    /// The index in each open array, for messages.
    path: Vec<u64>,
    element: std::marker::PhantomData<E>,
}

impl<E: Element> Reader<'_, '_, E> {
    /// Reads the rest of an open array of `count` elements without arrays.
    fn flat(&mut self, count: u64) -> Result<(), Unfit> {
        let mut first = true;
        let mut found = 0;
        while self.scanner.another(&mut first, b']')? {
            if found == count {
                return Err(self.wrong_length(count, "more").into());
            }
            if let Err(error) = E::read(self.scanner, &mut self.out) {
                return Err(self.not_an_element(found, error));
            }
            found += 1;
        }
        if found < count { Err(self.wrong_length(count, &found.to_string()).into()) } else { Ok(()) }
    }

    /// Reads the rest of an open array of arrays. As deep as the shape is long, which the signature bounds.
    fn nested(&mut self) -> Result<(), Unfit> {
        let level = self.path.len();
        let expected = self.shape[level];
        if level + 1 == self.shape.len() {
            return self.flat(expected);
        }
        let mut first = true;
        self.path.push(0);
        while self.scanner.another(&mut first, b']')? {
            if self.path[level] == expected {
                self.path.pop();
                return Err(self.wrong_length(expected, "more").into());
            }
            if self.scanner.peek() != Some(b'[') {
                let place = self.place();
                return Err(self.scanner.error(&format!("an array (ragged nesting): {place}")).into());
            }
            self.scanner.open(b'[')?;
            self.nested()?;
            self.path[level] += 1;
        }
        let found = self.path.pop().unwrap_or(0);
        if found < expected { Err(self.wrong_length(expected, &found.to_string()).into()) } else { Ok(()) }
    }

    /// `data[1][2]`, the open array.
    fn place(&self) -> String {
        self.path.iter().fold("data".to_owned(), |place, index| format!("{place}[{index}]"))
    }

    #[cold]
    fn wrong_length(&self, expected: u64, found: &str) -> Error {
        let (place, shape) = (self.place(), self.shape);
        let ragged = if self.path.is_empty() { "" } else { " (ragged nesting)" };
        invalid(format!("{place} has {found} elements but shape {shape:?} takes {expected}{ragged}"))
    }

    #[cold]
    fn not_an_element(&mut self, index: u64, error: Error) -> Unfit {
        let place = self.place();
        if self.scanner.peek() == Some(b'[') {
            return invalid(format!(
                "{place}[{index}] is an array among elements: ragged nesting, or deeper than shape {:?}",
                self.shape
            ))
            .into();
        }
        if self.scanner.eat_word(b"null") {
            return Unfit::null_after(&self.out, E::DATATYPE);
        }
        error.within(format_args!("{place}[{index}]")).into()
    }
}

#[cfg(test)]
mod tests {
    use inferd_types::ErrorKind;

    use super::*;

    fn kind(datatype: DataType) -> Kind {
        Kind { datatype, missing: false }
    }

    fn uint8(text: &str, shape: &[u64]) -> Result<Vec<u8>, Unfit> {
        let mut scanner = Scanner::new(text.as_bytes(), 16);
        let data = read(&mut scanner, kind(DataType::Uint8), shape)?;
        scanner.end()?;
        Ok(data)
    }

    fn message(text: &str, shape: &[u64]) -> String {
        let error = Error::from(uint8(text, shape).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.message().to_owned()
    }

    #[test]
    fn flat_and_nested_data_mean_the_same() {
        for text in ["[1,2,3,4,5,6]", "[[1,2,3],[4,5,6]]", " [ [ 1 , 2 , 3 ] , [ 4 , 5 , 6 ] ] "] {
            assert_eq!(uint8(text, &[2, 3]).unwrap(), [1, 2, 3, 4, 5, 6], "{text}");
        }
        assert_eq!(uint8("[[[1],[2]]]", &[1, 2, 1]).unwrap(), [1, 2]);
        assert_eq!(uint8("7", &[]).unwrap(), [7]);
        assert_eq!(uint8("[7]", &[]).unwrap(), [7]);
    }

    #[test]
    fn what_is_empty_is_empty_in_every_spelling() {
        for (text, shape) in [
            ("[]", &[0][..]),
            ("[]", &[2, 0]),
            ("[[],[]]", &[2, 0]),
            ("[]", &[0, 3]),
            ("[[],[]]", &[2, 0, 3]),
        ] {
            assert!(uint8(text, shape).unwrap().is_empty(), "{text}");
        }
        assert!(message("[[]]", &[2, 0]).contains("data has 1 elements but shape [2, 0] takes 2"));
    }

    #[test]
    fn ragged_nesting_is_named_with_its_place() {
        assert!(message("[[1,2],[3]]", &[2, 2]).starts_with("data[1] has 1 elements"));
        assert!(message("[[1,2],[3]]", &[2, 2]).contains("ragged"));
        assert!(message("[[1,2],3]", &[2, 2]).contains("ragged nesting): data[1]"));
        assert!(message("[1,[2]]", &[2, 1]).contains("data[1] is an array among elements: ragged"));
        assert!(message("[[1,2,3],[4,5,6]]", &[2, 2]).contains("data[0] has more elements"));
        assert!(message("[[1,2],[3,4],[5,6]]", &[2, 2]).contains("data has more elements"));
        assert!(message("[[[1]]]", &[1, 1]).contains("data[0][0] is an array among elements"));
    }

    #[test]
    fn the_number_of_elements_must_be_that_of_the_shape() {
        assert_eq!(message("[1,2]", &[3]), "data has 2 elements but shape [3] takes 3");
        assert_eq!(message("[1,2,3,4]", &[3]), "data has more elements but shape [3] takes 3");
        assert!(message("[1]", &[u64::MAX, 2]).contains("more elements than can be counted"));
    }

    #[test]
    fn a_bad_element_is_named_with_its_place() {
        assert_eq!(message("[1,256]", &[2]), "data[1]: 256 is out of range for UINT8: 0 to 255");
        assert!(message("[[1],[x]]", &[2, 1]).starts_with("data[1][0]: JSON at byte"));
        assert!(message("[1 2]", &[2]).contains("',' or ']'"));
    }

    #[test]
    fn null_is_counted_however_it_is_nested() {
        let null =
            |text: &str, kind, shape: &[u64]| match read(&mut Scanner::new(text.as_bytes(), 16), kind, shape)
            {
                Err(Unfit::Null(element)) => Some(element),
                other => {
                    other.unwrap();
                    None
                }
            };
        for text in ["[1,2,3,null]", "[[1,2],[3,null]]"] {
            assert_eq!(null(text, kind(DataType::Int32), &[2, 2]), Some(3), "{text}");
        }
        assert_eq!(null("null", kind(DataType::Bool), &[]), Some(0));
        assert_eq!(null("[true, null]", kind(DataType::Bool), &[2]), Some(1));
        assert_eq!(null(r#"[["a", "bc"], ["", null]]"#, kind(DataType::Bytes), &[2, 2]), Some(3));
        let missing = Kind { missing: true, ..kind(DataType::Bytes) };
        assert_eq!(null(r#"["a", null]"#, missing, &[2]), None);
        for datatype in [DataType::Fp16, DataType::Fp32, DataType::Fp64] {
            assert_eq!(null("[0.5, null]", kind(datatype), &[2]), None, "{datatype}");
        }
    }

    #[test]
    fn a_shape_claims_no_more_room_than_the_text_can_fill() {
        assert!(message("[1]", &[1 << 60]).contains("data has 1 elements"));
    }

    #[test]
    fn bf16_is_refused_with_the_way_out() {
        let error = Error::from(read(&mut Scanner::new(b"[1]", 4), kind(DataType::Bf16), &[1]).unwrap_err());
        assert!(error.message().contains("binary_data_size"), "{error}");
    }
}

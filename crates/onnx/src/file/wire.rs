//! The wire format of protocol buffers: fields are parsed in place, and written.
//!
//! Reads bytes, hands on fields as slices of them. Nothing is copied: a model's weights may be gigabytes. Does not
//! know what a field means.

/// The bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A varint.
    Number(u64),
    /// Eight bytes.
    Eight([u8; 8]),
    /// Four bytes.
    Four([u8; 4]),
    /// A string, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    pub(crate) value: Value<'a>,
    /// The field with its tag, as in the message.
    pub(crate) whole: &'a [u8],
}

impl<'a> Field<'a> {
    /// # Errors
    /// `Malformed` if it is of another kind; the same for the methods below.
    pub(crate) fn bytes(&self) -> Result<&'a [u8], Malformed> {
        if let Value::Bytes(bytes) = self.value { Ok(bytes) } else { Err(Malformed) }
    }

    pub(crate) fn text(&self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    pub(crate) fn integer(&self) -> Result<i64, Malformed> {
        if let Value::Number(number) = self.value { Ok(number as i64) } else { Err(Malformed) }
    }

    /// Appends the numbers of a field that may be packed or not.
    pub(crate) fn integers(&self, into: &mut Vec<i64>) -> Result<(), Malformed> {
        let Value::Bytes(mut packed) = self.value else {
            into.push(self.integer()?);
            return Ok(());
        };
        while !packed.is_empty() {
            let (number, rest) = varint(packed)?;
            into.push(number as i64);
            packed = rest;
        }
        Ok(())
    }

    /// Appends the bytes of a field of 32-bit numbers that may be packed or not.
    pub(crate) fn fours(&self, into: &mut Vec<u8>) -> Result<(), Malformed> {
        match self.value {
            Value::Bytes(packed) if packed.len() % 4 == 0 => into.extend_from_slice(packed),
            Value::Four(bytes) => into.extend_from_slice(&bytes),
            _ => return Err(Malformed),
        }
        Ok(())
    }

    /// Appends the bytes of a field of 64-bit numbers that may be packed or not.
    pub(crate) fn eights(&self, into: &mut Vec<u8>) -> Result<(), Malformed> {
        match self.value {
            Value::Bytes(packed) if packed.len() % 8 == 0 => into.extend_from_slice(packed),
            Value::Eight(bytes) => into.extend_from_slice(&bytes),
            _ => return Err(Malformed),
        }
        Ok(())
    }
}

/// The fields of a message, in their order. Ends after an error.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    fn read(&mut self) -> Result<Field<'a>, Malformed> {
        let start = self.rest;
        let (tag, rest) = varint(start)?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0).ok_or(Malformed)?;
        let (value, rest) = match tag & 7 {
            0 => varint(rest).map(|(number, rest)| (Value::Number(number), rest))?,
            1 => {
                rest.split_first_chunk().map(|(bytes, rest)| (Value::Eight(*bytes), rest)).ok_or(Malformed)?
            }
            2 => {
                let (length, rest) = varint(rest)?;
                let length = usize::try_from(length).map_err(|_| Malformed)?;
                let (bytes, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
                (Value::Bytes(bytes), rest)
            }
            5 => {
                rest.split_first_chunk().map(|(bytes, rest)| (Value::Four(*bytes), rest)).ok_or(Malformed)?
            }
            _ => return Err(Malformed),
        };
        self.rest = rest;
        Ok(Field { number, value, whole: &start[..start.len() - rest.len()] })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let mut number = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((number, &bytes[index + 1..]));
        }
    }
    Err(Malformed)
}

/// Writes a varint.
pub(crate) fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Writes the tag and the length of a field of bytes, which must follow.
pub(crate) fn put_head(number: u32, length: usize, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 2, out);
    put_varint(length as u64, out);
}

/// Writes a field of bytes.
pub(crate) fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_head(number, bytes.len(), out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_each_field_knows_its_own_bytes() {
        let mut message = Vec::new();
        put_bytes(1, b"name", &mut message);
        put_varint(20 << 3, &mut message);
        put_varint(u64::MAX, &mut message);
        message.extend([5 << 3 | 5, 1, 2, 3, 4]);
        message.extend([6 << 3 | 1, 1, 2, 3, 4, 5, 6, 7, 8]);
        let fields: Vec<_> = Fields::of(&message).collect::<Result<_, _>>().unwrap();
        assert_eq!(fields.iter().map(|field| field.number).collect::<Vec<_>>(), [1, 20, 5, 6]);
        assert_eq!(fields[0].text(), Ok("name"));
        assert_eq!(fields[1].integer(), Ok(-1));
        assert_eq!(fields[2].value, Value::Four([1, 2, 3, 4]));
        assert_eq!(fields.iter().flat_map(|field| field.whole.iter().copied()).collect::<Vec<_>>(), message);
    }

    #[test]
    fn numbers_are_read_packed_and_one_by_one() {
        let numbers = |message: &[u8]| {
            let mut numbers = Vec::new();
            Fields::of(message).try_for_each(|field| field?.integers(&mut numbers)).map(|()| numbers)
        };
        assert_eq!(numbers(&[8 << 3, 1, 8 << 3, 0x80, 1]), Ok(vec![1, 128]));
        assert_eq!(numbers(&[8 << 3 | 2, 3, 1, 0x80, 1]), Ok(vec![1, 128]));
        assert_eq!(numbers(&[8 << 3 | 2, 1, 0x80]), Err(Malformed));
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error_and_the_end() {
        for bytes in [&[0x0a, 5, 1][..], &[0x80], &[0x0b], &[0x00, 1], &[0x0d, 1, 2, 3], &[0xff; 11]] {
            let mut fields = Fields::of(bytes);
            assert_eq!(fields.next(), Some(Err(Malformed)), "{bytes:?}");
            assert_eq!(fields.next(), None);
        }
    }
}

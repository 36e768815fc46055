//! Strings in JSON text: escapes, surrogate pairs, UTF-8.
//!
//! Reads from the scanner, hands on text or its bytes. Does not know whether a string is a key, a parameter or an
//! element of a tensor.

use std::borrow::Cow;

use inferd_types::Result;

use super::scan::Scanner;

impl<'a> Scanner<'a> {
    /// A string, borrowed if it has no escapes.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>> {
        self.open_string()?;
        let plain = self.plain_run()?;
        if self.text.get(self.at) == Some(&b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = Vec::from(plain);
        self.rest_of_string(&mut text)?;
        String::from_utf8(text).map(Cow::Owned).map_err(|_| self.error("valid UTF-8"))
    }

    /// Appends the bytes of a string to `out`.
    pub(crate) fn string_into(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.open_string()?;
        self.rest_of_string(out)
    }

    fn open_string(&mut self) -> Result<()> {
        if self.eat(b'"') { Ok(()) } else { Err(self.error("a string")) }
    }

    fn rest_of_string(&mut self, out: &mut Vec<u8>) -> Result<()> {
        loop {
            out.extend_from_slice(self.plain_run()?.as_bytes());
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape(out)?,
                Some(_) => return Err(self.error("a character that needs no escape")),
                None => return Err(self.error("the end of a string")),
            }
        }
    }

    /// The text up to a quote, an escape, a control character or the end.
    fn plain_run(&mut self) -> Result<&'a str> {
        let rest = &self.text[self.at..];
        let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len());
        let run = std::str::from_utf8(&rest[..end]).map_err(|fault| {
            self.at += fault.valid_up_to();
            self.error("valid UTF-8")
        })?;
        self.at += end;
        Ok(run)
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.at += 1;
        let byte = match self.text.get(self.at) {
            Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => return self.unicode_escape(out),
            _ => return Err(self.error("an escape such as \\n or \\u0041")),
        };
        self.at += 1;
        out.push(byte);
        Ok(())
    }

    fn unicode_escape(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.at += 1;
        let mut code = u32::from(self.hex4()?);
        if (0xd800..0xdc00).contains(&code) && self.text[self.at..].starts_with(b"\\u") {
            self.at += 2;
            let low = u32::from(self.hex4()?);
            if (0xdc00..0xe000).contains(&low) {
                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            }
        }
        let character = char::from_u32(code).ok_or_else(|| self.error("a whole surrogate pair"))?;
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn hex4(&mut self) -> Result<u16> {
        let digits =
            self.text[self.at..].first_chunk::<4>().filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let Some(digits) = digits else { return Err(self.error("four hexadecimal digits")) };
        self.at += 4;
        Ok(digits.iter().fold(0, |code, digit| {
            let value = (*digit as char).to_digit(16).expect("checked to be hexadecimal");
            (code << 4) | value as u16
        }))
    }
}

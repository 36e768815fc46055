//! A strict reader of JSON text, one token at a time.
//!
//! Reads bytes, hands on strings, numbers and the delimiters of arrays and objects. Beyond RFC 8259 it accepts the
//! bare tokens `NaN`, `Infinity` and `-Infinity`, as Python's `json` writes them. Does not know what a request
//! looks like.

use std::borrow::Cow;

use inferd_types::{Error, Result};

use crate::invalid::invalid;
use crate::options::Value;

/// A position in a JSON text.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    pub(super) text: &'a [u8],
    pub(super) at: usize,
    depth: usize,
    depth_max: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a [u8], depth_max: usize) -> Self {
        Scanner { text, at: 0, depth: 0, depth_max }
    }

    /// A scanner of the same text, one level inside an array or object, at a position from [`Self::mark`].
    pub(crate) fn resume(&self, (at, depth): (usize, usize)) -> Self {
        Scanner { text: self.text, at, depth, depth_max: self.depth_max }
    }

    /// The beginning of the next value.
    pub(crate) fn mark(&mut self) -> (usize, usize) {
        self.skip_space();
        (self.at, self.depth)
    }

    /// Remaining bytes: an upper bound of what can still come.
    pub(crate) fn left(&self) -> usize {
        self.text.len() - self.at
    }

    /// The first byte of the next token, without consuming it.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.text.get(self.at).copied()
    }

    #[inline]
    pub(super) fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    /// An error at this position.
    #[cold]
    pub(crate) fn error(&self, expected: &str) -> Error {
        let found = match self.text.get(self.at) {
            None => "the end".to_owned(),
            Some(byte @ 0x20..=0x7e) => format!("'{}'", *byte as char),
            Some(byte) => format!("byte 0x{byte:02x}"),
        };
        invalid(format!("JSON at byte {}: {expected} is expected but {found} was found", self.at))
    }

    /// Consumes `byte` if it is next.
    #[inline]
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let next = self.peek() == Some(byte);
        self.at += usize::from(next);
        next
    }

    /// Consumes the bracket that opens an array or object.
    pub(crate) fn open(&mut self, bracket: u8) -> Result<()> {
        if !self.eat(bracket) {
            return Err(self.error(if bracket == b'[' { "an array" } else { "an object" }));
        }
        if self.depth == self.depth_max {
            return Err(invalid(format!(
                "JSON at byte {}: nested deeper than {} levels; json_depth_max sets the limit",
                self.at - 1,
                self.depth_max
            )));
        }
        self.depth += 1;
        Ok(())
    }

    /// Whether another element follows in an open array (or member in an open object). `first` is true before the
    /// first one; consumes the closing bracket if there is none.
    #[inline]
    pub(crate) fn another(&mut self, first: &mut bool, closing: u8) -> Result<bool> {
        let was_first = std::mem::replace(first, false);
        match self.peek() {
            Some(b',') if !was_first => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == closing => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            _ if was_first => Ok(true),
            _ => Err(self.error(if closing == b']' { "',' or ']'" } else { "',' or '}'" })),
        }
    }

    /// The next key of an open object with its colon; `None` at the object's end.
    pub(crate) fn key(&mut self, first: &mut bool) -> Result<Option<Cow<'a, str>>> {
        if !self.another(first, b'}')? {
            return Ok(None);
        }
        let key = self.string()?;
        if !self.eat(b':') {
            return Err(self.error("':'"));
        }
        Ok(Some(key))
    }

    /// Checks that only whitespace follows.
    pub(crate) fn end(&mut self) -> Result<()> {
        if self.peek().is_some() {
            return Err(self.error("the end"));
        }
        Ok(())
    }

    /// Consumes `token` if it is next and ends there.
    pub(crate) fn eat_word(&mut self, token: &[u8]) -> bool {
        self.skip_space();
        let Some(rest) = self.text[self.at..].strip_prefix(token) else { return false };
        if rest.first().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
            return false;
        }
        self.at += token.len();
        true
    }

    /// Skips one value of any kind. Needs no stack: the text may nest as deep as the limit allows.
    pub(crate) fn skip_value(&mut self) -> Result<()> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            match self.peek() {
                Some(bracket @ (b'[' | b'{')) => {
                    self.open(bracket)?;
                    open.push(if bracket == b'[' { b']' } else { b'}' });
                    if !self.next_inside(&mut open, true)? {
                        return Ok(());
                    }
                    continue;
                }
                Some(b'"') => drop(self.string()?),
                _ if self.eat_any_word().is_some() => {}
                Some(b'-' | b'0'..=b'9') => drop(self.number()?),
                _ => return Err(self.error("a value")),
            }
            if !self.next_inside(&mut open, false)? {
                return Ok(());
            }
        }
    }

    /// Moves to the next value inside the innermost open bracket, closing those that end; false if all have.
    fn next_inside(&mut self, open: &mut Vec<u8>, mut first: bool) -> Result<bool> {
        while let Some(closing) = open.last().copied() {
            let more = if closing == b'}' {
                self.key(&mut first)?.is_some()
            } else {
                self.another(&mut first, closing)?
            };
            if more {
                return Ok(true);
            }
            open.pop();
            first = false;
        }
        Ok(false)
    }

    fn eat_any_word(&mut self) -> Option<&'static [u8]> {
        const WORDS: [&[u8]; 6] = [b"true", b"false", b"null", b"NaN", b"Infinity", b"-Infinity"];
        WORDS.into_iter().find(|word| self.eat_word(word))
    }

    /// The value of a parameter. Arrays and objects are skipped.
    pub(crate) fn value(&mut self) -> Result<Value<'a>> {
        match self.peek() {
            Some(b'"') => self.string().map(Value::Text),
            Some(b'-' | b'0'..=b'9') if self.eat_word(b"-Infinity") => Ok(Value::Other),
            Some(b'-' | b'0'..=b'9') => {
                let number = self.number()?;
                let (signed, unsigned) = (number.integer(), number.integer());
                Ok(match (signed, unsigned) {
                    (Some(value), _) => Value::Int(value),
                    (None, Some(value)) => Value::Uint(value),
                    (None, None) => Value::Float(number.to_f64()),
                })
            }
            _ if self.eat_word(b"true") => Ok(Value::Bool(true)),
            _ if self.eat_word(b"false") => Ok(Value::Bool(false)),
            _ => self.skip_value().map(|()| Value::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(text: &str) -> Result<()> {
        let mut scanner = Scanner::new(text.as_bytes(), 8);
        scanner.skip_value()?;
        scanner.end()
    }

    #[test]
    fn what_json_allows_is_taken_and_what_it_forbids_is_not() {
        for text in [
            "[]",
            "{}",
            " [1, -2.5e+3 ,true]\n",
            r#"{"a":{"b":[null,"x\u00e9\n"]}}"#,
            "-0",
            "NaN",
            "[-Infinity]",
        ] {
            assert!(skip(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "[",
            "[1,]",
            "[,1]",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "- 1",
            "[1}",
            "truex",
            "nul",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\ud800\"",
            "[1] 2",
            "'a'",
            "NaN1",
            "--1",
        ] {
            assert!(skip(text).is_err(), "{text}");
        }
        assert!(Scanner::new(b"\"\xff\"", 8).skip_value().is_err());
    }

    #[test]
    fn the_depth_limit_is_named() {
        assert!(skip("[[[[[[[[]]]]]]]]").is_ok());
        let error = skip("[[[[[[[[[]]]]]]]]]").unwrap_err();
        assert!(
            error.message().contains("deeper than 8") && error.message().contains("json_depth_max"),
            "{error}"
        );
    }

    #[test]
    fn a_million_brackets_need_no_stack() {
        let text = "[".repeat(1_000_000);
        assert!(Scanner::new(text.as_bytes(), usize::MAX).skip_value().is_err());
    }

    #[test]
    fn escapes_become_what_they_stand_for() {
        let string = |text: &str| Scanner::new(text.as_bytes(), 1).string().map(Cow::into_owned);
        assert_eq!(
            string(r#""a\"\\\/\b\f\n\r\t\u0000\u00e9\ud83d\ude00""#).unwrap(),
            "a\"\\/\u{8}\u{c}\n\r\t\0é😀"
        );
        assert!(string(r#""\ud83d\u0041""#).unwrap_err().message().contains("surrogate"));
    }

    #[test]
    fn an_error_says_where_and_what() {
        let error = skip("[1 2]").unwrap_err();
        assert_eq!(error.message(), "JSON at byte 3: ',' or ']' is expected but '2' was found");
    }
}

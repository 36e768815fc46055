//! One line of the log: its form, its largest length, and which characters are escaped.
//!
//! Reads values, hands on text without line ends and control characters. Knows nothing of events and streams.

use std::fmt::{self, Display, Write};

use serde::Deserialize;

/// Longest line, its end not counted. A model's line of 8 KiB fits whole.
pub(super) const LINE_MAX: usize = 16 << 10;
/// Longest value in a line. A traceback of a hundred frames fits; tensors that a message quotes don't.
const VALUE_MAX: usize = 8 << 10;
/// Room that values leave for what follows them: the names of fields, numbers, the end.
const TAIL: usize = 1 << 10;
/// Marks where a value was cut.
const CUT: &str = "…";

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people: `TIME LEVEL target: message field="value"`.
    Text,
    /// For collectors: one flat object a line.
    Json,
}

/// A line under construction.
#[derive(Debug)]
pub(super) struct Line {
    format: LogFormat,
    text: String,
    target: &'static str,
}

impl Line {
    /// Begins a line; `time` is written as it is.
    pub(super) fn begin(format: LogFormat, time: &str, level: &str, target: &'static str) -> Line {
        let text = match format {
            LogFormat::Text => format!("{time} {level:>5} {target}:"),
            LogFormat::Json => format!(r#"{{"timestamp":"{time}","level":"{level}""#),
        };
        Line { format, text, target }
    }

    /// The message. In text it has no quotes, so it comes first.
    pub(super) fn message(&mut self, message: impl Display) {
        match self.format {
            LogFormat::Text => {
                self.text.push(' ');
                self.escaped(message, false);
            }
            LogFormat::Json => self.field("message", message),
        }
    }

    /// A value of any text.
    pub(super) fn field(&mut self, name: &str, value: impl Display) {
        if self.room() > 0 {
            self.name(name);
            self.text.push('"');
            self.escaped(value, true);
            self.text.push('"');
        }
    }

    /// A number or a truth value, whose text is short and plain.
    pub(super) fn plain(&mut self, name: &str, value: impl Display) {
        if self.room() > 0 {
            self.name(name);
            write!(self.text, "{value}").expect("a String takes every write");
        }
    }

    /// The line with its end.
    pub(super) fn end(mut self) -> String {
        if self.format == LogFormat::Json {
            let Line { text, target, .. } = &mut self;
            write!(text, r#","target":"{target}"}}"#).expect("a String takes every write");
        }
        self.text.push('\n');
        self.text
    }

    fn name(&mut self, name: &str) {
        let written = match self.format {
            LogFormat::Text => write!(self.text, " {name}="),
            LogFormat::Json => write!(self.text, r#","{name}":"#),
        };
        written.expect("a String takes every write");
    }

    /// Bytes that a value may take now.
    fn room(&self) -> usize {
        LINE_MAX.saturating_sub(self.text.len() + TAIL).min(VALUE_MAX)
    }

    fn escaped(&mut self, value: impl Display, quoted: bool) {
        let left = self.room();
        let mut escaped = Escaped { text: &mut self.text, left, quoted };
        // Formatting ends at the first byte too many: a value of megabytes costs no more than what is kept of it.
        if write!(escaped, "{value}").is_err() {
            self.text.push_str(CUT);
        }
    }
}

/// Takes what is formatted into it until `left` bytes are used; the first character too many is an error.
struct Escaped<'a> {
    text: &'a mut String,
    left: usize,
    quoted: bool,
}

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let before = self.text.len();
            match character {
                '"' if self.quoted => self.text.push_str("\\\""),
                '\\' if self.quoted => self.text.push_str("\\\\"),
                '\t' if !self.quoted => self.text.push('\t'),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                hidden if is_hidden(hidden) => write!(self.text, "\\u{:04x}", u32::from(hidden))?,
                shown => self.text.push(shown),
            }
            let used = self.text.len() - before;
            if used > self.left {
                self.text.truncate(before);
                return Err(fmt::Error);
            }
            self.left -= used;
        }
        Ok(())
    }
}

/// Characters that end a line, move a cursor or turn the direction of writing. All of them have 16 bits.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [LogFormat; 2] = [LogFormat::Text, LogFormat::Json];

    fn line(format: LogFormat, message: &str, model: &str) -> String {
        let mut line = Line::begin(format, "2026-01-01T00:00:00Z", "INFO", "worker");
        line.message(message);
        line.field("model", model);
        line.plain("version", 3);
        line.end()
    }

    #[test]
    fn both_forms_say_the_same() {
        let text = line(LogFormat::Text, "it is\tready: \"yes\"", "fraud");
        let expected = "2026-01-01T00:00:00Z  INFO worker: it is\tready: \"yes\" model=\"fraud\" version=3\n";
        assert_eq!(text, expected);
        let json: serde_json::Value =
            serde_json::from_str(&line(LogFormat::Json, "it is\tready: \"yes\"", "fraud")).unwrap();
        let expected = serde_json::json!({
            "timestamp": "2026-01-01T00:00:00Z", "level": "INFO", "target": "worker",
            "message": "it is\tready: \"yes\"", "model": "fraud", "version": 3,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn nothing_in_a_value_begins_another_line_or_moves_the_cursor() {
        let forged = "a\n2026 ERROR x: y\r\u{1b}[2J\u{85}\u{2028}\u{202e}\u{0}\u{7f}";
        for format in FORMATS {
            let line = line(format, forged, forged);
            let inside = line.strip_suffix('\n').unwrap();
            assert!(!inside.chars().any(is_hidden), "{inside:?}");
        }
        let json: serde_json::Value = serde_json::from_str(&line(LogFormat::Json, forged, forged)).unwrap();
        assert_eq!((json["message"].as_str(), json["model"].as_str()), (Some(forged), Some(forged)));
    }

    #[test]
    fn values_of_every_length_leave_a_whole_line_of_bounded_length() {
        for character in ["x", "\n", "\u{1}", "\"", "漢", "\u{2028}"] {
            let long = character.repeat(3 * LINE_MAX);
            for format in FORMATS {
                let mut line = Line::begin(format, "2026-01-01T00:00:00Z", "ERROR", "worker");
                line.message(&long);
                for name in ["model", "request_id", "trace", "detail", "kind", "more"] {
                    line.field(name, &long);
                    line.plain("version", u64::MAX);
                }
                let line = line.end();
                assert!(line.len() <= LINE_MAX + 1, "{}", line.len());
                assert!(line.contains(CUT));
                if format == LogFormat::Json {
                    serde_json::from_str::<serde_json::Value>(&line).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_worker_s_longest_line_is_whole() {
        let longest = "y".repeat(8 << 10);
        assert!(line(LogFormat::Text, &longest, "fraud").contains(&longest));
        assert!(!line(LogFormat::Json, &longest, "fraud").contains(CUT));
    }
}

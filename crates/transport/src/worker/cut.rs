//! Truncates texts between characters.

/// At most the first `max` bytes of `text`, whole characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// At most the last `max` bytes of `text`, whole characters: the end of a traceback names the error.
pub(super) fn cut_front(text: &str, max: usize) -> &str {
    let start = (text.len().saturating_sub(max)..=text.len()).find(|start| text.is_char_boundary(*start));
    &text[start.unwrap_or(text.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("añb", 2), "a");
        assert_eq!(cut("abc", 9), "abc");
        assert_eq!(cut_front("añb", 2), "b");
        assert_eq!(cut_front("abc", 9), "abc");
    }
}

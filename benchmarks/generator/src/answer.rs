//! Where an answer ends, and what its first line says.
//!
//! Reads the bytes that came so far. Knows nothing of sockets, and looks at no body.

/// Headers that an answer may have.
const HEADERS_MAX: usize = 64;

/// What is known of an answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// More is to come; of how many bytes altogether, where that is known already.
    Partial(Option<usize>),
    /// All of it is here.
    Whole {
        status: u16,
        /// Whether another request may follow on its connection.
        stays: bool,
    },
    /// No end can be found.
    Broken(String),
}

impl Answer {
    pub(crate) fn of(received: &[u8]) -> Answer {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let head = match response.parse(received) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) => return Answer::Partial(None),
            Err(fault) => return Answer::Broken(format!("the answer is no HTTP: {fault}")),
        };
        let (status, version) = (response.code.unwrap_or(0), response.version.unwrap_or(0));
        let value = |name: &str| {
            let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            header.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
        };
        let Some(length) = value("content-length").and_then(|length| length.parse::<usize>().ok()) else {
            return Answer::Broken(format!("the answer {status} has no Content-Length"));
        };
        let Some(whole) = head.checked_add(length) else {
            return Answer::Broken(format!("the answer {status} is of {length} bytes"));
        };
        if received.len() < whole {
            return Answer::Partial(Some(whole));
        }
        let stays = match value("connection") {
            Some(token) if token.eq_ignore_ascii_case("close") => false,
            Some(token) if token.eq_ignore_ascii_case("keep-alive") => true,
            _ => version >= 1,
        };
        Answer::Whole { status, stays }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_byte_and_not_before() {
        let bytes = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 4\r\n\r\nabcd";
        for end in 0..bytes.len() {
            assert!(matches!(Answer::of(&bytes[..end]), Answer::Partial(_)), "{end}");
        }
        assert_eq!(Answer::of(&bytes[..bytes.len() - 1]), Answer::Partial(Some(bytes.len())));
        assert_eq!(Answer::of(bytes), Answer::Whole { status: 200, stays: true });
    }

    #[test]
    fn whoever_says_so_closes() {
        let close = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        assert_eq!(Answer::of(close), Answer::Whole { status: 503, stays: false });
        let old = b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(Answer::of(old), Answer::Whole { status: 200, stays: false });
    }

    #[test]
    fn an_answer_without_an_end_is_told() {
        for bytes in [&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..], b"nonsense\r\n\r\n"] {
            assert!(matches!(Answer::of(bytes), Answer::Broken(_)));
        }
    }
}

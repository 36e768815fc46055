//! The closed list of error kinds, and the one table that maps each to HTTP, gRPC, metrics and Python.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// `Result` with inferd's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller may do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryHint {
    /// The same request will fail again.
    Never,
    /// The same request may succeed later.
    Later,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $http:literal, $grpc:literal, $retry:ident, $label:literal, $python:literal;)*) => {
        /// Why a request, a model or a worker failed. The table's columns say how clients see it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorKind { $($(#[$doc])* $kind,)* }

        impl ErrorKind {
            /// Every kind.
            pub const ALL: &[ErrorKind] = &[$(ErrorKind::$kind,)*];

            /// The HTTP status.
            pub const fn http_status(self) -> u16 {
                match self { $(ErrorKind::$kind => $http,)* }
            }

            /// The gRPC status code.
            pub const fn grpc_code(self) -> i32 {
                match self { $(ErrorKind::$kind => $grpc,)* }
            }

            /// Whether a retry may help.
            pub const fn retry(self) -> RetryHint {
                match self { $(ErrorKind::$kind => RetryHint::$retry,)* }
            }

            /// The value of the metric and log label.
            pub const fn label(self) -> &'static str {
                match self { $(ErrorKind::$kind => $label,)* }
            }

            /// The class in `inferd.errors`.
            pub const fn python_class(self) -> &'static str {
                match self { $(ErrorKind::$kind => $python,)* }
            }
        }
    };
}

kinds! {
    /// The request is invalid in itself.
    InvalidInput, 400, 3, Never, "invalid_input", "InvalidInput";
    /// No such model, version or path.
    NotFound, 404, 5, Never, "not_found", "NotFound";
    /// The path exists, the method does not.
    MethodNotAllowed, 405, 12, Never, "method_not_allowed", "InvalidInput";
    /// The body, as sent or decompressed, is larger than a limit.
    TooLarge, 413, 8, Never, "too_large", "InvalidInput";
    /// The content type or compression of the body is not supported.
    UnsupportedMedia, 415, 3, Never, "unsupported_media", "InvalidInput";
    /// The caller is not authenticated.
    Unauthenticated, 401, 16, Never, "unauthenticated", "Unauthenticated";
    /// The caller may not do this.
    Forbidden, 403, 7, Never, "forbidden", "Forbidden";
    /// The caller exceeds its rate.
    RateLimited, 429, 8, Later, "rate_limited", "RateLimited";
    /// The queue is too long to answer in time.
    Overloaded, 503, 14, Later, "overloaded", "Overloaded";
    /// The model exists but no replica is ready.
    NotReady, 503, 14, Later, "not_ready", "NotReady";
    /// The server is shutting down.
    Draining, 503, 14, Later, "draining", "Draining";
    /// The caller's timeout passed, or is shorter than the model's execution time.
    DeadlineMissed, 504, 4, Never, "deadline_missed", "DeadlineMissed";
    /// The caller cancelled before the response.
    Cancelled, 499, 1, Never, "cancelled", "Cancelled";
    /// The worker that ran the request died, and a retry was not allowed or not possible.
    WorkerLost, 503, 14, Later, "worker_lost", "WorkerLost";
    /// The model raised an error, or this request kills every worker that runs it.
    ModelFailed, 500, 13, Never, "model_failed", "ModelFailed";
    /// Part of the protocol, but not implemented here.
    Unimplemented, 501, 12, Never, "unimplemented", "Unimplemented";
    /// A bug of inferd.
    Internal, 500, 13, Never, "internal", "InternalError";
}

/// One failure: its kind, a message for the client, and a detail for the operator.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    detail: Option<String>,
    retry_after: Option<Duration>,
}

impl Error {
    /// An error with a `message` that is safe for clients and ends with the remedy, where there is one.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), detail: None, retry_after: None }))
    }

    /// Adds what only the log may show (a traceback, a path).
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds when a retry is worthwhile.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// The same error with the message `place: message`.
    #[must_use]
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        self.0.message = format!("{place}: {}", self.0.message).into();
        self
    }

    /// The same error of a part of a request that begins after `rows` other rows: a message that begins with `row
    /// 5` begins with `row 13` if 8 rows came before.
    #[must_use]
    pub fn after_rows(mut self, rows: u64) -> Self {
        let number = self.0.message.strip_prefix("row ").map(|rest| {
            let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
            (rest[..end].parse::<u64>(), &rest[end..])
        });
        if let Some((Ok(row), rest)) = number
            && let Some(row) = row.checked_add(rows)
        {
            self.0.message = format!("row {row}{rest}").into();
        }
        self
    }

    /// The kind, which determines status codes, labels and classes.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message for the client.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The detail for the operator.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// When a retry is worthwhile, if known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}

/// Most characters of an external text that a message repeats.
const SHOWN_CHARS: usize = 64;

/// An external text, cut to the length of a message.
pub fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_counted_from_the_first_that_was_sent() {
        let moved = |message: &'static str| Error::new(ErrorKind::InvalidInput, message).after_rows(8);
        assert_eq!(moved("row 5: no digits").message(), "row 13: no digits");
        assert_eq!(moved("row 0 of column 'a': text").message(), "row 8 of column 'a': text");
        let whole = format!("row {}0: too far", u64::MAX);
        for message in ["row: no number", "rows 5", "the row 5", whole.leak()] {
            assert_eq!(moved(message).message(), message);
        }
    }

    #[test]
    fn the_table_holds_cell_by_cell() {
        // (kind, HTTP, gRPC, may be retried): the contract with clients, repeated on purpose.
        let table: &[(ErrorKind, u16, i32, bool)] = &[
            (ErrorKind::InvalidInput, 400, 3, false),
            (ErrorKind::NotFound, 404, 5, false),
            (ErrorKind::MethodNotAllowed, 405, 12, false),
            (ErrorKind::TooLarge, 413, 8, false),
            (ErrorKind::UnsupportedMedia, 415, 3, false),
            (ErrorKind::Unauthenticated, 401, 16, false),
            (ErrorKind::Forbidden, 403, 7, false),
            (ErrorKind::RateLimited, 429, 8, true),
            (ErrorKind::Overloaded, 503, 14, true),
            (ErrorKind::NotReady, 503, 14, true),
            (ErrorKind::Draining, 503, 14, true),
            (ErrorKind::DeadlineMissed, 504, 4, false),
            (ErrorKind::Cancelled, 499, 1, false),
            (ErrorKind::WorkerLost, 503, 14, true),
            (ErrorKind::ModelFailed, 500, 13, false),
            (ErrorKind::Unimplemented, 501, 12, false),
            (ErrorKind::Internal, 500, 13, false),
        ];
        assert_eq!(table.len(), ErrorKind::ALL.len());
        for (kind, http, grpc, retry) in table {
            assert_eq!(kind.http_status(), *http, "{kind:?}");
            assert_eq!(kind.grpc_code(), *grpc, "{kind:?}");
            assert_eq!(kind.retry() == RetryHint::Later, *retry, "{kind:?}");
        }
    }

    #[test]
    fn labels_are_distinct_and_in_the_form_prometheus_likes() {
        let mut labels: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.label()).collect();
        assert!(labels.iter().all(|label| label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), ErrorKind::ALL.len());
    }

    #[test]
    fn what_only_the_operator_may_read_is_not_in_the_message() {
        let error =
            Error::new(ErrorKind::ModelFailed, "the model failed").with_detail("secret").within("model 'm'");
        assert_eq!(error.to_string(), "model 'm': the model failed");
        assert_eq!(error.detail(), Some("secret"));
    }
}

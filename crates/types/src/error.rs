//! What can go wrong, as a closed list, and the one table that says how each kind looks from outside.

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
    /// The same request may succeed a little later.
    Later,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $http:literal, $grpc:literal, $retry:ident, $label:literal, $python:literal;)*) => {
        /// Why a request, a model or a worker failed. The columns of the table say how it is told to others.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorKind { $($(#[$doc])* $kind,)* }

        impl ErrorKind {
            /// Every kind there is.
            pub const ALL: &[ErrorKind] = &[$(ErrorKind::$kind,)*];

            /// The status of an HTTP answer.
            pub const fn http_status(self) -> u16 {
                match self { $(ErrorKind::$kind => $http,)* }
            }

            /// The number of the gRPC status code.
            pub const fn grpc_code(self) -> i32 {
                match self { $(ErrorKind::$kind => $grpc,)* }
            }

            /// Whether trying again helps.
            pub const fn retry(self) -> RetryHint {
                match self { $(ErrorKind::$kind => RetryHint::$retry,)* }
            }

            /// The value of metric and log labels.
            pub const fn label(self) -> &'static str {
                match self { $(ErrorKind::$kind => $label,)* }
            }

            /// The class in `inferd.errors` that Python raises.
            pub const fn python_class(self) -> &'static str {
                match self { $(ErrorKind::$kind => $python,)* }
            }
        }
    };
}

kinds! {
    /// The request is wrong in itself.
    InvalidInput, 400, 3, Never, "invalid_input", "InvalidInput";
    /// No such model, version or path.
    NotFound, 404, 5, Never, "not_found", "NotFound";
    /// The path exists, the method does not.
    MethodNotAllowed, 405, 12, Never, "method_not_allowed", "InvalidInput";
    /// The body, or what it unpacks to, is larger than a limit.
    TooLarge, 413, 8, Never, "too_large", "InvalidInput";
    /// The body is of a form or compression that is not understood.
    UnsupportedMedia, 415, 3, Never, "unsupported_media", "InvalidInput";
    /// The caller did not say who it is.
    Unauthenticated, 401, 16, Never, "unauthenticated", "Unauthenticated";
    /// The caller may not do this.
    Forbidden, 403, 7, Never, "forbidden", "Forbidden";
    /// The caller asks more often than it may.
    RateLimited, 429, 8, Later, "rate_limited", "RateLimited";
    /// There is more work than can be done in time.
    Overloaded, 503, 14, Later, "overloaded", "Overloaded";
    /// The model is known but no replica is ready.
    NotReady, 503, 14, Later, "not_ready", "NotReady";
    /// The server is about to stop.
    Draining, 503, 14, Later, "draining", "Draining";
    /// The caller's timeout passed, or is shorter than the model ever takes.
    DeadlineMissed, 504, 4, Never, "deadline_missed", "DeadlineMissed";
    /// The caller went away before the answer.
    Cancelled, 499, 1, Never, "cancelled", "Cancelled";
    /// The worker that ran the request died and it may not or could not be run again.
    WorkerLost, 503, 14, Later, "worker_lost", "WorkerLost";
    /// The model raised an error, or this request alone ends every worker that runs it.
    ModelFailed, 500, 13, Never, "model_failed", "ModelFailed";
    /// The protocol has it, this server does not.
    Unimplemented, 501, 12, Never, "unimplemented", "Unimplemented";
    /// A fault of inferd.
    Internal, 500, 13, Never, "internal", "InternalError";
}

/// One failure: its kind, what the client may read, and what only the operator may.
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
    /// An error whose `message` is safe for a client to read and ends with the remedy where there is one.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), detail: None, retry_after: None }))
    }

    /// Adds what only the log may show (a traceback, a path).
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Says when trying again is worth it.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// The same error, its message behind `place`: `place: message`.
    #[must_use]
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        self.0.message = format!("{place}: {}", self.0.message).into();
        self
    }

    /// The same error of a part of a request that begins after `rows` others: a message that begins with `row 5` begins
    /// with `row 13` where 8 came before.
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

    /// The kind, from which status codes, labels and classes follow.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What the client reads.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What the operator reads besides.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// When trying again is worth it, where that is known.
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

/// Longest part of a text from outside that a message repeats.
const SHOWN_CHARS: usize = 64;

/// A text from outside, cut to what belongs into a message.
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
        // (kind, HTTP, gRPC, may be retried): the promise to clients, written a second time on purpose.
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

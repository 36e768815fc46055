//! One structured log line for each refusal or failure, at a bounded rate.
//!
//! Reads errors and their requests, hands events to `tracing`. Knows nothing of where the log goes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use inferd_types::{Error, ErrorKind, Time};

/// Lines in one second. More than a person reads, less than a disk notices. Metrics count every refusal; the log says
/// how many lines it suppressed.
const LINES_PER_SECOND: u32 = 50;

/// The request that a line is about; empty fields are not known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogSubject<'a> {
    pub(crate) model: &'a str,
    pub(crate) version: u64,
    pub(crate) request_id: &'a str,
    pub(crate) trace: Option<u128>,
}

/// The log of failed requests.
#[derive(Debug, Default)]
pub(crate) struct FailureLog(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Time,
    lines: u32,
    suppressed: u64,
}

impl Window {
    /// `Some` where a line may be written `now`, with the number of lines that were suppressed before it.
    fn admit(&mut self, now: Time) -> Option<u64> {
        if now.since(self.began) >= Duration::from_secs(1) {
            self.began = now;
            self.lines = 0;
        }
        if self.lines >= LINES_PER_SECOND {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl FailureLog {
    /// Writes one line about `error`, unless [`LINES_PER_SECOND`] were written in this second.
    pub(crate) fn log(&self, now: Time, error: &Error, subject: LogSubject<'_>) {
        let admitted = self.0.lock().unwrap_or_else(PoisonError::into_inner).admit(now);
        let Some(suppressed) = admitted else { return };
        let (kind, detail) = (error.kind().label(), error.detail().unwrap_or_default());
        let LogSubject { model, version, request_id, trace } = subject;
        let trace = trace.map(|trace| format!("{trace:032x}")).unwrap_or_default();
        let message = error.message();
        match error.kind() {
            ErrorKind::Internal | ErrorKind::ModelFailed | ErrorKind::WorkerLost => {
                tracing::error!(kind, model, version, request_id, trace, detail, suppressed, "{message}");
            }
            kind_of if kind_of.http_status() >= 500 => {
                tracing::warn!(kind, model, version, request_id, trace, detail, suppressed, "{message}");
            }
            _ => tracing::info!(kind, model, version, request_id, trace, detail, suppressed, "{message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_the_next_line_says_by_how_much() {
        let mut window = Window::default();
        let now = Time::ZERO + Duration::from_secs(5);
        for _ in 0..LINES_PER_SECOND {
            assert_eq!(window.admit(now), Some(0));
        }
        assert_eq!(window.admit(now), None);
        assert_eq!(window.admit(now), None);
        assert_eq!(window.admit(now + Duration::from_secs(1)), Some(2));
        assert_eq!(window.admit(now + Duration::from_secs(1)), Some(0));
    }
}

//! Errors as gRPC statuses, and the call's own timeout.
//!
//! Reads errors and headers, hands on what tonic and the dispatcher want. Knows nothing of messages.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use inferd_types::Error;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::answer::response::retry_pushback_ms;

/// `error` as the client sees it; it also says when to try again.
pub(super) fn of(error: &Error) -> Status {
    let code = Code::from_i32(error.kind().grpc_code());
    let mut metadata = MetadataMap::new();
    if let Some(milliseconds) = retry_pushback_ms(error)
        && let Ok(value) = MetadataValue::try_from(milliseconds.to_string())
    {
        metadata.insert("grpc-retry-pushback-ms", value);
    }
    Status::with_metadata(code, error.message(), metadata)
}

/// The header `grpc-timeout`; `None` where there is none or it is not of the specified form.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    parse(headers.get("grpc-timeout")?)
}

/// At most eight digits and a unit (gRPC over HTTP/2, *Requests*).
fn parse(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use inferd_types::{ErrorKind, RetryHint};

    use super::*;

    #[test]
    fn every_unit_of_a_timeout_is_read_and_nothing_else() {
        let parsed = |value: &'static str| parse(&HeaderValue::from_static(value));
        assert_eq!(parsed("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parsed("3M"), Some(Duration::from_secs(180)));
        assert_eq!(parsed("4S"), Some(Duration::from_secs(4)));
        assert_eq!(parsed("5m"), Some(Duration::from_millis(5)));
        assert_eq!(parsed("6u"), Some(Duration::from_micros(6)));
        assert_eq!(parsed("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for wrong in ["", "S", "5", "5s", "-5S", "123456789m", "1 S"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_kind_has_its_code_and_only_what_may_be_retried_says_when() {
        for kind in ErrorKind::ALL {
            let status = of(&Error::new(*kind, "why"));
            assert_eq!(status.code() as i32, kind.grpc_code(), "{kind:?}");
            assert_eq!(status.message(), "why");
            let says_when = status.metadata().contains_key("grpc-retry-pushback-ms");
            assert_eq!(says_when, kind.retry() == RetryHint::Later, "{kind:?}");
        }
    }
}

//! Errors as gRPC statuses.
//!
//! Reads errors, hands statuses to tonic. Knows nothing of messages.

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

#[cfg(test)]
mod tests {
    use inferd_types::{ErrorKind, RetryHint};

    use super::*;

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

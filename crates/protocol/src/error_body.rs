//! The body of failed HTTP responses, and the last event of a failed stream.
//!
//! Reads an error, hands on `{"error": "…"}`. Does not know its status, which the table in `types` has.

use inferd_types::Error;

use crate::rest::write_string;

/// `{"error": "…"}` with the error's client-safe message.
pub fn error_body(error: &Error) -> Vec<u8> {
    let mut body = Vec::with_capacity(error.message().len() + 16);
    body.extend_from_slice(b"{\"error\":");
    write_string(&mut body, error.message());
    body.push(b'}');
    body
}

/// The same with `"status"`, the HTTP status of the error: the response's own has been sent before.
pub fn error_event(error: &Error) -> Vec<u8> {
    let mut body = error_body(error);
    body.pop();
    body.extend_from_slice(b",\"status\":");
    body.extend_from_slice(itoa::Buffer::new().format(error.kind().http_status()).as_bytes());
    body.push(b'}');
    body
}

#[cfg(test)]
mod tests {
    use inferd_types::ErrorKind;

    use super::*;

    #[test]
    fn the_body_is_json_whatever_the_message_holds() {
        let message = "a \"quoted\" name\n\u{1}\\ é";
        let body = error_body(&Error::new(ErrorKind::InvalidInput, message).with_detail("hidden"));
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value, serde_json::json!({ "error": message }));
    }

    #[test]
    fn an_event_has_the_status_that_the_response_would_have_had() {
        for kind in ErrorKind::ALL {
            let body = error_event(&Error::new(*kind, "why"));
            let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(value, serde_json::json!({ "error": "why", "status": kind.http_status() }));
        }
    }
}

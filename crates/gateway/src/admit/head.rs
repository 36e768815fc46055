//! The head of a request, read in one pass.
//!
//! Reads a method, a target and headers, hands on the few headers that mean something here. Knows nothing of bodies.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Uri};
use inferd_types::{Error, ErrorKind, Result};

use super::trace::{REQUEST_ID, TRACEPARENT};
use crate::answer::compression::ContentCoding;

/// Most bytes that a header takes on the wire beside its name and value (`": "` and the line's end).
const LINE_BYTES: usize = 4;

/// The method, the target, and the headers that mean something.
#[derive(Debug)]
pub(crate) struct RequestHead<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    /// All headers.
    pub(crate) headers: &'a HeaderMap,
    /// Bytes of all headers.
    bytes: usize,
    pub(super) request_id: Option<&'a HeaderValue>,
    pub(super) traceparent: Option<&'a HeaderValue>,
    content_type: Option<&'a HeaderValue>,
    content_encoding: Option<&'a HeaderValue>,
    accept_encoding: Option<&'a HeaderValue>,
    json_length: Option<&'a HeaderValue>,
    timeout: Option<&'a HeaderValue>,
    grpc_timeout: Option<&'a HeaderValue>,
}

impl<'a> RequestHead<'a> {
    pub(crate) fn read(method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap) -> RequestHead<'a> {
        let mut head = RequestHead {
            method,
            uri,
            headers,
            bytes: 0,
            request_id: None,
            traceparent: None,
            content_type: None,
            content_encoding: None,
            accept_encoding: None,
            json_length: None,
            timeout: None,
            grpc_timeout: None,
        };
        for (name, value) in headers {
            let name = name.as_str();
            head.bytes += name.len() + value.len() + LINE_BYTES;
            let field = match name {
                "content-type" => &mut head.content_type,
                "content-encoding" => &mut head.content_encoding,
                "accept-encoding" => &mut head.accept_encoding,
                "inference-header-content-length" => &mut head.json_length,
                "inferd-timeout-ms" => &mut head.timeout,
                "grpc-timeout" => &mut head.grpc_timeout,
                REQUEST_ID => &mut head.request_id,
                TRACEPARENT => &mut head.traceparent,
                _ => continue,
            };
            *field = Some(value);
        }
        head
    }

    /// # Errors
    /// `TooLarge` where target and headers are over `max`.
    pub(super) fn check_size(&self, max: usize) -> Result<()> {
        let target_bytes = self.uri.path_and_query().map_or(0, |target| target.as_str().len());
        if self.bytes + target_bytes <= max {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::TooLarge,
            format!("the request headers are larger than header_max_bytes = {max}; send fewer, or raise it"),
        ))
    }

    /// How long the caller waits: `grpc-timeout` of a gRPC call, else `Inferd-Timeout-Ms`, where 0 means no limit as in
    /// the parameter `timeout`.
    ///
    /// # Errors
    /// `InvalidInput` where `Inferd-Timeout-Ms` is no number. A malformed `grpc-timeout` counts as none.
    pub(super) fn timeout(&self) -> Result<Option<Duration>> {
        if self.content_type.is_some_and(is_grpc) {
            return Ok(self.grpc_timeout.and_then(parse_grpc_timeout));
        }
        let Some(value) = self.timeout else { return Ok(None) };
        let milliseconds: u64 = number(value, "Inferd-Timeout-Ms", "a number of milliseconds, 0 or more")?;
        Ok((milliseconds != 0).then(|| Duration::from_millis(milliseconds)))
    }

    /// # Errors
    /// `UnsupportedMedia` where the content type can't be that of JSON. One that merely is another (as `curl -d` sends)
    /// passes: the body decides.
    pub(crate) fn check_content_type(&self) -> Result<()> {
        let Some(value) = self.content_type else { return Ok(()) };
        let full = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        let essence = full.split(';').next().unwrap_or_default().trim();
        let other =
            ["multipart/", "image/", "audio/", "video/", "font/", "application/grpc", "application/zip"];
        let forms = ["protobuf", "xml", "html", "msgpack", "cbor", "yaml", "csv", "pdf"];
        if !other.iter().any(|prefix| essence.starts_with(prefix))
            && !forms.iter().any(|form| essence.ends_with(form))
        {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::UnsupportedMedia,
            format!(
                "Content-Type '{essence}' is not understood; send application/json or application/octet-stream"
            ),
        ))
    }

    /// The content type without its parameters, in small letters; empty where none is sent.
    pub(crate) fn media(&self) -> String {
        let full =
            self.content_type.map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
        full.as_deref().and_then(|full| full.split(';').next()).unwrap_or_default().trim().to_owned()
    }

    /// What separates the parts of a form.
    pub(crate) fn boundary(&self) -> Result<String> {
        let value = self.content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        multer::parse_boundary(value).map_err(|_| {
            Error::new(
                ErrorKind::InvalidInput,
                "the Content-Type multipart/form-data has no boundary; one is expected",
            )
        })
    }

    /// The coding of the body.
    ///
    /// # Errors
    /// `UnsupportedMedia` for one that is not supported.
    pub(crate) fn content_coding(&self) -> Result<Option<ContentCoding>> {
        self.content_encoding.map_or(Ok(None), ContentCoding::of_request)
    }

    /// The coding that the client accepts for the answer.
    pub(crate) fn accepted_coding(&self) -> Option<ContentCoding> {
        self.accept_encoding.and_then(ContentCoding::for_response)
    }

    /// The length of the JSON, behind which raw tensors begin.
    pub(crate) fn json_length(&self) -> Result<Option<usize>> {
        self.json_length
            .map(|value| number(value, "Inference-Header-Content-Length", "the length of the JSON in bytes"))
            .transpose()
    }
}

/// `application/grpc`, with a subtype or not; not `application/grpc-web`, which is another protocol.
pub(crate) fn is_grpc(content_type: &HeaderValue) -> bool {
    content_type
        .as_bytes()
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// At most eight digits and a unit (gRPC over HTTP/2, *Requests*); `None` for any other form.
fn parse_grpc_timeout(value: &HeaderValue) -> Option<Duration> {
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

fn number<N: std::str::FromStr>(value: &HeaderValue, header: &str, expected: &str) -> Result<N> {
    let parsed = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    parsed.ok_or_else(|| {
        let sent = String::from_utf8_lossy(value.as_bytes());
        Error::new(ErrorKind::InvalidInput, format!("header {header} is '{sent}'; {expected} is expected"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(headers: &[(&str, &'static str)], read: impl FnOnce(&RequestHead<'_>) -> T) -> T {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        read(&RequestHead::read(&Method::POST, &Uri::from_static("/"), &headers))
    }

    fn checked(content_type: &'static str) -> Result<()> {
        with(&[("content-type", content_type)], |head| head.check_content_type())
    }

    #[test]
    fn only_what_cannot_be_json_is_refused() {
        for taken in ["", "application/json", "application/octet-stream", "text/plain; charset=utf-8"] {
            assert!(checked(taken).is_ok(), "{taken}");
        }
        assert!(checked("application/x-www-form-urlencoded").is_ok());
        for refused in
            ["multipart/form-data; boundary=x", "image/png", "Application/XML", "application/grpc-web"]
        {
            assert_eq!(checked(refused).unwrap_err().kind(), ErrorKind::UnsupportedMedia, "{refused}");
        }
    }

    #[test]
    fn numbers_are_read_strictly_and_a_timeout_of_zero_is_none() {
        let timeout = |value| with(&[("inferd-timeout-ms", value)], |head| head.timeout());
        assert_eq!(timeout("250").unwrap(), Some(Duration::from_millis(250)));
        assert_eq!(timeout("0").unwrap(), None);
        for wrong in ["-1", "1.5", "soon", ""] {
            assert!(timeout(wrong).unwrap_err().message().contains("Inferd-Timeout-Ms"), "{wrong}");
        }
    }

    #[test]
    fn every_unit_of_a_grpc_timeout_is_read_and_nothing_else() {
        let call =
            |value, kind| with(&[("grpc-timeout", value), ("content-type", kind)], |head| head.timeout());
        let parsed = |value| call(value, "application/grpc+proto").unwrap();
        assert_eq!(parsed("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parsed("3M"), Some(Duration::from_secs(180)));
        assert_eq!(parsed("4S"), Some(Duration::from_secs(4)));
        assert_eq!(parsed("5m"), Some(Duration::from_millis(5)));
        assert_eq!(parsed("6u"), Some(Duration::from_micros(6)));
        assert_eq!(parsed("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for wrong in ["", "S", "5", "5s", "-5S", "123456789m", "1 S"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
        assert_eq!(call("5m", "application/json").unwrap(), None, "not a call");
    }
}

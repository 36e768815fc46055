//! The headers of a request, read in one pass.
//!
//! Reads a header map, hands on the few that mean something here. Knows nothing of bodies.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use inferd_types::{Error, ErrorKind, Result};

use crate::admit::trace::{REQUEST_ID, TRACEPARENT};
use crate::answer::compression::Packing;

/// Most bytes that a name and value take besides themselves on the wire (`": "` and the line's end).
const LINE_BYTES: usize = 4;

/// The headers that mean something.
#[derive(Debug)]
pub(super) struct Head<'a> {
    /// All of them.
    pub(super) headers: &'a HeaderMap,
    /// Bytes of all headers.
    bytes: usize,
    pub(super) request_id: Option<&'a HeaderValue>,
    pub(super) traceparent: Option<&'a HeaderValue>,
    content_type: Option<&'a HeaderValue>,
    content_encoding: Option<&'a HeaderValue>,
    accept_encoding: Option<&'a HeaderValue>,
    json_length: Option<&'a HeaderValue>,
    timeout: Option<&'a HeaderValue>,
}

impl<'a> Head<'a> {
    pub(super) fn read(headers: &'a HeaderMap) -> Head<'a> {
        let mut head = Head {
            headers,
            bytes: 0,
            request_id: None,
            traceparent: None,
            content_type: None,
            content_encoding: None,
            accept_encoding: None,
            json_length: None,
            timeout: None,
        };
        for (name, value) in headers {
            let name = name.as_str();
            head.bytes += name.len() + value.len() + LINE_BYTES;
            let place = match name {
                "content-type" => &mut head.content_type,
                "content-encoding" => &mut head.content_encoding,
                "accept-encoding" => &mut head.accept_encoding,
                "inference-header-content-length" => &mut head.json_length,
                "inferd-timeout-ms" => &mut head.timeout,
                REQUEST_ID => &mut head.request_id,
                TRACEPARENT => &mut head.traceparent,
                _ => continue,
            };
            *place = Some(value);
        }
        head
    }

    /// # Errors
    /// `TooLarge` where the head, with a target of `target_bytes`, is over `max`.
    pub(super) fn check_size(&self, target_bytes: usize, max: usize) -> Result<()> {
        if self.bytes + target_bytes <= max {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::TooLarge,
            format!(
                "the request's head is larger than header_max_bytes = {max}; send fewer headers, or raise it"
            ),
        ))
    }

    /// # Errors
    /// `UnsupportedMedia` where the content type can't be that of JSON. One that merely is not (as `curl -d` sends)
    /// is taken: the body decides.
    pub(super) fn check_content_type(&self) -> Result<()> {
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
    pub(super) fn media(&self) -> String {
        let full =
            self.content_type.map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
        full.as_deref().and_then(|full| full.split(';').next()).unwrap_or_default().trim().to_owned()
    }

    /// What separates the parts of a form.
    pub(super) fn boundary(&self) -> Result<String> {
        let value = self.content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        multer::parse_boundary(value).map_err(|_| {
            Error::new(
                ErrorKind::InvalidInput,
                "the Content-Type multipart/form-data has no boundary; one is expected",
            )
        })
    }

    /// How the body is packed.
    pub(super) fn packed(&self) -> Result<Option<Packing>> {
        self.content_encoding.map_or(Ok(None), Packing::of_request)
    }

    /// How the answer should be packed.
    pub(super) fn pack(&self) -> Option<Packing> {
        self.accept_encoding.and_then(Packing::for_response)
    }

    /// Where the JSON ends and raw tensors begin.
    pub(super) fn json_length(&self) -> Result<Option<usize>> {
        self.json_length
            .map(|value| number(value, "Inference-Header-Content-Length", "the length of the JSON in bytes"))
            .transpose()
    }

    /// How long the caller waits; 0 means no limit, as in the parameter `timeout`.
    pub(super) fn timeout(&self) -> Result<Option<Duration>> {
        let Some(value) = self.timeout else { return Ok(None) };
        let milliseconds: u64 = number(value, "Inferd-Timeout-Ms", "a number of milliseconds, 0 or more")?;
        Ok((milliseconds != 0).then(|| Duration::from_millis(milliseconds)))
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
    use http::header::CONTENT_TYPE;

    use super::*;

    fn checked(content_type: &'static str) -> Result<()> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Head::read(&headers).check_content_type()
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
        let timeout = |value: &'static str| {
            let headers = HeaderMap::from_iter([(
                "inferd-timeout-ms".parse().unwrap(),
                HeaderValue::from_static(value),
            )]);
            Head::read(&headers).timeout()
        };
        assert_eq!(timeout("250").unwrap(), Some(Duration::from_millis(250)));
        assert_eq!(timeout("0").unwrap(), None);
        for wrong in ["-1", "1.5", "soon", ""] {
            assert!(timeout(wrong).unwrap_err().message().contains("Inferd-Timeout-Ms"), "{wrong}");
        }
    }
}

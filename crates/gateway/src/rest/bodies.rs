//! Reads the bodies of REST requests and writes the bodies of their answers.
//!
//! Reads a body in its coding, hands on bytes; reads encoded answers, hands on responses. Knows nothing of what they
//! mean.

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, StatusCode};
use inferd_types::Result;

use crate::admit::body::RequestBody;
use crate::admit::inflight::HeldBytes;
use crate::answer::compression::{COMPRESS_MIN_BYTES, ContentCoding};
use crate::answer::response::{self, HttpResponse};
use crate::infer::record::count_refusal;
use crate::offload::{LARGE_BYTES, off_reactor};
use crate::server_state::ServerState;

/// Reads `body` whole and decompresses it.
pub(super) async fn read(
    server: &ServerState,
    body: RequestBody,
    coding: Option<ContentCoding>,
    held: &HeldBytes,
) -> Result<Bytes> {
    let body = body.read(held, &server.settings).await.inspect_err(|error| count_refusal(server, error))?;
    match coding {
        None => Ok(body),
        Some(coding) => Box::pin(decompress(server, body, coding, held)).await,
    }
}

async fn decompress(
    server: &ServerState,
    body: Bytes,
    coding: ContentCoding,
    held: &HeldBytes,
) -> Result<Bytes> {
    let max = server.settings.body_max_bytes;
    // The decompressed size is not known before; a small body may grow a thousandfold.
    let decompressed = if body.len() > LARGE_BYTES / 64 {
        off_reactor(move || coding.decompress(&body, max)).await?
    } else {
        coding.decompress(&body, max)
    };
    decompressed
        .and_then(|body| held.add(body.len()).map(|()| body))
        .inspect_err(|error| count_refusal(server, error))
}

/// A response with `body`, compressed with `coding` where that pays. `headers` adds its own.
pub(super) fn respond(
    body: Vec<u8>,
    coding: Option<ContentCoding>,
    headers: impl FnOnce(&mut HeaderMap),
) -> HttpResponse {
    let coding = coding.filter(|_| body.len() >= COMPRESS_MIN_BYTES);
    let body = match coding {
        Some(coding) => coding.compress(&body),
        None => body.into(),
    };
    let mut response = response::json(StatusCode::OK, body);
    headers(response.headers_mut());
    if let Some(coding) = coding {
        response.headers_mut().insert(CONTENT_ENCODING, coding.header());
    }
    response
}

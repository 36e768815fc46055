//! `POST …/infer`: the Open Inference Protocol, tensors as JSON or as raw bytes behind it.
//!
//! Reads one body, hands back one response. Knows nothing of the model but its signature.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};
use inferd_protocol::rest::{self as protocol, EncodedBody};
use inferd_protocol::{Decoded, Limits};
use inferd_types::{Result, Signature};

use super::bodies;
use crate::admit::body::RequestBody;
use crate::admit::head::RequestHead;
use crate::admit::inflight::HeldBytes;
use crate::answer::compression::ContentCoding;
use crate::answer::response::HttpResponse;
use crate::infer::wire::{Reply, Wire};
use crate::offload::LARGE_BYTES;
use crate::server_state::ServerState;

const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// What the headers say of body and answer.
#[derive(Clone, Copy)]
pub(super) struct TensorForm {
    /// Where the JSON ends and raw tensors begin.
    json_length: Option<usize>,
    coding: Option<ContentCoding>,
    accepted: Option<ContentCoding>,
}

impl TensorForm {
    /// # Errors
    /// `UnsupportedMedia`, `InvalidInput`: the header is named.
    pub(super) fn new(head: &RequestHead<'_>) -> Result<TensorForm> {
        head.check_content_type()?;
        Ok(TensorForm {
            coding: head.content_coding()?,
            json_length: head.json_length()?,
            accepted: head.accepted_coding(),
        })
    }
}

impl Wire for TensorForm {
    type Body = RequestBody;
    type Message = Bytes;
    type Answer = HttpResponse;

    fn read(
        &self,
        server: &ServerState,
        body: RequestBody,
        held: &HeldBytes,
    ) -> impl Future<Output = Result<Bytes>> + Send {
        bodies::read(server, body, self.coding, held)
    }

    fn is_large(body: &Bytes) -> bool {
        body.len() > LARGE_BYTES
    }

    fn decode(&mut self, body: Bytes, signature: &Signature, limits: &Limits) -> Result<Decoded> {
        protocol::decode_infer(body, self.json_length, signature, limits)
    }

    fn encode(&self, reply: &Reply<'_>) -> Result<HttpResponse> {
        let Reply { model, id, signature, options, response } = *reply;
        let EncodedBody { body, header_length } =
            protocol::encode_infer(model, id, signature, options, response)?;
        Ok(bodies::respond(body, self.accepted, |headers| {
            if let Some(length) = header_length {
                headers.insert(CONTENT_TYPE, BINARY);
                headers.insert(JSON_LENGTH, number(length));
            }
        }))
    }
}

/// A header's value that is a number.
fn number(number: usize) -> HeaderValue {
    HeaderValue::from_str(itoa::Buffer::new().format(number))
        .unwrap_or_else(|_| HeaderValue::from_static("0"))
}

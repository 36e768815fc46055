//! Plain values: `POST /models/{name}` and KServe's `:predict`.
//!
//! Reads bodies of JSON, of forms and of raw bytes, hands back plain JSON. Knows nothing of how values become tensors:
//! `protocol::plain` does.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use inferd_protocol::plain::{self as protocol, Part, Plain};
use inferd_protocol::{Decoded, Limits, RequestOptions};
use inferd_types::{Error, ErrorKind, Result, Signature};

use super::bodies;
use crate::admit::body::RequestBody;
use crate::admit::head::RequestHead;
use crate::admit::inflight::HeldBytes;
use crate::answer::compression::ContentCoding;
use crate::answer::response::HttpResponse;
use crate::infer::wire::{Reply, Wire};
use crate::offload::LARGE_BYTES;
use crate::server_state::ServerState;

/// What the headers say of body and answer.
#[derive(Clone)]
pub(super) struct PlainForm {
    /// Whether values stand in `instances` and `predictions`.
    instances: bool,
    /// The content type, without its parameters.
    media: String,
    /// What separates the parts of a form.
    boundary: Option<String>,
    coding: Option<ContentCoding>,
    accepted: Option<ContentCoding>,
    /// Whether the request was one row, written without the dimension that counts rows: so is its answer.
    one_row: bool,
}

/// A body that has come whole.
pub(super) enum PlainBody {
    Whole(Bytes),
    Parts(Vec<Part>),
}

impl PlainForm {
    /// Values by the names of inputs.
    ///
    /// # Errors
    /// `UnsupportedMedia`, `InvalidInput`: the header is named.
    pub(super) fn values(head: &RequestHead<'_>) -> Result<PlainForm> {
        let media = head.media();
        Ok(PlainForm {
            instances: false,
            coding: head.content_coding()?,
            boundary: (media == "multipart/form-data").then(|| head.boundary()).transpose()?,
            media,
            accepted: head.accepted_coding(),
            one_row: false,
        })
    }

    /// Values in KServe's first protocol.
    ///
    /// # Errors
    /// As [`PlainForm::values`].
    pub(super) fn instances(head: &RequestHead<'_>) -> Result<PlainForm> {
        Ok(PlainForm { instances: true, ..PlainForm::values(head)? })
    }

    fn decode_whole(&self, body: &Bytes, signature: &Signature, limits: &Limits) -> Result<Plain> {
        let media = &*self.media;
        let raw = ["image/", "audio/", "video/"].iter().any(|kind| media.starts_with(kind))
            || matches!(media, "application/octet-stream" | "text/plain" | "application/pdf");
        if raw {
            return protocol::decode_element(body, signature);
        }
        // As `curl -d` sends it, and requests without a type.
        if matches!(media, "" | "application/json" | "application/x-www-form-urlencoded")
            || media.ends_with("+json")
        {
            return match self.instances {
                true => protocol::decode_instances(body, signature, limits),
                false => protocol::decode(body, signature, limits),
            };
        }
        Err(Error::new(
            ErrorKind::UnsupportedMedia,
            format!(
                "Content-Type '{media}' is not understood; send application/json, multipart/form-data or an image"
            ),
        ))
    }
}

impl Wire for PlainForm {
    type Body = RequestBody;
    type Message = PlainBody;
    type Answer = HttpResponse;

    async fn read(&self, server: &ServerState, body: RequestBody, held: &HeldBytes) -> Result<PlainBody> {
        let body = bodies::read(server, body, self.coding, held).await?;
        match &self.boundary {
            Some(boundary) => parts(body, boundary.clone()).await.map(PlainBody::Parts),
            None => Ok(PlainBody::Whole(body)),
        }
    }

    fn is_large(body: &PlainBody) -> bool {
        matches!(body, PlainBody::Whole(body) if body.len() > LARGE_BYTES)
    }

    fn decode(&mut self, body: PlainBody, signature: &Signature, limits: &Limits) -> Result<Decoded> {
        let Plain { inputs, one_row } = match body {
            PlainBody::Whole(body) => self.decode_whole(&body, signature, limits)?,
            PlainBody::Parts(parts) => protocol::decode_parts(parts, signature, limits)?,
        };
        self.one_row = one_row;
        let options = RequestOptions::default();
        Ok(Decoded { id: None, inputs, outside: Vec::new(), widened_bytes: 0, options })
    }

    fn encode(&self, reply: &Reply<'_>) -> Result<HttpResponse> {
        let body = match self.instances {
            true => protocol::encode_predictions(reply.signature, reply.response)?,
            false => protocol::encode(reply.signature, reply.response, self.one_row)?,
        };
        Ok(bodies::respond(body, self.accepted, |_| {}))
    }
}

/// The parts of a form that has been read whole.
async fn parts(body: Bytes, boundary: String) -> Result<Vec<Part>> {
    let broken =
        |error: multer::Error| Error::new(ErrorKind::InvalidInput, format!("the form is broken: {error}"));
    let whole = stream::once(async move { Ok::<_, Infallible>(body) });
    let mut form = multer::Multipart::new(whole, boundary);
    let mut parts = Vec::new();
    while let Some(field) = form.next_field().await.map_err(broken)? {
        let name = field.name().unwrap_or_default().to_owned();
        let json = field.content_type().is_some_and(|kind| kind.essence_str() == "application/json");
        parts.push(Part { name, data: field.bytes().await.map_err(broken)?, json });
    }
    Ok(parts)
}

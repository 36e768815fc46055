//! Requests of plain values: `POST /models/{name}` and KServe's `:predict`.
//!
//! Reads bodies of JSON, of forms and of raw bytes, hands back plain JSON. What happens between is that of every other
//! inference. Knows nothing of how values become tensors: `protocol::plain` does.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use hyper::body::Incoming;
use inferd_protocol::plain::{self as wire, Part, Plain};
use inferd_protocol::rest::EncodedBody;
use inferd_protocol::{Limits, RequestOptions};
use inferd_types::{Error, ErrorKind, Result, Signature};

use super::head::Head;
use super::infer::{Form, read_any, respond};
use crate::admit::body::{Delivery, LARGE_BYTES, off_reactor};
use crate::admit::inflight::Held;
use crate::answer::response::HttpResponse;
use crate::infer::{Asked, Target};
use crate::observe::spans::Answered;
use crate::state::Shared;

/// Runs one request.
pub(super) async fn run(
    shared: &Shared,
    target: &Target,
    head: &Head<'_>,
    asked: &mut Asked,
    body: Incoming,
    delivery: Delivery,
    form: Form,
) -> Result<(Answered, HttpResponse)> {
    // Until the answer is encoded: dropped, also when the client goes away.
    let held = Held::none(&shared.inflight);
    let body = read_any(shared, head, body, delivery, &held).await?;
    asked.timeout = head.timeout()?;
    let limits = shared.limits();
    let media = head.media();
    let Plain { inputs, one_row } = if media == "multipart/form-data" {
        wire::decode_parts(parts(body, head.boundary()?).await?, &target.signature, &limits)?
    } else if body.len() <= LARGE_BYTES {
        decode(&body, &media, form, &target.signature, &limits)?
    } else {
        let signature = target.signature.clone();
        off_reactor(move || decode(&body, &media, form, &signature, &limits)).await??
    };
    let mut response = target.run(shared, asked, None, inputs, &RequestOptions::default()).await?;
    let answered = Answered::of(&mut response);
    let bytes: usize = response.outputs.iter().map(|tensor| tensor.data.len()).sum();
    let signature = target.signature.clone();
    let encode = move || match form {
        Form::Instances => wire::encode_predictions(&signature, &response),
        _ => wire::encode(&signature, &response, one_row),
    };
    let body = if bytes <= LARGE_BYTES { encode()? } else { off_reactor(encode).await?? };
    Ok((answered, respond(EncodedBody { body, header_length: None }, head.pack())))
}

fn decode(body: &Bytes, media: &str, form: Form, signature: &Signature, limits: &Limits) -> Result<Plain> {
    let raw = ["image/", "audio/", "video/"].iter().any(|kind| media.starts_with(kind))
        || matches!(media, "application/octet-stream" | "text/plain" | "application/pdf");
    if raw {
        return wire::decode_element(body, signature);
    }
    // As `curl -d` sends it, and what says nothing.
    if matches!(media, "" | "application/json" | "application/x-www-form-urlencoded")
        || media.ends_with("+json")
    {
        return match form {
            Form::Instances => wire::decode_instances(body, signature, limits),
            _ => wire::decode(body, signature, limits),
        };
    }
    Err(Error::new(
        ErrorKind::UnsupportedMedia,
        format!(
            "Content-Type '{media}' is not understood; send application/json, multipart/form-data or an image"
        ),
    ))
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

//! `POST …/infer`: reads, unpacks and decodes the body, runs the model, encodes and packs the answer.
//!
//! Reads one request, hands back one answer. What is large is decoded and encoded off the reactor.
//! Knows nothing of the model but its signature.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use hyper::body::Incoming;
use inferd_protocol::rest::{self as wire, EncodedBody};
use inferd_protocol::{Decoded, RequestOptions, classify};
use inferd_types::{InferResponse, Result};

use super::head::Head;
use super::{number, plain};
use crate::admit::body::{self, Delivery, LARGE_BYTES, off_reactor};
use crate::admit::inflight::Held;
use crate::answer::compression::{PACK_MIN_BYTES, Packing};
use crate::answer::response::{self, HttpResponse};
use crate::infer::{Asked, Target, finished, refused_here};
use crate::observe::spans::Answered;
use crate::route::endpoint::ModelPath;
use crate::state::Shared;

const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// How a request and its answer are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The Open Inference Protocol.
    Tensors,
    /// Plain values.
    Plain,
    /// KServe's first protocol.
    Instances,
}

/// Answers one inference.
pub(super) async fn answer(
    shared: &Shared,
    path: &ModelPath<'_>,
    head: &Head<'_>,
    asked: &mut Asked,
    body: Incoming,
    delivery: Delivery,
    form: Form,
) -> HttpResponse {
    let target = match Target::find(shared, &path.name, path.version.as_deref()) {
        Ok(target) => target,
        Err(error) => {
            body::discard(body);
            refused_here(shared, &error);
            finished(shared, asked, None, Err(&error));
            return response::error(&error);
        }
    };
    asked.keep_headers(&target, head.headers);
    let outcome = match form {
        Form::Tensors => run(shared, &target, head, asked, body, delivery).await,
        // Boxed, so that it does not make every other request's future larger.
        form => Box::pin(plain::run(shared, &target, head, asked, body, delivery, form)).await,
    };
    match outcome {
        Ok((answered, response)) => {
            finished(shared, asked, Some(&target), Ok(&answered));
            response
        }
        Err(error) => {
            finished(shared, asked, Some(&target), Err(&error));
            response::error(&error)
        }
    }
}

async fn run(
    shared: &Shared,
    target: &Target,
    head: &Head<'_>,
    asked: &mut Asked,
    body: Incoming,
    delivery: Delivery,
) -> Result<(Answered, HttpResponse)> {
    // Until the answer is encoded: dropped, also when the client goes away.
    let held = Held::none(&shared.inflight);
    let body = read(shared, head, body, delivery, &held).await?;
    let json_length = head.json_length()?;
    asked.timeout = head.timeout()?;
    let mut decoded = if body.len() <= LARGE_BYTES {
        wire::decode_infer(body, json_length, &target.signature, &shared.limits())?
    } else {
        Box::pin(decode_large(shared, target, body, json_length)).await?
    };
    held.add(decoded.widened_bytes)?;
    let places = match decoded.uses_regions() {
        false => None,
        true => {
            let prepared = shared.regions.prepare(&shared.inflight, &target.signature, &mut decoded);
            Some(Box::pin(prepared).await?)
        }
    };
    let Decoded { id, inputs, options, .. } = decoded;
    let mut response = target.run(shared, asked, id.as_deref(), inputs, &options).await?;
    if !options.classes.is_empty() {
        classify(&options, &target.signature, &mut response)?;
    }
    if let Some(places) = places {
        Box::pin(places.write(&target.signature, &response)).await?;
    }
    let answered = Answered::of(&mut response);
    let bytes: usize = response.outputs.iter().map(|tensor| tensor.data.len()).sum();
    let response = if bytes <= LARGE_BYTES {
        let id = id.as_deref();
        let encoded = wire::encode_infer(target.name(), id, &target.signature, &options, &response)?;
        respond(encoded, head.pack())
    } else {
        Box::pin(encode_large(target, id, options, response, head.pack())).await?
    };
    Ok((answered, response))
}

/// Reads a body whole and unpacks it.
pub(super) async fn read(
    shared: &Shared,
    head: &Head<'_>,
    body: Incoming,
    delivery: Delivery,
    held: &Held,
) -> Result<Bytes> {
    if let Err(error) = head.check_content_type() {
        body::discard(body);
        return Err(error);
    }
    read_any(shared, head, body, delivery, held).await
}

/// The same, whatever the body's type is.
pub(super) async fn read_any(
    shared: &Shared,
    head: &Head<'_>,
    body: Incoming,
    delivery: Delivery,
    held: &Held,
) -> Result<Bytes> {
    let packing = match head.packed() {
        Ok(packing) => packing,
        Err(error) => {
            body::discard(body);
            return Err(error);
        }
    };
    let body =
        body::read(body, delivery, held, shared).await.inspect_err(|error| refused_here(shared, error))?;
    let Some(packing) = packing else { return Ok(body) };
    let max = shared.settings.body_max_bytes;
    let packed = body.len();
    // What a body unpacks to is not known before; a small one may unfold a thousandfold.
    let unpacked = if packed > LARGE_BYTES / 64 {
        Box::pin(off_reactor(move || packing.unpack(&body, max))).await?
    } else {
        packing.unpack(&body, max)
    };
    let unpacked = unpacked.inspect_err(|error| refused_here(shared, error))?;
    held.add(unpacked.len()).inspect_err(|error| refused_here(shared, error))?;
    Ok(unpacked)
}

async fn decode_large(
    shared: &Shared,
    target: &Target,
    body: Bytes,
    json_length: Option<usize>,
) -> Result<Decoded> {
    let limits = shared.limits();
    let signature = target.signature.clone();
    off_reactor(move || wire::decode_infer(body, json_length, &signature, &limits)).await?
}

async fn encode_large(
    target: &Target,
    id: Option<String>,
    options: RequestOptions,
    response: InferResponse,
    packing: Option<Packing>,
) -> Result<HttpResponse> {
    let (model, signature) = (target.model.clone(), target.signature.clone());
    off_reactor(move || {
        let name = (model.name(), model.version());
        let encoded = wire::encode_infer(name, id.as_deref(), &signature, &options, &response)?;
        Ok(respond(encoded, packing))
    })
    .await?
}

pub(super) fn respond(encoded: EncodedBody, packing: Option<Packing>) -> HttpResponse {
    let EncodedBody { body, header_length } = encoded;
    let packing = packing.filter(|_| body.len() >= PACK_MIN_BYTES);
    let body = match packing {
        Some(packing) => packing.pack(&body),
        None => body.into(),
    };
    let mut response = response::json(StatusCode::OK, body);
    let headers = response.headers_mut();
    if let Some(length) = header_length {
        headers.insert(CONTENT_TYPE, BINARY);
        headers.insert(JSON_LENGTH, number(length));
    }
    if let Some(packing) = packing {
        headers.insert(CONTENT_ENCODING, packing.header());
    }
    response
}

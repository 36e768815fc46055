//! `POST …/generate` and `…/generate_stream`: one JSON object in, one out, or an event for each response.
//!
//! Reads one request, hands back one answer or a body of events. An error before the model runs is an ordinary
//! response; afterwards, in a stream, it is an event. Knows nothing of the model but its signature.

use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream;
use http::StatusCode;
use inferd_protocol::rest as protocol;
use inferd_protocol::{Decoded, Limits, error_event};
use inferd_types::{Result, Signature};

use super::bodies;
use super::infer::RestRequest;
use crate::admit::body::RequestBody;
use crate::admit::head::RequestHead;
use crate::admit::inflight::HeldBytes;
use crate::answer::compression::ContentCoding;
use crate::answer::response::{self, HttpResponse};
use crate::infer::stream::InferenceStream;
use crate::infer::wire::{Reply, Wire};
use crate::offload::LARGE_BYTES;
use crate::route::endpoint::ModelPath;
use crate::server_state::ServerState;

/// What the headers say of the body.
#[derive(Clone, Copy)]
struct GenerateForm {
    coding: Option<ContentCoding>,
}

impl GenerateForm {
    fn new(head: &RequestHead<'_>) -> Result<GenerateForm> {
        head.check_content_type()?;
        Ok(GenerateForm { coding: head.content_coding()? })
    }
}

impl Wire for GenerateForm {
    type Body = RequestBody;
    type Message = Bytes;
    type Answer = Vec<u8>;

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
        protocol::decode_generate(&body, signature, limits)
    }

    fn encode(&self, reply: &Reply<'_>) -> Result<Vec<u8>> {
        protocol::encode_generate(reply.model, reply.id, reply.signature, reply.response)
    }
}

/// Answers with the one response.
pub(super) async fn answer(
    request: &RestRequest<'_>,
    path: &ModelPath<'_>,
    body: RequestBody,
) -> HttpResponse {
    let answered = match start(request, path, body).await {
        Ok(stream) => stream.only().await,
        Err(error) => Err(error),
    };
    match answered {
        Ok(body) => response::json(StatusCode::OK, body),
        Err(error) => response::error(&error),
    }
}

/// Answers with an event for each response.
pub(super) async fn stream(
    request: &RestRequest<'_>,
    path: &ModelPath<'_>,
    body: RequestBody,
) -> HttpResponse {
    match start(request, path, body).await {
        Ok(stream) => response::events(events(stream)),
        Err(error) => response::error(&error),
    }
}

async fn start(
    request: &RestRequest<'_>,
    path: &ModelPath<'_>,
    body: RequestBody,
) -> Result<InferenceStream<GenerateForm>> {
    let target = request.find(path)?;
    let inference = request.on(&target);
    let form = GenerateForm::new(request.head).map_err(|error| inference.failed(error))?;
    InferenceStream::start(&inference, form, body).await
}

/// Every response as an event. Dropped before the end, the request is cancelled.
fn events(running: InferenceStream<GenerateForm>) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::unfold(Some(running), |running| async move {
        let mut running = running?;
        match running.next().await? {
            Ok(body) => Some((event(&body), Some(running))),
            Err(error) => Some((event(&error_event(&error)), None)),
        }
    })
}

/// JSON is one line: every control character in it is escaped.
fn event(json: &[u8]) -> Bytes {
    [b"data: ", json, b"\n\n"].concat().into()
}

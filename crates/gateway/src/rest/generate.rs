//! `POST …/generate` and `…/generate_stream`: one JSON object in, one out, or an event for each response.
//!
//! Reads one request, hands back one answer or a body of events. What goes wrong before the model runs is an ordinary
//! error; afterwards, in a stream, an event. Knows nothing of the model but its signature.

use std::sync::Arc;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream;
use http::StatusCode;
use hyper::body::Incoming;
use inferd_protocol::rest as wire;
use inferd_protocol::{Decoded, error_event};
use inferd_types::{Error, ErrorKind, InferResponse, Result};

use super::head::Head;
use super::infer::read;
use crate::admit::body::{self, Delivery, LARGE_BYTES, off_reactor};
use crate::admit::inflight::Held;
use crate::answer::response::{self, HttpResponse};
use crate::infer::{Asked, Running, Target, finished, refused_here};
use crate::observe::spans::Answered;
use crate::route::endpoint::ModelPath;
use crate::state::Shared;

/// Answers one request: with its one response, or with events where `stream` says so.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    path: &ModelPath<'_>,
    head: &Head<'_>,
    asked: &mut Asked,
    body: Incoming,
    delivery: Delivery,
    stream: bool,
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
    let mut generation = match begin(shared, target, head, asked, body, delivery).await {
        Ok(generation) => generation,
        Err((target, error)) => {
            finished(shared, asked, Some(&target), Err(&error));
            return response::error(&error);
        }
    };
    if stream {
        return response::events(generation.events());
    }
    match generation.one().await {
        Ok(body) => {
            generation.end(None);
            response::json(StatusCode::OK, body)
        }
        Err(error) => {
            generation.end(Some(&error));
            response::error(&error)
        }
    }
}

/// Reads the request and hands it to the model.
async fn begin(
    shared: &Arc<Shared>,
    target: Target,
    head: &Head<'_>,
    asked: &mut Asked,
    body: Incoming,
    delivery: Delivery,
) -> Result<Generation, (Target, Error)> {
    let held = Held::none(&shared.inflight);
    let decoded = async {
        let body = read(shared, head, body, delivery, &held).await?;
        asked.timeout = head.timeout()?;
        let limits = shared.limits();
        if body.len() <= LARGE_BYTES {
            return wire::decode_generate(&body, &target.signature, &limits);
        }
        let signature = target.signature.clone();
        off_reactor(move || wire::decode_generate(&body, &signature, &limits)).await?
    };
    let Decoded { id, inputs, options, .. } = match decoded.await {
        Ok(decoded) => decoded,
        Err(error) => return Err((target, error)),
    };
    let running = target.stream(shared, asked, id.as_deref(), inputs, &options);
    let shared = shared.clone();
    Ok(Generation { shared, target, asked: asked.clone(), running, id, last: None, _held: held })
}

/// One request that runs, with what its responses need.
struct Generation {
    shared: Arc<Shared>,
    target: Target,
    asked: Asked,
    running: Running,
    id: Option<String>,
    /// Of the latest response.
    last: Option<Answered>,
    _held: Held,
}

impl Generation {
    /// The next response, encoded.
    async fn next(&mut self) -> Option<Result<Vec<u8>>> {
        let response = match self.running.next(&self.target).await? {
            Ok(mut response) => {
                self.last = Some(Answered::of(&mut response));
                self.encode(response).await
            }
            Err(error) => Err(error),
        };
        Some(response)
    }

    async fn encode(&mut self, response: InferResponse) -> Result<Vec<u8>> {
        let bytes: usize = response.outputs.iter().map(|tensor| tensor.data.len()).sum();
        let (signature, id) = (&self.target.signature, self.id.as_deref());
        if bytes <= LARGE_BYTES {
            return wire::encode_generate(self.target.name(), id, signature, &response);
        }
        let (model, signature, id) = (self.target.model.clone(), signature.clone(), self.id.clone());
        off_reactor(move || {
            let name = (model.name(), model.version());
            wire::encode_generate(name, id.as_deref(), &signature, &response)
        })
        .await?
    }

    /// The only response.
    async fn one(&mut self) -> Result<Vec<u8>> {
        let name = self.target.model.name().to_owned();
        let wrong = |count: &str| {
            let message = format!(
                "model '{name}' gave {count} and generate has exactly one; use /v2/models/{name}/generate_stream"
            );
            Err(Error::new(ErrorKind::InvalidInput, message))
        };
        let Some(first) = self.next().await else { return wrong("no response") };
        let first = first?;
        match self.next().await {
            None => Ok(first),
            Some(Ok(_)) => wrong("more than one response"),
            Some(Err(error)) => Err(error),
        }
    }

    /// Every response as an event. Dropped before the end, the request is cancelled.
    fn events(self) -> impl Stream<Item = Bytes> + Send + 'static {
        stream::unfold(Some(self), |generation| async move {
            let mut generation = generation?;
            match generation.next().await {
                Some(Ok(body)) => Some((event(&body), Some(generation))),
                Some(Err(error)) => {
                    generation.end(Some(&error));
                    Some((event(&error_event(&error)), None))
                }
                None => {
                    generation.end(None);
                    None
                }
            }
        })
    }

    /// Tells metrics, spans and log how it went.
    fn end(&mut self, error: Option<&Error>) {
        let none = Answered { timing: Default::default(), steps: Vec::new() };
        let answered = self.last.take().unwrap_or(none);
        finished(&self.shared, &self.asked, Some(&self.target), error.map_or(Ok(&answered), Err));
    }
}

/// JSON is one line: every control character in it is escaped.
fn event(json: &[u8]) -> Bytes {
    [b"data: ", json, b"\n\n"].concat().into()
}

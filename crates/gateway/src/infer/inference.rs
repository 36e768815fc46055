//! Decodes, runs and encodes one request: the one path of every inference with one answer.
//!
//! Reads a caller, a target and a body in a form of `rest` or `grpc`, hands back the form's answer. What is large is
//! decoded and encoded off the reactor. Knows nothing of which form it is.

use std::sync::Arc;

use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, header};
use inferd_protocol::{Decoded, RequestOptions, classify};
use inferd_types::{Error, ErrorKind, InferRequest, InferResponse, Priority, RequestContext, Result, Tensor};
use smallvec::SmallVec;

use super::record::record;
use super::target::Target;
use super::wire::{Reply, Wire};
use crate::admit::caller::Caller;
use crate::admit::inflight::HeldBytes;
use crate::observe::spans::RequestTiming;
use crate::offload::off_reactor;
use crate::regions::table::OutputRegions;
use crate::server_state::ServerState;

/// Headers with credentials: a model could log them.
const CREDENTIALS: [HeaderName; 3] = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE];

/// One request that was admitted and has found its model.
#[derive(Clone, Copy)]
pub(crate) struct Inference<'a> {
    pub(crate) server: &'a Arc<ServerState>,
    pub(crate) target: &'a Target,
    pub(crate) caller: &'a Caller,
    /// The request's headers, for a model that reads them.
    pub(crate) headers: &'a HeaderMap,
}

impl Inference<'_> {
    /// Runs the request and records its outcome. Dropped before the end, the request is cancelled.
    ///
    /// # Errors
    /// The form's, the model's or the dispatcher's; `DeadlineMissed` when the caller's time is over.
    pub(crate) fn answer<W: Wire>(
        &self,
        wire: W,
        body: W::Body,
    ) -> impl Future<Output = Result<W::Answer>> + Send {
        // Not an `async fn` around another, which would keep its arguments twice.
        self.run(wire, body).map(|outcome| match outcome {
            Ok((timing, answer)) => {
                record(self.server, self.caller, Some(self.target), Ok(&timing));
                Ok(answer)
            }
            Err(error) => Err(self.failed(error)),
        })
    }

    /// Records `error` as the outcome.
    pub(crate) fn failed(&self, error: Error) -> Error {
        record(self.server, self.caller, Some(self.target), Err(&error));
        error
    }

    async fn run<W: Wire>(&self, mut wire: W, body: W::Body) -> Result<(RequestTiming, W::Answer)> {
        // Until the answer is encoded: dropped, also when the client goes away.
        let held = self.held();
        let mut decoded = self.decode(&mut wire, body, &held).await?;
        let regions = match decoded.uses_regions() {
            false => None,
            true => Some(Box::pin(self.read_regions(&mut decoded)).await?),
        };
        // Taken apart in place: a second copy of its parts would make every request's future larger.
        let inputs = std::mem::take(&mut decoded.inputs);
        let mut response = self.submit(decoded.id.as_deref(), inputs, &decoded.options).await?;
        let Decoded { id, options, .. } = &mut decoded;
        if !options.classes.is_empty() {
            classify(options, &self.target.signature, &mut response)?;
        }
        if let Some(regions) = regions {
            Box::pin(regions.write(&self.target.signature, &response)).await?;
        }
        let timing = RequestTiming::of(&mut response);
        let answer = if W::is_large_answer(&response) {
            let (id, options) = (id.take(), std::mem::take(options));
            Box::pin(encode_off_reactor(wire, self.target.clone(), id, options, response)).await?
        } else {
            let (model, signature) = (self.target.name(), &*self.target.signature);
            let (id, options, response) = (id.as_deref(), &*options, &response);
            wire.encode(&Reply { model, id, signature, options, response })?
        };
        Ok((timing, answer))
    }

    /// A guard for the bytes of this request.
    pub(super) fn held(&self) -> HeldBytes {
        HeldBytes::none(&self.server.inflight, self.caller.tenant)
    }

    /// Reads the body and turns it into tensors.
    pub(super) async fn decode<W: Wire>(
        &self,
        wire: &mut W,
        body: W::Body,
        held: &HeldBytes,
    ) -> Result<Decoded> {
        let message = wire.read(self.server, body, held).await?;
        let decoded = if W::is_large(&message) {
            Box::pin(self.decode_off_reactor(wire, message)).await?
        } else {
            wire.decode(message, &self.target.signature, &self.server.limits())?
        };
        held.add(decoded.widened_bytes)?;
        Ok(decoded)
    }

    async fn decode_off_reactor<W: Wire>(&self, wire: &mut W, message: W::Message) -> Result<Decoded> {
        let (signature, limits) = (self.target.signature.clone(), self.server.limits());
        let mut moved = wire.clone();
        let decode = move || {
            let decoded = moved.decode(message, &signature, &limits);
            (moved, decoded)
        };
        let decoded;
        (*wire, decoded) = off_reactor(decode).await?;
        decoded
    }

    /// Reads the inputs that are in shared memory.
    pub(super) async fn read_regions(&self, decoded: &mut Decoded) -> Result<Box<OutputRegions>> {
        let regions = &self.server.regions;
        let signature = &self.target.signature;
        regions.prepare(self.caller.tenant, self.held(), signature, decoded).await.map(Box::new)
    }

    async fn submit(
        &self,
        id: Option<&str>,
        inputs: SmallVec<[Tensor; 2]>,
        options: &RequestOptions,
    ) -> Result<InferResponse> {
        let request = self.request(id, inputs, options);
        let timeout = request.timeout;
        let ticket = self.target.model.submit(request);
        let Some(timeout) = timeout else { return ticket.await };
        // The dispatcher drops what waits too long, with a better message; this ends what is executing. The timer
        // is rounded up to a millisecond, so the dispatcher's error comes first.
        match tokio::time::timeout_at(self.server.clock.instant(timeout).into(), ticket).await {
            Ok(answer) => answer,
            Err(_) => Err(deadline_missed(self.target)),
        }
    }

    /// The request as the dispatcher takes it.
    pub(super) fn request(
        &self,
        id: Option<&str>,
        inputs: SmallVec<[Tensor; 2]>,
        options: &RequestOptions,
    ) -> InferRequest {
        let model = &self.target.model;
        let wait = match (self.caller.timeout, options.timeout) {
            (Some(header), Some(parameter)) => Some(header.min(parameter)),
            (header, parameter) => header.or(parameter),
        };
        let context = model.wants_context().then(|| {
            Arc::new(RequestContext {
                id: id.unwrap_or(self.caller.ids.request_id()).to_owned(),
                headers: readable(self.headers),
                parameters: options.parameters.clone(),
            })
        });
        InferRequest {
            inputs,
            arrived: self.caller.arrived,
            timeout: wait.map(|wait| self.caller.arrived + wait),
            priority: Priority(options.priority.unwrap_or(model.priority_default())),
            tenant: self.caller.tenant,
            sequence: options.sequence.clone(),
            context,
            ..InferRequest::default()
        }
    }
}

/// Encodes a large response on another thread.
pub(super) async fn encode_off_reactor<W: Wire>(
    wire: W,
    target: Target,
    id: Option<String>,
    options: RequestOptions,
    response: InferResponse,
) -> Result<W::Answer> {
    off_reactor(move || {
        let (model, signature) = (target.name(), &*target.signature);
        let (id, options, response) = (id.as_deref(), &options, &response);
        wire.encode(&Reply { model, id, signature, options, response })
    })
    .await?
}

pub(super) fn deadline_missed(target: &Target) -> Error {
    Error::new(
        ErrorKind::DeadlineMissed,
        format!("the answer of model '{}' did not come within the caller's timeout", target.model.name()),
    )
}

/// The headers that a model may read: text without credentials. The last of a name counts.
fn readable(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter(|(name, _)| !CREDENTIALS.contains(name))
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect()
}

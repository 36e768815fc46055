//! One request that may get any number of responses.
//!
//! Reads as [`super::inference`] does, hands out one answer after another. Knows nothing of which form it is.

use std::sync::Arc;

use inferd_dispatcher::Responses;
use inferd_protocol::{Decoded, RequestOptions};
use inferd_types::{Error, ErrorKind, InferResponse, Result};
use tokio::time::{Instant, timeout_at};

use super::inference::{Inference, deadline_missed, encode_off_reactor};
use super::record::record;
use super::target::Target;
use super::wire::{Reply, Wire};
use crate::admit::caller::Caller;
use crate::admit::inflight::HeldBytes;
use crate::observe::spans::RequestTiming;
use crate::regions::table::OutputRegions;
use crate::server_state::ServerState;

/// A request that runs. Dropped before the end, it is cancelled.
pub(crate) struct InferenceStream<W> {
    server: Arc<ServerState>,
    pub(crate) target: Target,
    caller: Caller,
    wire: W,
    pub(crate) id: Option<String>,
    pub(crate) options: RequestOptions,
    /// `None`: it has ended.
    responses: Option<Responses>,
    deadline: Option<Instant>,
    /// Of the latest response.
    last: Option<RequestTiming>,
    _held: HeldBytes,
    _inputs: Option<Box<OutputRegions>>,
}

impl<W: Wire> InferenceStream<W> {
    /// Decodes the request and hands it to the model.
    ///
    /// # Errors
    /// The form's; `InvalidInput` for outputs in shared memory. It is recorded.
    pub(crate) async fn start(
        inference: &Inference<'_>,
        wire: W,
        body: W::Body,
    ) -> Result<InferenceStream<W>> {
        InferenceStream::begin(inference, wire, body).await.map_err(|error| inference.failed(error))
    }

    async fn begin(inference: &Inference<'_>, mut wire: W, body: W::Body) -> Result<InferenceStream<W>> {
        let held = inference.held();
        let mut decoded = inference.decode(&mut wire, body, &held).await?;
        if !decoded.options.placed.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "each response of a stream would overwrite the one before in shared memory; leave \
                 shared_memory_region of the outputs out",
            ));
        }
        let inputs = match decoded.uses_regions() {
            false => None,
            true => Some(inference.read_regions(&mut decoded).await?),
        };
        let Decoded { id, inputs: tensors, options, .. } = decoded;
        let request = inference.request(id.as_deref(), tensors, &options);
        let deadline = request.timeout.map(|timeout| inference.server.clock.instant(timeout).into());
        Ok(InferenceStream {
            server: inference.server.clone(),
            target: inference.target.clone(),
            caller: inference.caller.clone(),
            wire,
            responses: Some(inference.target.model.stream(request)),
            deadline,
            id,
            options,
            last: None,
            _held: held,
            _inputs: inputs,
        })
    }

    /// The next answer; `None` after the last, and after an error. The end is recorded.
    pub(crate) async fn next(&mut self) -> Option<Result<W::Answer>> {
        self.responses.as_ref()?;
        let next = self.advance().await;
        match &next {
            Some(Ok(_)) => {}
            Some(Err(error)) => self.ended(Some(error)),
            None => self.ended(None),
        }
        next
    }

    /// The only answer.
    ///
    /// # Errors
    /// As [`InferenceStream::next`]; `InvalidInput` where there is none or more than one.
    pub(crate) async fn only(mut self) -> Result<W::Answer> {
        let only = match self.advance().await {
            Some(Ok(first)) => match self.advance().await {
                None => Ok(first),
                Some(Ok(_)) => Err(self.not_one("more than one response")),
                Some(Err(error)) => Err(error),
            },
            Some(Err(error)) => Err(error),
            None => Err(self.not_one("no response")),
        };
        self.ended(only.as_ref().err());
        only
    }

    fn not_one(&self, count: &str) -> Error {
        let name = self.target.model.name();
        Error::new(
            ErrorKind::InvalidInput,
            format!(
                "model '{name}' gave {count} and generate has exactly one; use /v2/models/{name}/generate_stream"
            ),
        )
    }

    async fn advance(&mut self) -> Option<Result<W::Answer>> {
        let responses = self.responses.as_mut()?;
        let response = match self.deadline {
            None => responses.next().await,
            Some(deadline) => match timeout_at(deadline, responses.next()).await {
                Ok(response) => response,
                Err(_) => Some(Err(deadline_missed(&self.target))),
            },
        };
        let answer = match response {
            Some(Ok(response)) => Some(self.encode(response).await),
            Some(Err(error)) => Some(Err(error)),
            None => None,
        };
        if !matches!(answer, Some(Ok(_))) {
            self.responses = None;
        }
        answer
    }

    async fn encode(&mut self, mut response: InferResponse) -> Result<W::Answer> {
        self.last = Some(RequestTiming::of(&mut response));
        if W::is_large_answer(&response) {
            let (wire, target) = (self.wire.clone(), self.target.clone());
            return encode_off_reactor(wire, target, self.id.clone(), self.options.clone(), response).await;
        }
        self.wire.encode(&Reply {
            model: self.target.name(),
            id: self.id.as_deref(),
            signature: &self.target.signature,
            options: &self.options,
            response: &response,
        })
    }

    fn ended(&mut self, error: Option<&Error>) {
        let last = self.last.take().unwrap_or_default();
        record(&self.server, &self.caller, Some(&self.target), error.map_or(Ok(&last), Err));
    }
}

//! One inference, whatever it came over: sets its times, runs it, and tells metrics, spans and log how it went.
//!
//! Reads decoded requests from `rest` and `grpc`, hands them to the model. Knows nothing of bytes on the wire.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use inferd_dispatcher::{ModelHandle, Responses};
use inferd_protocol::RequestOptions;
use inferd_types::{
    Error, ErrorKind, InferRequest, InferResponse, Priority, RequestContext, Result, Signature, Tenant,
    Tensor, Time,
};
use smallvec::SmallVec;

use crate::admit::trace::{Context, Parent};
use crate::observe::failures::Of;
use crate::observe::metrics::ModelMetrics;
use crate::observe::spans::{Answered, Finished};
use crate::state::Shared;

/// Headers that say who somebody is: they are for whoever checks them, and models log what they please.
const CREDENTIALS: [HeaderName; 3] = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE];

/// What is known of a request before its body.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// When its first byte was seen.
    pub(crate) arrived: Time,
    /// The id that answer, log and span carry.
    pub(crate) request_id: HeaderValue,
    /// Its place in a trace; `None` where the client sent none and nobody collects spans.
    pub(crate) context: Option<Context>,
    /// How long the caller waits, from headers. The body may say less.
    pub(crate) timeout: Option<Duration>,
    /// On whose behalf it comes.
    pub(crate) tenant: Tenant,
    /// All headers, for a model that reads them.
    pub(crate) headers: Option<Arc<HeaderMap>>,
}

impl Asked {
    pub(crate) fn new(
        shared: &Shared,
        arrived: Time,
        headers: &HeaderMap,
        request_id: Option<&HeaderValue>,
        traceparent: Option<&HeaderValue>,
    ) -> Asked {
        let tenant = shared.tenants.of(headers);
        let parent = traceparent.and_then(Parent::parse);
        let context = (parent.is_some() || shared.spans.is_some()).then(|| shared.ids.context(parent));
        let request_id = shared.ids.request_id(request_id);
        Asked { arrived, request_id, context, timeout: None, tenant, headers: None }
    }

    /// Keeps `headers` where the model of `target` reads them.
    pub(crate) fn keep_headers(&mut self, target: &Target, headers: &HeaderMap) {
        if target.model.wants_context() {
            self.headers = Some(Arc::new(headers.clone()));
        }
    }

    fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }
}

/// A model that a request may run on, with what is looked up once.
pub(crate) struct Target {
    pub(crate) model: ModelHandle,
    pub(crate) signature: Arc<Signature>,
    pub(crate) metrics: Arc<ModelMetrics>,
}

impl Target {
    /// The model `name` in `version`, by default the greatest.
    ///
    /// # Errors
    /// `NotFound`, `NotReady`.
    pub(crate) fn find(shared: &Shared, name: &str, version: Option<&str>) -> Result<Target> {
        let model = shared.registry.find(name, version)?;
        let Some(signature) = model.signature() else {
            return Err(Error::new(
                ErrorKind::NotReady,
                format!("model '{name}' is loading; try again when it is ready"),
            ));
        };
        let metrics = shared.metrics.model(model.name(), model.version());
        Ok(Target { model, signature, metrics })
    }

    pub(crate) fn name(&self) -> (&str, u64) {
        (self.model.name(), self.model.version())
    }

    /// Runs one request and waits for its answer; dropped before, the request is cancelled.
    ///
    /// # Errors
    /// The model's or the dispatcher's; `DeadlineMissed` when the caller's time is over.
    pub(crate) async fn run(
        &self,
        shared: &Shared,
        asked: &Asked,
        id: Option<&str>,
        inputs: SmallVec<[Tensor; 2]>,
        options: &RequestOptions,
    ) -> Result<InferResponse> {
        let request = self.request(asked, id, inputs, options);
        let timeout = request.timeout;
        let ticket = self.model.submit(request);
        let Some(timeout) = timeout else { return ticket.await };
        // The dispatcher drops what waits too long, with a better message; this ends what is executing. The timer
        // is rounded up to a millisecond, so the dispatcher is heard first.
        match tokio::time::timeout_at(shared.clock.instant(timeout).into(), ticket).await {
            Ok(answer) => answer,
            Err(_) => Err(self.too_late()),
        }
    }

    /// Runs one request that may get any number of responses.
    pub(crate) fn stream(
        &self,
        shared: &Shared,
        asked: &Asked,
        id: Option<&str>,
        inputs: SmallVec<[Tensor; 2]>,
        options: &RequestOptions,
    ) -> Running {
        let request = self.request(asked, id, inputs, options);
        let until = request.timeout.map(|timeout| shared.clock.instant(timeout).into());
        Running { responses: Some(self.model.stream(request)), until }
    }

    fn too_late(&self) -> Error {
        Error::new(
            ErrorKind::DeadlineMissed,
            format!("the answer of model '{}' did not come within the caller's timeout", self.model.name()),
        )
    }

    fn request(
        &self,
        asked: &Asked,
        id: Option<&str>,
        inputs: SmallVec<[Tensor; 2]>,
        options: &RequestOptions,
    ) -> InferRequest {
        let wait = match (asked.timeout, options.timeout) {
            (Some(header), Some(parameter)) => Some(header.min(parameter)),
            (header, parameter) => header.or(parameter),
        };
        let timeout = wait.map(|wait| asked.arrived + wait);
        let priority = Priority(options.priority.unwrap_or(self.model.priority_default()));
        let context = asked.headers.as_deref().map(|headers| {
            Arc::new(RequestContext {
                id: id.unwrap_or(asked.request_id()).to_owned(),
                headers: readable(headers),
                parameters: options.parameters.clone(),
            })
        });
        InferRequest {
            inputs,
            arrived: asked.arrived,
            timeout,
            priority,
            tenant: asked.tenant,
            sequence: options.sequence.clone(),
            context,
            ..InferRequest::default()
        }
    }
}

/// The headers that a model may read: those that are text, and no credentials. The last of a name counts.
fn readable(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter(|(name, _)| !CREDENTIALS.contains(name))
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect()
}

/// A request whose responses come one by one; dropped before the end, it is cancelled.
pub(crate) struct Running {
    /// `None`: it has ended.
    responses: Option<Responses>,
    until: Option<tokio::time::Instant>,
}

impl Running {
    /// The next response; `None` after the last, and after an error.
    pub(crate) async fn next(&mut self, target: &Target) -> Option<Result<InferResponse>> {
        let responses = self.responses.as_mut()?;
        let next = match self.until {
            None => responses.next().await,
            Some(until) => match tokio::time::timeout_at(until, responses.next()).await {
                Ok(next) => next,
                Err(_) => Some(Err(target.too_late())),
            },
        };
        if !matches!(next, Some(Ok(_))) {
            self.responses = None;
        }
        next
    }
}

/// Counts, traces and logs one inference that ended. `target` is `None` where no model was found.
pub(crate) fn finished(
    shared: &Shared,
    asked: &Asked,
    target: Option<&Target>,
    outcome: Result<&Answered, &Error>,
) {
    let now = shared.clock.now();
    let metrics = target.map_or_else(|| shared.metrics.unrouted(), |target| &target.metrics);
    metrics.answered(outcome.map(drop).map_err(Error::kind), now.since(asked.arrived));
    if let Some(tenant) = shared.tenants.label(asked.tenant) {
        shared.metrics.tenant_answered(tenant, outcome.map(drop).map_err(Error::kind));
    }
    let (model, version) = target.map_or(("", 0), Target::name);
    if let Err(error) = outcome {
        let trace = asked.context.map(|context| context.trace);
        shared.log.failure(now, error, Of { model, version, request_id: asked.request_id(), trace });
    }
    if let (Some(spans), Some(context)) = (&shared.spans, asked.context) {
        let finished = Finished {
            context,
            model,
            version,
            request_id: asked.request_id(),
            arrived: asked.arrived,
            answered: now,
            outcome,
        };
        spans.finished(&shared.ids, &finished);
    }
}

/// Counts a refusal that the gateway itself decided; those of the dispatcher come through its observer.
pub(crate) fn refused_here(shared: &Shared, error: &Error) {
    match error.kind() {
        ErrorKind::Overloaded => shared.metrics.unrouted().refused("inflight_max_bytes"),
        ErrorKind::TooLarge => shared.metrics.unrouted().refused("body_max_bytes"),
        ErrorKind::NotReady => shared.metrics.unrouted().refused("not_ready"),
        _ => {}
    }
}

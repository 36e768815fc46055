//! Spans for OpenTelemetry: one per inference, with the wait in the queue and the run of the batch inside it.
//!
//! Reads the timing of an answered request, hands finished spans to the batch exporter. They are built after the
//! answer, from times that were taken anyway. Knows nothing of requests in progress.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use inferd_types::{Error, ErrorKind, InferResponse, Result, StepTiming, Time, Timing};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor};

use crate::admit::trace::{Ids, TraceContext};

/// How long stopping waits for the collector.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// The exporter of finished spans.
#[derive(Debug)]
pub(crate) struct Spans {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    /// The wall clock at [`Time::ZERO`].
    epoch: SystemTime,
}

/// One inference that was answered.
#[derive(Debug)]
pub(crate) struct FinishedInference<'a> {
    pub(crate) trace: TraceContext,
    pub(crate) peer: SocketAddr,
    pub(crate) model: &'a str,
    pub(crate) version: u64,
    pub(crate) request_id: &'a str,
    pub(crate) arrived: Time,
    pub(crate) answered: Time,
    /// Where the time went, or why there is no answer.
    pub(crate) outcome: std::result::Result<&'a RequestTiming, &'a Error>,
}

/// Where the time of an answered request went.
#[derive(Debug, Default)]
pub(crate) struct RequestTiming {
    pub(crate) timing: Timing,
    /// Of a pipeline: its steps.
    pub(crate) steps: Vec<StepTiming>,
}

impl RequestTiming {
    /// Takes the times out of `response`.
    pub(crate) fn of(response: &mut InferResponse) -> RequestTiming {
        RequestTiming { timing: response.timing, steps: std::mem::take(&mut response.steps) }
    }
}

impl Spans {
    /// Exports to `endpoint` over gRPC; `epoch` is the time of day at [`Time::ZERO`]. Call it inside the runtime: the
    /// exporter's connection lives there.
    ///
    /// # Errors
    /// `InvalidInput` where the endpoint is no address.
    pub(crate) fn new(endpoint: &str, epoch: SystemTime) -> Result<Spans> {
        let exporter =
            SpanExporter::builder().with_tonic().with_endpoint(endpoint).build().map_err(|error| {
                Error::new(
                    ErrorKind::InvalidInput,
                    format!(
                        "otlp_endpoint '{endpoint}' cannot be used: {error}; give one like http://127.0.0.1:4317"
                    ),
                )
            })?;
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        processor.set_resource(&Resource::builder_empty().with_service_name("inferd").build());
        Ok(Spans {
            processor,
            scope: InstrumentationScope::builder("inferd").with_version(env!("CARGO_PKG_VERSION")).build(),
            epoch,
        })
    }

    /// Hands on the spans of one inference, where its trace is sampled.
    pub(crate) fn finished(&self, ids: &Ids, of: &FinishedInference<'_>) {
        if !of.trace.sampled {
            return;
        }
        let model = [
            KeyValue::new("inferd.model", of.model.to_owned()),
            KeyValue::new("inferd.version", of.version as i64),
        ];
        if let Ok(RequestTiming { steps, .. }) = of.outcome
            && !steps.is_empty()
        {
            self.steps(ids, of, steps, &model);
        } else if let Ok(RequestTiming { timing, .. }) = of.outcome {
            let wait = (of.arrived, timing.started);
            self.child(ids, of, "queue wait", wait, model.to_vec());
            // An answer from the cache, or to no rows, had no run.
            if timing.batch_rows > 0 {
                let mut attributes = model.to_vec();
                attributes.push(KeyValue::new("inferd.batch_rows", i64::from(timing.batch_rows)));
                self.child(ids, of, "batch execution", (timing.started, timing.finished), attributes);
            }
        }
        let mut attributes = model.to_vec();
        attributes.push(KeyValue::new("inferd.request_id", of.request_id.to_owned()));
        attributes.push(KeyValue::new("network.peer.address", of.peer.ip().to_string()));
        attributes.push(KeyValue::new("network.peer.port", i64::from(of.peer.port())));
        let status = match of.outcome {
            Ok(RequestTiming { timing, .. }) => {
                attributes.push(KeyValue::new("inferd.batch_rows", i64::from(timing.batch_rows)));
                Status::Ok
            }
            Err(error) => {
                attributes.push(KeyValue::new("error.type", error.kind().label()));
                Status::error(error.message().to_owned())
            }
        };
        let mut span = self.span(&of.trace, of.trace.span, "infer", (of.arrived, of.answered), attributes);
        span.parent_span_id =
            of.trace.parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.to_be_bytes()));
        span.parent_span_is_remote = of.trace.parent.is_some();
        span.span_kind = SpanKind::Server;
        span.status = status;
        self.processor.on_end(span);
    }

    /// A span for each step, from when it was entered, with its wait and its run inside it.
    fn steps(&self, ids: &Ids, of: &FinishedInference<'_>, steps: &[StepTiming], model: &[KeyValue]) {
        for StepTiming { step, entered, timing } in steps {
            let mut attributes = model.to_vec();
            attributes.push(KeyValue::new("inferd.step", step.to_string()));
            attributes.push(KeyValue::new("inferd.batch_rows", i64::from(timing.batch_rows)));
            let whole = self.child(ids, of, "step", (*entered, timing.finished), attributes.clone());
            let within = |name, when| self.span(&of.trace, ids.number(), name, when, attributes.clone());
            for mut span in [
                within("queue wait", (*entered, timing.started)),
                within("batch execution", (timing.started, timing.finished)),
            ] {
                span.parent_span_id = whole;
                self.processor.on_end(span);
            }
        }
    }

    fn child(
        &self,
        ids: &Ids,
        of: &FinishedInference<'_>,
        name: &'static str,
        when: (Time, Time),
        attributes: Vec<KeyValue>,
    ) -> SpanId {
        let mut span = self.span(&of.trace, ids.number(), name, when, attributes);
        span.parent_span_id = SpanId::from_bytes(of.trace.span.to_be_bytes());
        let id = span.span_context.span_id();
        self.processor.on_end(span);
        id
    }

    fn span(
        &self,
        of: &TraceContext,
        id: u64,
        name: &'static str,
        (start, end): (Time, Time),
        attributes: Vec<KeyValue>,
    ) -> SpanData {
        let at = |time: Time| self.epoch + time.since(Time::ZERO);
        SpanData {
            span_context: SpanContext::new(
                TraceId::from_bytes(of.trace.to_be_bytes()),
                SpanId::from_bytes(id.to_be_bytes()),
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: at(start),
            end_time: at(end.max(start)),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }

    /// Sends the remaining spans. Ends within [`FLUSH_MAX`], even where no collector answers.
    pub(crate) async fn flush(self: Arc<Self>) {
        // The exporter blocks the calling thread on the network: not on the reactor.
        let flushed =
            tokio::task::spawn_blocking(move || self.processor.shutdown_with_timeout(FLUSH_MAX)).await;
        // A gateway is closed after it was drained: the second time there is nothing left to send.
        if !matches!(flushed, Ok(Ok(()) | Err(OTelSdkError::AlreadyShutdown))) {
            tracing::warn!("the last spans did not reach the collector; check otlp_endpoint");
        }
    }
}

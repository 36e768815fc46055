//! Spans for OpenTelemetry: one per inference, with the wait in the queue and the run of the batch inside it.
//!
//! Reads the timing of an answered request, hands finished spans to the batch exporter. They are built after the
//! answer, from times that were taken anyway. Knows nothing of requests that are under way.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use inferd_types::{Error, ErrorKind, Result, Time, Timing};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor};

use crate::trace::{Context, Ids};

/// How long stopping waits for the collector.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// Where finished spans go.
#[derive(Debug)]
pub(crate) struct Spans {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    /// The wall clock at [`Time::ZERO`].
    epoch: SystemTime,
}

/// One inference that was answered.
#[derive(Debug)]
pub(crate) struct Finished<'a> {
    pub(crate) context: Context,
    pub(crate) model: &'a str,
    pub(crate) version: u64,
    pub(crate) request_id: &'a str,
    pub(crate) arrived: Time,
    pub(crate) answered: Time,
    /// Where the time went, or why there is no answer.
    pub(crate) outcome: std::result::Result<Timing, &'a Error>,
}

impl Spans {
    /// Exports to `endpoint` over gRPC; `epoch` is the time of day at [`Time::ZERO`]. Call it inside the runtime: the exporter's connection lives there.
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
    pub(crate) fn finished(&self, ids: &Ids, of: &Finished<'_>) {
        if !of.context.sampled {
            return;
        }
        let model = [
            KeyValue::new("inferd.model", of.model.to_owned()),
            KeyValue::new("inferd.version", of.version as i64),
        ];
        if let Ok(timing) = of.outcome {
            let wait = (of.arrived, timing.started);
            self.child(ids, of, "queue wait", wait, model.to_vec());
            let mut attributes = model.to_vec();
            attributes.push(KeyValue::new("inferd.batch_rows", i64::from(timing.batch_rows)));
            self.child(ids, of, "batch execution", (timing.started, timing.finished), attributes);
        }
        let mut attributes = model.to_vec();
        attributes.push(KeyValue::new("inferd.request_id", of.request_id.to_owned()));
        let status = match of.outcome {
            Ok(timing) => {
                attributes.push(KeyValue::new("inferd.batch_rows", i64::from(timing.batch_rows)));
                Status::Ok
            }
            Err(error) => {
                attributes.push(KeyValue::new("error.type", error.kind().label()));
                Status::error(error.message().to_owned())
            }
        };
        let mut span =
            self.span(&of.context, of.context.span, "infer", (of.arrived, of.answered), attributes);
        span.parent_span_id =
            of.context.parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.to_be_bytes()));
        span.parent_span_is_remote = of.context.parent.is_some();
        span.span_kind = SpanKind::Server;
        span.status = status;
        self.processor.on_end(span);
    }

    fn child(
        &self,
        ids: &Ids,
        of: &Finished<'_>,
        name: &'static str,
        when: (Time, Time),
        attributes: Vec<KeyValue>,
    ) {
        let mut span = self.span(&of.context, ids.number(), name, when, attributes);
        span.parent_span_id = SpanId::from_bytes(of.context.span.to_be_bytes());
        self.processor.on_end(span);
    }

    fn span(
        &self,
        of: &Context,
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

    /// Sends what is left. Ends even where no collector answers.
    pub(crate) async fn flush(self: Arc<Self>) {
        // The exporter waits for the network on the thread that asks: not on the reactor.
        let flushed =
            tokio::task::spawn_blocking(move || self.processor.shutdown_with_timeout(FLUSH_MAX)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!("the last spans did not reach the collector; check otlp_endpoint");
        }
    }
}

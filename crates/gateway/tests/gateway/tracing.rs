//! Spans reach a collector: one that the test runs itself.

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use crate::client::{INFER, post, row};
use crate::server::{Server, settings};

struct Collector(mpsc::UnboundedSender<Span>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for span in request.into_inner().resource_spans.into_iter().flat_map(|of| of.scope_spans) {
            span.spans.into_iter().for_each(|span| self.0.send(span).unwrap());
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inference_is_three_spans_in_the_clients_trace() {
    let (send, mut spans) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let collecting = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper_util::service::TowerToHyperService::new(TraceServiceServer::new(Collector(
                send.clone(),
            )));
            let serving = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
            tokio::spawn(serving);
        }
    });
    let mut with_collector = settings();
    with_collector.otlp_endpoint = Some(endpoint);
    let server = Server::with(with_collector).await;
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = post(server.data, INFER, &[("traceparent", traceparent)], &row(1.0, 2.0)).await;
    assert_eq!(answer.status, 200);
    let unsampled = traceparent.replace("-01", "-00");
    assert_eq!(post(server.data, INFER, &[("traceparent", &unsampled)], &row(1.0, 2.0)).await.status, 200);
    server.stop().await;
    collecting.abort();

    let mut got = Vec::new();
    while let Ok(span) = spans.try_recv() {
        got.push(span);
    }
    got.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<&str> = got.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["batch execution", "infer", "queue wait"]);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert!(got.iter().all(|span| hex(&span.trace_id) == traceparent[3..35]));
    assert_eq!(hex(&got[1].parent_span_id), traceparent[36..52]);
    assert_eq!(hex(&got[1].span_id), answer.header("traceparent").unwrap()[36..52]);
    assert!([&got[0], &got[2]].iter().all(|child| child.parent_span_id == got[1].span_id));
    let keys: Vec<&str> = got[0].attributes.iter().map(|attribute| attribute.key.as_str()).collect();
    assert_eq!(keys, ["inferd.model", "inferd.version", "inferd.batch_rows"]);
    assert!(got[2].start_time_unix_nano <= got[0].start_time_unix_nano);
    assert!(got.iter().all(|span| span.start_time_unix_nano <= span.end_time_unix_nano));
}

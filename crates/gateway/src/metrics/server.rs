//! The port that Prometheus reads: `GET /metrics`, and nothing that changes anything.
//!
//! Reads [`Metrics`], hands out text on loopback. Knows nothing of the data port.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::metrics::Metrics;
use crate::shared::Phase;

const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Scrapers at once; more wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 16;

/// Serves scrapes until the server is closed: a draining server is still watched.
pub(crate) async fn serve(listener: TcpListener, metrics: Arc<Metrics>, mut phase: watch::Receiver<Phase>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = async {
                let place = places.clone().acquire_owned().await;
                listener.accept().await.map(|(stream, _)| (stream, place))
            } => accepted,
            _ = phase.wait_for(|phase| *phase == Phase::Closed) => return,
        };
        let Ok((stream, place)) = accepted else {
            crate::listener::after_accept_error().await;
            continue;
        };
        let metrics = metrics.clone();
        let mut phase = phase.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(metrics.clone(), request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(60))
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ended = connection => {}
                _ = phase.wait_for(|phase| *phase == Phase::Closed) => {}
            }
            drop(place);
        });
    }
}

async fn answer(
    metrics: Arc<Metrics>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    if request.uri().path() != "/metrics" {
        *response.status_mut() = StatusCode::NOT_FOUND;
        *response.body_mut() = Full::from("metrics are at /metrics\n");
    } else if matches!(*request.method(), Method::GET | Method::HEAD) {
        *response.body_mut() = Full::from(metrics.encode());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT));
    } else {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    Ok(response)
}

//! The port that Prometheus and `inferd explain` read: `GET /metrics` and `GET /explain[/MODEL]`. It changes nothing.
//!
//! Reads [`Metrics`] and the registry, hands out text on loopback. Knows nothing of the data port.

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
use inferd_dispatcher::Registry;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::metrics::Metrics;
use crate::accept::socket::after_accept_error;
use crate::lifecycle::{Lifecycle, reached};

const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Concurrent scrapers; more wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 16;

/// Serves scrapes until the server is closed: a draining server is still watched.
pub(crate) async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    registry: Registry,
    mut lifecycle: watch::Receiver<Lifecycle>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = async {
                let permit = permits.clone().acquire_owned().await;
                listener.accept().await.map(|(stream, _)| (stream, permit))
            } => accepted,
            () = reached(&mut lifecycle, Lifecycle::Closed) => return,
        };
        let Ok((stream, permit)) = accepted else {
            after_accept_error().await;
            continue;
        };
        let (metrics, registry) = (metrics.clone(), registry.clone());
        let mut lifecycle = lifecycle.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(metrics.clone(), registry.clone(), request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(60))
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ended = connection => {}
                () = reached(&mut lifecycle, Lifecycle::Closed) => {}
            }
            drop(permit);
        });
    }
}

async fn answer(
    metrics: Arc<Metrics>,
    registry: Registry,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    let (kind, body) = match request.uri().path() {
        _ if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Ok(response);
        }
        "/metrics" => (TEXT, metrics.encode()),
        "/explain" => (JSON, registry.status(None).await.to_string()),
        path => match path.strip_prefix("/explain/") {
            Some(name) => (JSON, registry.status(Some(name)).await.to_string()),
            None => {
                *response.status_mut() = StatusCode::NOT_FOUND;
                (PLAIN, "metrics are at /metrics, what each model does and why at /explain\n".to_owned())
            }
        },
    };
    *response.body_mut() = Full::from(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

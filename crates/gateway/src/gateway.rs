//! Starts, watches over and stops the gateway.
//!
//! Reads settings, hands connections to `accept`. Knows nothing of requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use inferd_dispatcher::{Drained, Registry};
use inferd_types::settings::GatewaySettings;
use inferd_types::{Clock, Error, ErrorKind, Result, Time};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::accept::listener;
use crate::accept::socket::{self, LOOPBACK};
use crate::admit::caller::Admission;
use crate::admit::inflight::Inflight;
use crate::grpc::reflection::Reflection;
use crate::lifecycle::Lifecycle;
use crate::observe::failures::FailureLog;
use crate::observe::metrics::Metrics;
use crate::observe::scrape;
use crate::observe::spans::Spans;
use crate::regions::table::Regions;
use crate::server_state::ServerState;

/// How long connections have to write their answers after the time for draining is over.
const FINAL_WRITES_MAX: Duration = Duration::from_millis(500);

/// A running gateway.
pub struct Gateway {
    server: Arc<ServerState>,
    data_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    /// One permit for each connection that may be open; all are back when none is.
    permits: Arc<Semaphore>,
    permits_max: u32,
    accepting: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

/// Binds both ports and serves the models of `registry` from now on. It is not ready until [`Gateway::set_ready`].
///
/// `metrics` is the value that the registry reports to as well. Call it inside the runtime that shall serve.
///
/// # Errors
/// `InvalidInput` where a port or the collector's address can't be used.
pub async fn serve(
    settings: GatewaySettings,
    registry: Registry,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> Result<Gateway> {
    let data = socket::bind(&settings.host, settings.port, "port")?;
    let data_addr = address(&data)?;
    let scraped = settings
        .metrics_port
        .map(|port| socket::bind(&LOOPBACK.to_string(), port, "metrics_port"))
        .transpose()?;
    let metrics_addr = scraped.as_ref().map(address).transpose()?;
    let epoch = epoch(clock);
    let spans = settings.otlp_endpoint.as_deref().map(|endpoint| Spans::new(endpoint, epoch)).transpose()?;
    let admission = Admission::new(&settings)?;
    let inflight = Inflight::new(settings.inflight_max_bytes, admission.tenants.count_max());
    metrics.watch_inflight(inflight.clone());
    // What acquire_many can count; no process has as many descriptors.
    let permits_max = u32::try_from(settings.connections_max).unwrap_or(u32::MAX).min(u32::MAX >> 3);
    let server = Arc::new(ServerState {
        registry,
        clock,
        metrics: metrics.clone(),
        admission,
        inflight,
        regions: Regions::new(settings.shared_memory),
        failures: FailureLog::default(),
        spans: spans.map(Arc::new),
        reflection: Reflection::new()?,
        epoch_ms: epoch
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        lifecycle: watch::Sender::new(Lifecycle::Serving),
        ready: AtomicBool::new(false),
        settings,
    });
    let permits = Arc::new(Semaphore::new(permits_max as usize));
    if let Some(scraped) = scraped {
        let lifecycle = server.lifecycle.subscribe();
        tokio::spawn(scrape::serve(scraped, metrics, server.registry.clone(), lifecycle));
    }
    let accepting = tokio::spawn(listener::accept(data, server.clone(), permits.clone()));
    let accepting = tokio::sync::Mutex::new(Some(accepting));
    Ok(Gateway { server, data_addr, metrics_addr, permits, permits_max, accepting })
}

impl Gateway {
    /// The address of HTTP/1.1, HTTP/2 and gRPC.
    pub fn data_addr(&self) -> SocketAddr {
        self.data_addr
    }

    /// The address that Prometheus scrapes; `None` where `metrics_port` is not set.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// Says whether the models that the server was started with are loaded. A ready server stays so until it drains,
    /// whatever is loaded or unloaded later.
    pub fn set_ready(&self, ready: bool) {
        self.server.ready.store(ready, Relaxed);
    }

    /// The present answer of `GET /v2/health/ready`.
    pub fn is_ready(&self) -> bool {
        self.server.is_ready()
    }

    /// Stops the gateway: it is no longer ready, refuses new requests and answers the admitted ones. Then it accepts
    /// no connection, closes the open ones `within` this time, ends the workers and sends the last spans.
    pub async fn drain(&self, within: Duration) -> Drained {
        let began = self.server.clock.now();
        self.advance(Lifecycle::Draining);
        let drained = self.server.registry.drain(within).await;
        self.advance(Lifecycle::Closing);
        self.stop_accepting().await;
        // The dispatcher has answered; what remains is to write the answers.
        let left = within.saturating_sub(self.server.clock.now().since(began)).max(FINAL_WRITES_MAX);
        let _ = timeout(left, self.permits.acquire_many(self.permits_max)).await;
        self.close().await;
        drained
    }

    /// Closes every connection at once. Draining ends with it.
    pub async fn close(&self) {
        self.advance(Lifecycle::Closed);
        self.stop_accepting().await;
        let _ = timeout(FINAL_WRITES_MAX, self.permits.acquire_many(self.permits_max)).await;
        if let Some(spans) = self.server.spans.clone() {
            spans.flush().await;
        }
    }

    async fn stop_accepting(&self) {
        if let Some(accepting) = self.accepting.lock().await.take() {
            // It ends by itself, and with it the listener; a failure means that it has ended.
            let _ = accepting.await;
        }
    }

    fn advance(&self, to: Lifecycle) {
        self.server.lifecycle.send_if_modified(|stage| {
            let later = *stage < to;
            *stage = to.max(*stage);
            later
        });
    }
}

fn address(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(|error| {
        Error::new(ErrorKind::Internal, "the address of a listener cannot be read")
            .with_detail(error.to_string())
    })
}

/// The time of day when `clock` started.
fn epoch(clock: Clock) -> SystemTime {
    #[expect(
        clippy::disallowed_methods,
        reason = "spans and statistics carry the time of day; it is read once"
    )]
    let now = SystemTime::now();
    now - clock.now().since(Time::ZERO)
}

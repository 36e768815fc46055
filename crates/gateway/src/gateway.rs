//! Starts, watches over and stops the gateway.
//!
//! Reads settings, hands connections to `listener`. Knows nothing of requests.

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

use crate::accept::listener::{self, LOOPBACK};
use crate::admit::inflight::Inflight;
use crate::admit::tenants::Tenants;
use crate::admit::trace::Ids;
use crate::grpc::Reflection;
use crate::observe::failures::FailureLog;
use crate::observe::metrics::Metrics;
use crate::observe::scrape;
use crate::observe::spans::Spans;
use crate::regions::table::Regions;
use crate::state::{Phase, Shared};

/// How long connections have to write their last answers when the time for draining is over already.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A running gateway.
pub struct Gateway {
    shared: Arc<Shared>,
    data_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    /// One permit for each connection that may be open; all are back when none is.
    places: Arc<Semaphore>,
    places_max: u32,
    accepting: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

/// Binds both ports and serves the models of `registry` from now on; not ready until told so.
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
    let data = listener::bind(&settings.host, settings.port, "port")?;
    let data_addr = address(&data)?;
    let scraped = settings
        .metrics_port
        .map(|port| listener::bind(&LOOPBACK.to_string(), port, "metrics_port"))
        .transpose()?;
    let metrics_addr = scraped.as_ref().map(address).transpose()?;
    let epoch = epoch(clock);
    let spans = settings.otlp_endpoint.as_deref().map(|endpoint| Spans::new(endpoint, epoch)).transpose()?;
    let inflight = Inflight::new(settings.inflight_max_bytes);
    metrics.watch_inflight(inflight.clone());
    // What acquire_many can count; nobody has as many descriptors.
    let places_max = u32::try_from(settings.connections_max).unwrap_or(u32::MAX).min(u32::MAX >> 3);
    let shared = Arc::new(Shared {
        registry,
        clock,
        metrics: metrics.clone(),
        inflight,
        regions: Regions::new(settings.shared_memory),
        ids: Ids::new(),
        log: FailureLog::default(),
        spans: spans.map(Arc::new),
        tenants: Tenants::new(settings.tenant_header.as_deref(), &settings.tenants)?,
        reflection: Reflection::new()?,
        epoch_ms: epoch
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        phase: watch::Sender::new(Phase::Serving),
        ready: AtomicBool::new(false),
        settings,
    });
    let places = Arc::new(Semaphore::new(places_max as usize));
    if let Some(scraped) = scraped {
        tokio::spawn(scrape::serve(scraped, metrics, shared.registry.clone(), shared.phase.subscribe()));
    }
    let accepting = tokio::spawn(listener::accept(data, shared.clone(), places.clone()));
    let accepting = tokio::sync::Mutex::new(Some(accepting));
    Ok(Gateway { shared, data_addr, metrics_addr, places, places_max, accepting })
}

impl Gateway {
    /// Where HTTP/1.1, HTTP/2 and gRPC are spoken.
    pub fn data_addr(&self) -> SocketAddr {
        self.data_addr
    }

    /// Where Prometheus reads; `None` where `metrics_port` is not set.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// Says whether everything that is wanted is loaded. The server is ready when this is so and every model is.
    pub fn set_ready(&self, ready: bool) {
        self.shared.ready.store(ready, Relaxed);
    }

    /// What `GET /v2/health/ready` says now.
    pub fn is_ready(&self) -> bool {
        self.shared.is_ready()
    }

    /// Stops: not ready from now on, refuses what comes, answers what was admitted, takes no new connection after that,
    /// closes the rest `within` this time, ends the workers, sends the last spans.
    pub async fn drain(&self, within: Duration) -> Drained {
        let began = self.shared.clock.now();
        self.move_on(Phase::Draining);
        let drained = self.shared.registry.drain(within).await;
        self.move_on(Phase::Ending);
        if let Some(accepting) = self.accepting.lock().await.take() {
            // It ends by itself, and with it the listener; a failure means that it has ended.
            let _ = accepting.await;
        }
        // The dispatcher has answered; what remains is to write the answers.
        let left = within.saturating_sub(self.shared.clock.now().since(began)).max(LAST_WORDS);
        let _ = timeout(left, self.places.acquire_many(self.places_max)).await;
        self.close().await;
        drained
    }

    /// Closes every connection at once. Draining ends with it.
    pub async fn close(&self) {
        self.move_on(Phase::Closed);
        if let Some(accepting) = self.accepting.lock().await.take() {
            let _ = accepting.await;
        }
        let _ = timeout(LAST_WORDS, self.places.acquire_many(self.places_max)).await;
        if let Some(spans) = self.shared.spans.clone() {
            spans.flush().await;
        }
    }

    /// Phases only ever move on.
    fn move_on(&self, to: Phase) {
        self.shared.phase.send_if_modified(|phase| {
            let later = *phase < to;
            *phase = to.max(*phase);
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

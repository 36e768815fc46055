//! A gateway with a dispatcher behind it, on free ports.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use inferd_dispatcher::{Moderation, Registry, Spawner, WorkerProcesses};
use inferd_gateway::{Gateway, Metrics, serve};
use inferd_types::Clock;
use inferd_types::settings::GatewaySettings;

use crate::client;
use crate::model::{self, Gate};

pub(crate) struct Server {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) registry: Registry,
    pub(crate) gate: Gate,
    pub(crate) data: SocketAddr,
    metrics: SocketAddr,
    _directory: tempfile::TempDir,
}

pub(crate) use inferd_testkit::gateway_settings as settings;

impl Server {
    /// Without a model.
    pub(crate) async fn empty(settings: GatewaySettings) -> Server {
        let clock = Clock::start();
        let metrics = Metrics::new();
        let runtime = tokio::runtime::Handle::current();
        let registry = Registry::new(
            clock,
            runtime,
            Arc::new(WorkerProcesses(Spawner::new().unwrap())),
            Moderation::new(clock, 1),
            metrics.clone(),
        );
        let gateway = Arc::new(serve(settings, registry.clone(), metrics, clock).await.unwrap());
        let directory = tempfile::tempdir().unwrap();
        Server {
            registry,
            gate: Gate::at(directory.path().join("gate")),
            data: gateway.data_addr(),
            metrics: gateway.metrics_addr().unwrap(),
            gateway,
            _directory: directory,
        }
    }

    /// With the model `double` in version 3, ready.
    pub(crate) async fn start() -> Server {
        Server::with(settings()).await
    }

    pub(crate) async fn with(settings: GatewaySettings) -> Server {
        let server = Server::empty(settings).await;
        server.registry.load(model::settings("double", 3, &server.gate, false)).await.unwrap();
        server.gateway.set_ready(true);
        server
    }

    pub(crate) async fn metrics_text(&self) -> String {
        let answer = client::get(self.metrics, "/metrics").await;
        assert_eq!(answer.status, 200);
        answer.text()
    }

    /// The value of one series, as written in the text.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.metrics_text().await;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    pub(crate) async fn wait_for_metric(&self, series: &str, wanted: f64) {
        until(series, || async { self.metric(series).await == Some(wanted) }).await;
    }

    /// Drains, and sees that nothing is left.
    pub(crate) async fn stop(self) {
        self.wait_for_metric("inferd_inflight_bytes", 0.0).await;
        let drained = self.gateway.drain(Duration::from_secs(10)).await;
        assert_eq!(drained.unanswered, 0);
        self.registry.shutdown().await;
    }
}

/// Looks until `condition` holds; fails after ten seconds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let looking = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(10), looking).await.is_err() {
        panic!("waited too long for: {what}");
    }
}

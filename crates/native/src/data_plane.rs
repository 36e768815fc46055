//! Gateway, dispatchers and workers of this process, as Python drives them.
//!
//! Reads settings as JSON, hands back addresses, signatures and states as JSON. Every call that may wait does so
//! without the GIL. Knows nothing of what the settings mean.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use inferd_dispatcher::{ModelHandle, Moderation, Registry, Spawner, WorkerProcesses};
use inferd_gateway::{Gateway, Metrics};
use inferd_types::settings::{GatewaySettings, ModelSettings, PipelineSettings};
use inferd_types::{Clock, Error, ErrorKind, Result};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::Deserialize;
use serde_json::json;
use tokio::runtime::Handle;

use crate::errors::{raise, raise_unreadable};
use crate::events;
use crate::logging::{self, LogSettings};
use crate::runtime::{Threads, wait_on};

/// How long the end of a data plane waits for a stream to take the last lines of the log.
const LOG_END_MAX: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    gateway: GatewaySettings,
    log: LogSettings,
}

/// What runs, and how to reach it from any thread.
#[derive(Clone)]
struct Running {
    registry: Registry,
    gateway: Arc<Gateway>,
    spawner: Spawner,
    handle: Handle,
}

/// The gateway, the schedulers and the workers: everything a request meets.
#[pyclass(frozen, module = "inferd._native")]
pub(crate) struct DataPlane {
    running: Running,
    /// Taken by `close`. Apart from `running`, so that a call which waits holds no lock.
    threads: Mutex<Option<Threads>>,
}

#[pymethods]
impl DataPlane {
    /// Start threads, bind the ports. Not ready until told so.
    #[new]
    fn new(py: Python<'_>, settings: &str) -> PyResult<Self> {
        let settings: Settings = serde_json::from_str(settings)
            .map_err(|error| raise_unreadable("the server's settings", &error))?;
        py.detach(|| start(settings)).map_err(raise)
    }

    /// ``host:port`` by purpose: ``data`` and, where there is one, ``metrics``.
    fn addresses(&self) -> BTreeMap<&'static str, String> {
        let gateway = &self.running.gateway;
        let metrics = gateway.metrics_addr().map(|address| ("metrics", address.to_string()));
        [("data", gateway.data_addr().to_string())].into_iter().chain(metrics).collect()
    }

    /// Close the ports for good. Models can still be loaded; nobody can ask them.
    fn stop_listening(&self, py: Python<'_>) -> PyResult<()> {
        let gateway = self.running.gateway.clone();
        self.wait(py, async move { gateway.close().await })
    }

    /// Load one model version; returns when every replica is warm.
    fn load(&self, py: Python<'_>, settings: &str) -> PyResult<String> {
        let settings: ModelSettings = serde_json::from_str(settings)
            .map_err(|error| raise_unreadable("the model's settings", &error))?;
        let registry = self.running.registry.clone();
        let model = self.wait(py, async move { registry.load(settings).await })?.map_err(raise)?;
        Ok(loaded(&model))
    }

    /// Serve a pipeline over models that are loaded.
    fn load_pipeline(&self, py: Python<'_>, settings: &str) -> PyResult<String> {
        let settings: PipelineSettings = serde_json::from_str(settings)
            .map_err(|error| raise_unreadable("the pipeline's settings", &error))?;
        let registry = self.running.registry.clone();
        let pipeline = self.wait(py, async move { registry.load_pipeline(settings) })?.map_err(raise)?;
        Ok(loaded(&pipeline))
    }

    /// Drain one model version and forget it.
    fn unload(&self, py: Python<'_>, name: String, version: u64) -> PyResult<()> {
        let registry = self.running.registry.clone();
        self.wait(py, async move { registry.unload(&name, version).await })?.map_err(raise)
    }

    /// What the readiness of the whole server says.
    fn set_ready(&self, ready: bool) {
        self.running.gateway.set_ready(ready);
    }

    /// Wait until something happened to a model, at most ``timeout_s``; events as JSON, or None after the end.
    fn events(&self, py: Python<'_>, timeout_s: f64) -> PyResult<Option<String>> {
        let within = seconds(timeout_s)?;
        let events = self.running.registry.events().clone();
        Ok(py.detach(|| events.wait(within)).map(|received| events::to_json(&received)))
    }

    /// Models, states, replicas, profiles and what the schedulers know, as JSON.
    fn status(&self, py: Python<'_>) -> PyResult<String> {
        let registry = self.running.registry.clone();
        self.wait(py, async move { registry.status(None).await.to_string() })
    }

    /// Admit nothing more and answer what was admitted; returns how many were not answered in time.
    fn drain(&self, py: Python<'_>, within_s: f64) -> PyResult<usize> {
        let within = seconds(within_s)?;
        let gateway = self.running.gateway.clone();
        self.wait(py, async move { gateway.drain(within).await.unanswered })
    }

    /// End every worker and thread, now. Does nothing the second time.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.end());
    }
}

impl DataPlane {
    fn wait<T: Send + 'static>(
        &self,
        py: Python<'_>,
        future: impl Future<Output = T> + Send + 'static,
    ) -> PyResult<T> {
        py.detach(|| wait_on(&self.running.handle, future)).map_err(raise)
    }

    fn end(&self) {
        let Some(threads) = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let running = self.running.clone();
        // It can't fail: the threads end below, after it.
        let _ = threads.wait(async move {
            running.gateway.close().await;
            running.registry.shutdown().await;
            running.spawner.close().await;
        });
        self.running.registry.events().close();
        logging::flush(LOG_END_MAX);
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.end();
    }
}

/// What was loaded, for Python.
fn loaded(model: &ModelHandle) -> String {
    let (signature, facts) = (model.signature(), model.facts());
    json!({ "signature": signature.as_deref(), "facts": facts, "generation": model.generation() }).to_string()
}

fn seconds(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn start(settings: Settings) -> Result<DataPlane> {
    let drops = logging::start(&settings.log)?;
    let clock = Clock::start();
    let cores = available_parallelism().map_or(1, usize::from);
    let moderation = Moderation::new(clock, cores);
    let threads = Threads::start(settings.gateway.gateway_threads, moderation.clone())?;
    let spawner = Spawner::new().map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            format!("the thread that starts workers could not be started: {error}"),
        )
    })?;
    let metrics = Metrics::new();
    metrics.watch_log(drops);
    let handle = threads.handle().clone();
    let launchers = Arc::new(WorkerProcesses(spawner.clone()));
    let registry = Registry::new(clock, handle.clone(), launchers, moderation, metrics.clone());
    let serving = inferd_gateway::serve(settings.gateway, registry.clone(), metrics, clock);
    let gateway = Arc::new(threads.wait(serving)??);
    Ok(DataPlane {
        running: Running { registry, gateway, spawner, handle },
        threads: Mutex::new(Some(threads)),
    })
}

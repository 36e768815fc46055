//! What every connection of one gateway shares.
//!
//! Read by all handlers; changed by [`crate::Gateway`] alone. Knows nothing of any single request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use inferd_dispatcher::Registry;
use inferd_protocol::Limits;
use inferd_types::Clock;
use inferd_types::settings::GatewaySettings;
use tokio::sync::watch;

use crate::admit::caller::{Admission, Peer};
use crate::admit::inflight::Inflight;
use crate::grpc::reflection::Reflection;
use crate::lifecycle::Lifecycle;
use crate::observe::failures::FailureLog;
use crate::observe::metrics::Metrics;
use crate::observe::spans::Spans;
use crate::regions::table::Regions;

/// Settings, limits, models and observers of one gateway.
pub(crate) struct ServerState {
    pub(crate) settings: GatewaySettings,
    pub(crate) registry: Registry,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) admission: Admission,
    pub(crate) inflight: Arc<Inflight>,
    pub(crate) regions: Regions,
    pub(crate) failures: FailureLog,
    pub(crate) spans: Option<Arc<Spans>>,
    pub(crate) reflection: Reflection,
    /// Milliseconds from 1970 to the start of `clock`.
    pub(crate) epoch_ms: u64,
    pub(crate) lifecycle: watch::Sender<Lifecycle>,
    /// Whether the models that the server was started with are loaded, as the control plane says.
    pub(crate) ready: AtomicBool,
}

/// One connection: the server and the peer. One value, so that a request takes one reference to both.
pub(crate) struct Connected {
    pub(crate) server: Arc<ServerState>,
    pub(crate) peer: Peer,
}

impl ServerState {
    /// Whether the server takes traffic. What is loaded or unloaded after the start does not change it.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Relaxed) && !self.is_draining()
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.lifecycle.borrow() != Lifecycle::Serving
    }

    /// The limits of bodies, as `protocol` takes them.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            json_depth_max: self.settings.json_depth_max,
            body_max_bytes: self.settings.body_max_bytes,
            shared_memory: self.regions.on(),
        }
    }
}

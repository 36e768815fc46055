//! What every connection of one gateway shares.
//!
//! Read by all handlers; changed by [`crate::Gateway`] alone. Knows nothing of any single request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use inferd_dispatcher::{ModelHandle, ModelState, Registry};
use inferd_protocol::Limits;
use inferd_types::Clock;
use inferd_types::settings::GatewaySettings;
use tokio::sync::watch;

use crate::admit::inflight::Inflight;
use crate::admit::tenants::Tenants;
use crate::admit::trace::Ids;
use crate::grpc::Reflection;
use crate::observe::failures::FailureLog;
use crate::observe::metrics::Metrics;
use crate::observe::spans::Spans;
use crate::regions::table::Regions;

/// Where the gateway is in its life. It only ever moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Takes connections and requests.
    Serving,
    /// Admits nothing more; answers what was admitted, and who comes now is told that this server is about to stop:
    /// a port that listens no more would look like a fault to whoever checks it.
    Draining,
    /// All that was admitted is answered: takes no new connection.
    Ending,
    /// Closes what is still open.
    Closed,
}

pub(crate) struct Shared {
    pub(crate) settings: GatewaySettings,
    pub(crate) registry: Registry,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) inflight: Arc<Inflight>,
    pub(crate) regions: Regions,
    pub(crate) ids: Ids,
    pub(crate) log: FailureLog,
    pub(crate) spans: Option<Arc<Spans>>,
    pub(crate) tenants: Tenants,
    pub(crate) reflection: Reflection,
    /// Milliseconds from 1970 to the start of `clock`.
    pub(crate) epoch_ms: u64,
    pub(crate) phase: watch::Sender<Phase>,
    /// Whether the control plane says that everything it wants is loaded.
    pub(crate) ready: AtomicBool,
}

impl Shared {
    /// Whether traffic may come: told so, not draining, and every model serves.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Relaxed) && !self.is_draining() && self.registry.models().iter().all(is_model_ready)
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.phase.borrow() != Phase::Serving
    }

    /// The limits of bodies, as the protocol wants them.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            json_depth_max: self.settings.json_depth_max,
            body_max_bytes: self.settings.body_max_bytes,
            shared_memory: self.regions.on(),
        }
    }
}

/// Whether `model` serves.
pub(crate) fn is_model_ready(model: &ModelHandle) -> bool {
    model.state() == ModelState::Ready
}

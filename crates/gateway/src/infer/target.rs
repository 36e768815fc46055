//! The model that a request runs on.
//!
//! Reads names and versions, hands on the model with its signature and metrics. Knows nothing of requests.

use std::sync::Arc;

use inferd_dispatcher::ModelHandle;
use inferd_types::{Error, ErrorKind, Result, Signature};

use crate::observe::metrics::ModelSeries;
use crate::server_state::ServerState;

/// A model, with what is looked up once for each request.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) model: ModelHandle,
    pub(crate) signature: Arc<Signature>,
    pub(crate) metrics: Arc<ModelSeries>,
}

impl Target {
    /// The model `name` in `version`, by default the greatest.
    ///
    /// # Errors
    /// `NotFound`, `NotReady`.
    pub(crate) fn find(server: &ServerState, name: &str, version: Option<&str>) -> Result<Target> {
        let model = server.registry.find(name, version, None)?;
        let Some(signature) = model.signature() else {
            return Err(Error::new(
                ErrorKind::NotReady,
                format!("model '{name}' is loading; try again when it is ready"),
            ));
        };
        let metrics = server.metrics.model(model.name(), model.version());
        Ok(Target { model, signature, metrics })
    }

    pub(crate) fn name(&self) -> (&str, u64) {
        (self.model.name(), self.model.version())
    }
}

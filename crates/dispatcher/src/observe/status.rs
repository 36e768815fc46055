//! What every model does now and why, as JSON.
//!
//! Reads the registry's models, hands on one value. Knows nothing of the caller.

use serde_json::{Value, json};

use crate::generation::model::Model;
use crate::generation::state::ModelState;

use crate::handle::ModelHandle;
use crate::intake::cache::lookup::Cache;
use crate::route::Registry;

impl Registry {
    /// `{"models": [...]}`, by name and version; of `name` alone where one is given, which may be none.
    pub async fn status(&self, name: Option<&str>) -> Value {
        let mut models = Vec::new();
        for model in self.models() {
            if name.is_none_or(|name| name == model.name()) {
                models.push(of_model(&model).await);
            }
        }
        json!({ "models": models })
    }
}

async fn of_model(model: &ModelHandle) -> Value {
    let (state, reason) = match model.state() {
        ModelState::Loading => ("loading", None),
        ModelState::Ready => ("ready", None),
        ModelState::Unavailable(reason) => ("unavailable", Some(reason)),
        ModelState::Draining => ("draining", None),
    };
    let replicas: Vec<Value> = model
        .replicas()
        .iter()
        .map(|replica| json!({ "index": replica.index, "pid": replica.pid, "state": replica.state.label() }))
        .collect();
    let statistics = model.statistics();
    json!({
        "answered": { "ok": statistics.success.count, "error": statistics.fail.count },
        "name": model.name(),
        "version": model.version(),
        "generation": model.generation(),
        "state": state,
        "reason": reason,
        "signature": model.signature().as_deref(),
        "platform": model.platform(),
        "facts": model.facts(),
        "batch_rows_max": model.settings().map(|settings| settings.batch_rows_max),
        "running_max": model.model().and_then(|model| running_max(model)),
        "replicas": replicas,
        "profile": model.profile(),
        "cache": model.model().and_then(|model| model.intake.cache()).map(Cache::status),
        "sequences": model.model().and_then(|model| model.intake.sequences()).map(|sequences| sequences.status()),
        "explain": model.explain().await,
    })
}

/// Most replicas that execute at once, with as many as there are to be now.
fn running_max(model: &Model) -> Option<u32> {
    model.published.settings.machine.running_max(model.published.replicas_wanted())
}

//! What the data plane does now, as JSON.
//!
//! Reads the registry's models, hands on one value. Knows nothing of who asks.

use inferd_dispatcher::{ModelHandle, ModelState, Registry};
use serde_json::{Value, json};

/// `{"models": [...]}`, by name and version.
pub(crate) async fn status(registry: &Registry) -> Value {
    let mut models = Vec::new();
    for model in registry.models() {
        models.push(of_model(&model).await);
    }
    json!({ "models": models })
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
    json!({
        "name": model.name(),
        "version": model.version(),
        "state": state,
        "reason": reason,
        "signature": model.signature().as_deref(),
        "facts": model.facts(),
        "replicas": replicas,
        "profile": model.profile(),
        "explain": model.explain().await,
    })
}

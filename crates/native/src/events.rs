//! Events of the data plane as Python reads them.
//!
//! Reads what the dispatcher's channel holds, hands back JSON. Knows nothing of what is done about an event.

use inferd_dispatcher::{EventKind, ModelEvent, Received, ReplicaState};
use serde_json::{Value, json};

/// A list of objects tagged by `event`. One that says how many were dropped comes first: what follows is incomplete.
pub(crate) fn to_json(received: &Received) -> String {
    let dropped = (received.dropped > 0).then(|| json!({ "event": "dropped", "count": received.dropped }));
    dropped.into_iter().chain(received.events.iter().map(of_one)).collect::<Value>().to_string()
}

fn of_one(event: &ModelEvent) -> Value {
    let mut value = match &event.kind {
        EventKind::Generation { state, reason } => {
            json!({ "event": "generation", "state": state.label(), "reason": reason })
        }
        EventKind::Loaded { took } => json!({ "event": "loaded", "took_s": took.as_secs_f64() }),
        EventKind::Replica { index, state, pid } => {
            json!({ "event": "replica", "replica": index, "state": state.map_or("ended", ReplicaState::label), "pid": pid })
        }
        EventKind::WorkerLost { index, pid, reason } => {
            json!({ "event": "worker_lost", "replica": index, "pid": pid, "reason": reason.label() })
        }
    };
    value["model"] = json!(&*event.model);
    value["version"] = json!(event.version);
    value["generation"] = json!(event.generation);
    value["at_s"] = json!(event.at.since(inferd_types::Time::ZERO).as_secs_f64());
    value
}

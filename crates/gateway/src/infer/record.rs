//! What one inference leaves behind: counters, a log line, spans.
//!
//! Reads callers and outcomes, hands them to `observe`. Knows nothing of how the outcome came about.

use inferd_types::{Error, ErrorKind, Result};

use super::target::Target;
use crate::admit::caller::Caller;
use crate::observe::failures::LogSubject;
use crate::observe::spans::{FinishedInference, RequestTiming};
use crate::server_state::ServerState;

/// Counts, traces and logs one inference that ended. `target` is `None` where no model was found.
pub(crate) fn record(
    server: &ServerState,
    caller: &Caller,
    target: Option<&Target>,
    outcome: Result<&RequestTiming, &Error>,
) {
    let now = server.clock.now();
    let metrics = target.map_or_else(|| server.metrics.unrouted(), |target| &target.metrics);
    metrics.answered(outcome.map(drop).map_err(Error::kind), now.since(caller.arrived));
    if let Some(tenant) = server.admission.tenants.label(caller.tenant) {
        server.metrics.tenant_answered(tenant, outcome.map(drop).map_err(Error::kind));
    }
    let (model, version) = target.map_or(("", 0), Target::name);
    let request_id = caller.ids.request_id();
    if let Err(error) = outcome {
        let trace = caller.ids.trace.map(|context| context.trace);
        server.failures.log(now, error, LogSubject { model, version, request_id, trace });
    }
    if let (Some(spans), Some(trace)) = (&server.spans, caller.ids.trace) {
        let finished = FinishedInference {
            trace,
            peer: caller.peer.address,
            model,
            version,
            request_id,
            arrived: caller.arrived,
            answered: now,
            outcome,
        };
        spans.finished(&server.admission.ids, &finished);
    }
}

/// Finds the model of an inference; records the failure where there is none.
///
/// # Errors
/// `NotFound`, `NotReady`.
pub(crate) fn find_or_record(
    server: &ServerState,
    caller: &Caller,
    name: &str,
    version: Option<&str>,
) -> Result<Target> {
    Target::find(server, name, version).inspect_err(|error| {
        count_refusal(server, error);
        record(server, caller, None, Err(error));
    })
}

/// Counts a refusal that the gateway itself decided; those of the dispatcher come through its observer.
pub(crate) fn count_refusal(server: &ServerState, error: &Error) {
    match error.kind() {
        ErrorKind::Overloaded => server.metrics.unrouted().refused("inflight_max_bytes"),
        ErrorKind::TooLarge => server.metrics.unrouted().refused("body_max_bytes"),
        ErrorKind::NotReady => server.metrics.unrouted().refused("not_ready"),
        _ => {}
    }
}

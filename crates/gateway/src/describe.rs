//! Describes the server and its models: gathers values from the dispatcher for `protocol` to write.
//!
//! Reads handles, hands plain values to `protocol::describe`. Knows nothing of paths or calls.

use inferd_dispatcher::{BatchStatistics, DurationStatistics, ModelHandle, ModelState};
use inferd_protocol::describe::{self as wire, IndexEntry, IndexState, Model, Server, Span, Statistics};
use inferd_types::{Error, ErrorKind, Result};

use crate::infer::target::Target;
use crate::server_state::ServerState;

/// The server's own description.
pub(crate) fn server(server: &ServerState) -> Server<'static> {
    let extensions = if server.regions.on() { wire::EXTENSIONS_WITH_SHARED_MEMORY } else { wire::EXTENSIONS };
    Server { name: "inferd", version: env!("CARGO_PKG_VERSION"), extensions }
}

/// Hands the description of one model to `write`.
///
/// # Errors
/// `NotFound`, `NotReady`.
pub(crate) fn model<T>(
    server: &ServerState,
    name: &str,
    version: Option<&str>,
    write: impl FnOnce(&Model<'_>) -> T,
) -> Result<T> {
    let target = Target::find(server, name, version)?;
    let settings = target.model.settings();
    let versions: Vec<u64> = server
        .registry
        .models()
        .iter()
        .filter(|model| model.name() == name)
        .map(ModelHandle::version)
        .collect();
    let facts = target.model.facts();
    let parameters: Vec<(&str, &str)> =
        facts.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Ok(write(&Model {
        name: target.model.name(),
        version: target.model.version(),
        versions: &versions,
        platform: target.model.platform(),
        signature: &target.signature,
        batch_rows_max: settings.map_or(0, |settings| settings.batch_rows_max),
        replicas: settings.map_or(0, |settings| settings.replicas),
        gpus: &[],
        parameters: &parameters,
    }))
}

/// Hands the counters of one model, or of all, to `write`.
///
/// # Errors
/// `NotFound`, `NotReady` where one is named.
pub(crate) fn statistics<T>(
    server: &ServerState,
    named: Option<(&str, Option<&str>)>,
    write: impl FnOnce(&[Statistics<'_>]) -> T,
) -> Result<T> {
    let models = match named {
        Some((name, version)) => vec![server.registry.find(name, version, None)?],
        None => server.registry.models(),
    };
    let statistics: Vec<Statistics<'_>> = models.iter().map(|model| of_model(server, model)).collect();
    Ok(write(&statistics))
}

fn of_model<'a>(server: &ServerState, model: &'a ModelHandle) -> Statistics<'a> {
    let counted = model.statistics();
    let batch = |(rows, batch): (&u32, &BatchStatistics)| wire::BatchStatistics {
        rows: u64::from(*rows),
        compute_input: span(batch.compute_input),
        compute_infer: span(batch.compute_infer),
        compute_output: span(batch.compute_output),
    };
    Statistics {
        name: model.name(),
        version: model.version(),
        // The dispatcher counts from the start of its clock; clients expect the time of day.
        last_inference_ms: match counted.last_inference_ms {
            0 => 0,
            since_start => server.epoch_ms + since_start,
        },
        inference_count: counted.inference_count,
        execution_count: counted.execution_count,
        success: span(counted.success),
        fail: span(counted.fail),
        queue: span(counted.queue),
        compute_input: span(counted.compute_input),
        compute_infer: span(counted.compute_infer),
        compute_output: span(counted.compute_output),
        cache_hit: span(counted.cache_hit),
        cache_miss: span(counted.cache_miss),
        batches: counted.batches.iter().map(batch).collect(),
    }
}

fn span(of: DurationStatistics) -> Span {
    Span { count: of.count, nanos: of.ns }
}

/// Hands a line for each model version to `write`; only those that are ready where `ready` says so.
pub(crate) fn index<T>(server: &ServerState, ready: bool, write: impl FnOnce(&[IndexEntry<'_>]) -> T) -> T {
    let models = server.registry.models();
    let states: Vec<(&ModelHandle, IndexState, String)> = models
        .iter()
        .map(|model| match model.state() {
            ModelState::Ready => (model, IndexState::Ready, String::new()),
            ModelState::Loading => (model, IndexState::Loading, String::new()),
            ModelState::Draining => (model, IndexState::Unloading, String::new()),
            ModelState::Unavailable(reason) => (model, IndexState::Unavailable, reason),
        })
        .filter(|(_, state, _)| !ready || *state == IndexState::Ready)
        .collect();
    let entries: Vec<IndexEntry<'_>> = states
        .iter()
        .map(|(model, state, reason)| IndexEntry {
            name: model.name(),
            version: model.version(),
            state: *state,
            reason,
        })
        .collect();
    write(&entries)
}

/// # Errors
/// `NotFound` where there is no such model, `NotReady` where it does not serve.
pub(crate) fn ready(server: &ServerState, name: &str, version: Option<&str>) -> Result<()> {
    let model = server.registry.find(name, version, None)?;
    if model.state() == ModelState::Ready && !server.is_draining() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotReady, format!("model '{name}' is not ready; try again when it is")))
}

/// The reason why the server is not ready.
pub(crate) fn not_ready(server: &ServerState) -> Error {
    if server.is_draining() {
        return Error::new(ErrorKind::Draining, "shutting down; retry another instance");
    }
    Error::new(
        ErrorKind::NotReady,
        "the models that the server was started with are not loaded yet; see POST /v2/repository/index",
    )
}

//! The answers that run no model.
//!
//! Reads routes, hands back JSON. Knows nothing of where the values come from: `crate::describe` does.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::StatusCode;
use inferd_protocol::describe as wire;
use inferd_protocol::rest::decode_index_ready;
use inferd_protocol::{decode_register, regions_json};
use inferd_types::Result;
use serde_json::json;

use crate::answer::response::{self, HttpResponse};
use crate::describe;
use crate::route::endpoint::ModelPath;
use crate::state::Shared;

fn ok(body: Vec<u8>) -> HttpResponse {
    response::json(StatusCode::OK, body)
}

pub(super) fn server(shared: &Shared) -> HttpResponse {
    ok(wire::server_metadata_json(&describe::server(shared)))
}

pub(super) fn metadata(shared: &Shared, path: &ModelPath<'_>) -> Result<HttpResponse> {
    describe::model(shared, &path.name, path.version.as_deref(), wire::model_metadata_json).map(ok)
}

pub(super) fn config(shared: &Shared, path: &ModelPath<'_>) -> Result<HttpResponse> {
    describe::model(shared, &path.name, path.version.as_deref(), wire::config_json).map(ok)
}

pub(super) fn ready(shared: &Shared, path: &ModelPath<'_>) -> Result<HttpResponse> {
    describe::ready(shared, &path.name, path.version.as_deref()).map(|()| response::empty(StatusCode::OK))
}

pub(super) fn statistics(shared: &Shared, path: Option<&ModelPath<'_>>) -> Result<HttpResponse> {
    let named = path.map(|path| (&*path.name, path.version.as_deref()));
    describe::statistics(shared, named, wire::statistics_json).map(ok)
}

/// Whether a model is ready, as KServe's first protocol says it.
pub(super) fn v1_status(shared: &Shared, path: &ModelPath<'_>) -> Result<HttpResponse> {
    shared.registry.find(&path.name, None)?;
    let ready = describe::ready(shared, &path.name, None).is_ok();
    Ok(ok(json!({"name": path.name, "ready": ready}).to_string().into_bytes()))
}

/// The names of all models, in that protocol.
pub(super) fn v1_models(shared: &Shared) -> HttpResponse {
    let names: BTreeSet<String> =
        shared.registry.models().iter().map(|model| model.name().to_owned()).collect();
    ok(json!({"models": names}).to_string().into_bytes())
}

/// What can be asked, for programs.
pub(super) fn openapi(shared: &Shared) -> HttpResponse {
    let models = shared.registry.models();
    let described: Vec<_> =
        models.iter().filter_map(|model| Some((model.name().to_owned(), model.signature()?))).collect();
    let listed = described.iter().map(|(name, signature)| (name.as_str(), &**signature));
    ok(wire::openapi_json(env!("CARGO_PKG_VERSION"), listed))
}

/// Regions of one name, or all.
pub(super) fn regions(shared: &Shared, name: Option<&str>) -> Result<HttpResponse> {
    shared.regions.status(name).map(|regions| ok(regions_json(&regions)))
}

/// There are none of CUDA.
pub(super) fn no_regions() -> HttpResponse {
    ok(regions_json(&[]))
}

pub(super) fn register(shared: &Shared, name: &str, body: &Bytes) -> Result<HttpResponse> {
    shared.regions.check_on()?;
    shared.regions.register(decode_register(name, body, &shared.limits())?)?;
    Ok(response::empty(StatusCode::OK))
}

pub(super) fn index(shared: &Shared, body: &Bytes) -> Result<HttpResponse> {
    let ready = decode_index_ready(body, &shared.limits())?;
    Ok(ok(describe::index(shared, ready, wire::index_json)))
}

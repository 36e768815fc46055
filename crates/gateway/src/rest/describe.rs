//! The answers that run no model.
//!
//! Reads routes, hands back JSON. Knows nothing of where the values come from: `crate::describe` does.

use bytes::Bytes;
use http::StatusCode;
use inferd_protocol::describe as wire;
use inferd_protocol::rest::decode_index_ready;
use inferd_protocol::{decode_register, regions_json};
use inferd_types::Result;

use crate::answer::{self, HttpResponse};
use crate::describe;
use crate::router::ModelPath;
use crate::shared::Shared;

fn ok(body: Vec<u8>) -> HttpResponse {
    answer::json(StatusCode::OK, body)
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
    describe::ready(shared, &path.name, path.version.as_deref()).map(|()| answer::empty(StatusCode::OK))
}

pub(super) fn statistics(shared: &Shared, path: Option<&ModelPath<'_>>) -> Result<HttpResponse> {
    let named = path.map(|path| (&*path.name, path.version.as_deref()));
    describe::statistics(shared, named, wire::statistics_json).map(ok)
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
    Ok(answer::empty(StatusCode::OK))
}

pub(super) fn index(shared: &Shared, body: &Bytes) -> Result<HttpResponse> {
    let ready = decode_index_ready(body, &shared.limits())?;
    Ok(ok(describe::index(shared, ready, wire::index_json)))
}

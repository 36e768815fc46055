//! The answers that run no model.
//!
//! Reads endpoints, hands back JSON. Knows nothing of where the values come from: `crate::describe` does.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::StatusCode;
use inferd_protocol::describe as wire;
use inferd_protocol::rest::decode_index_ready;
use inferd_protocol::{decode_register, regions_json};
use inferd_types::{Error, ErrorKind, Result, Tenant};
use serde_json::json;

use super::bodies;
use super::infer::RestRequest;
use crate::admit::body::RequestBody;
use crate::admit::inflight::HeldBytes;
use crate::answer::response::{self, HttpResponse};
use crate::describe;
use crate::route::endpoint::{Endpoint, ModelAction, ModelPath};
use crate::server_state::ServerState;

/// Answers everything that runs no model.
///
/// # Errors
/// The endpoint's.
pub(super) async fn answer(
    request: &RestRequest<'_>,
    endpoint: &Endpoint<'_>,
    body: RequestBody,
) -> Result<HttpResponse> {
    let server = &**request.server;
    let tenant = request.caller.tenant;
    match endpoint {
        Endpoint::RepositoryIndex => index(server, &read(request, body).await?),
        Endpoint::Register(name) => register(server, tenant, name, &read(request, body).await?),
        Endpoint::Live => Ok(response::empty(StatusCode::OK)),
        Endpoint::Ready if server.is_ready() => Ok(response::empty(StatusCode::OK)),
        Endpoint::Ready => Err(describe::not_ready(server)),
        Endpoint::Server => Ok(ok(wire::server_metadata_json(&describe::server(server)))),
        Endpoint::Regions(name) => regions(server, tenant, name.as_deref()),
        Endpoint::Unregister(name) => {
            server.regions.unregister(tenant, name.as_deref()).map(|()| response::empty(StatusCode::OK))
        }
        Endpoint::CudaRegions => Ok(no_regions()),
        Endpoint::CudaUnregister => Ok(response::empty(StatusCode::OK)),
        Endpoint::AllStatistics => statistics(server, None),
        Endpoint::Model(path, ModelAction::Metadata) => metadata(server, path),
        Endpoint::Model(path, ModelAction::Ready) => ready(server, path),
        Endpoint::Model(path, ModelAction::Config) => config(server, path),
        Endpoint::Model(path, ModelAction::Statistics) => statistics(server, Some(path)),
        Endpoint::Model(path, ModelAction::V1Status) => v1_status(server, path),
        Endpoint::V1Models => Ok(v1_models(server)),
        Endpoint::OpenApi => Ok(openapi(server)),
        Endpoint::Unbuilt(feature) => {
            Err(Error::new(ErrorKind::Unimplemented, format!("not implemented: {feature}")))
        }
        Endpoint::Model(_, _) | Endpoint::Docs(_) => {
            Err(Error::new(ErrorKind::Internal, "an endpoint was answered in the wrong place"))
        }
    }
}

async fn read(request: &RestRequest<'_>, body: RequestBody) -> Result<Bytes> {
    let (server, head) = (&**request.server, request.head);
    head.check_content_type()?;
    let held = HeldBytes::none(&server.inflight, request.caller.tenant);
    bodies::read(server, body, head.content_coding()?, &held).await
}

fn ok(body: Vec<u8>) -> HttpResponse {
    response::json(StatusCode::OK, body)
}

fn metadata(server: &ServerState, path: &ModelPath<'_>) -> Result<HttpResponse> {
    describe::model(server, &path.name, path.version.as_deref(), wire::model_metadata_json).map(ok)
}

fn config(server: &ServerState, path: &ModelPath<'_>) -> Result<HttpResponse> {
    describe::model(server, &path.name, path.version.as_deref(), wire::config_json).map(ok)
}

fn ready(server: &ServerState, path: &ModelPath<'_>) -> Result<HttpResponse> {
    describe::ready(server, &path.name, path.version.as_deref()).map(|()| response::empty(StatusCode::OK))
}

fn statistics(server: &ServerState, path: Option<&ModelPath<'_>>) -> Result<HttpResponse> {
    let named = path.map(|path| (&*path.name, path.version.as_deref()));
    describe::statistics(server, named, wire::statistics_json).map(ok)
}

/// Whether a model is ready, as KServe's first protocol says it.
fn v1_status(server: &ServerState, path: &ModelPath<'_>) -> Result<HttpResponse> {
    server.registry.find(&path.name, None, None)?;
    let ready = describe::ready(server, &path.name, None).is_ok();
    Ok(ok(json!({"name": path.name, "ready": ready}).to_string().into_bytes()))
}

/// The names of all models, in that protocol.
fn v1_models(server: &ServerState) -> HttpResponse {
    let names: BTreeSet<String> =
        server.registry.models().iter().map(|model| model.name().to_owned()).collect();
    ok(json!({"models": names}).to_string().into_bytes())
}

/// The endpoints in OpenAPI, for programs.
fn openapi(server: &ServerState) -> HttpResponse {
    let models = server.registry.models();
    let described: Vec<_> =
        models.iter().filter_map(|model| Some((model.name().to_owned(), model.signature()?))).collect();
    let listed = described.iter().map(|(name, signature)| (name.as_str(), &**signature));
    ok(wire::openapi_json(env!("CARGO_PKG_VERSION"), listed))
}

/// Regions of one name, or all.
fn regions(server: &ServerState, tenant: Tenant, name: Option<&str>) -> Result<HttpResponse> {
    server.regions.status(tenant, name).map(|regions| ok(regions_json(&regions)))
}

/// CUDA shared memory has no regions.
fn no_regions() -> HttpResponse {
    ok(regions_json(&[]))
}

fn register(server: &ServerState, tenant: Tenant, name: &str, body: &Bytes) -> Result<HttpResponse> {
    server.regions.check_on()?;
    server.regions.register(tenant, decode_register(name, body, &server.limits())?)?;
    Ok(response::empty(StatusCode::OK))
}

fn index(server: &ServerState, body: &Bytes) -> Result<HttpResponse> {
    let ready = decode_index_ready(body, &server.limits())?;
    Ok(ok(describe::index(server, ready, wire::index_json)))
}

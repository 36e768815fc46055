//! The REST form of the protocol.
//!
//! Reads requests with their routes, hands back whole answers. Knows nothing of connections.

mod describe;
mod docs;
mod generate;
mod head;
mod infer;
mod plain;

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use hyper::body::Incoming;
use inferd_types::{Error, ErrorKind, Time};

use self::head::Head;
use self::infer::Form;
use crate::admit::body::{self, Delivery};
use crate::admit::trace::{REQUEST_ID, TRACEPARENT};
use crate::answer::response::{self, HttpResponse};
use crate::infer::Asked;
use crate::route::endpoint::{ModelRoute, Route};
use crate::state::Shared;

/// Answers one request.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    parts: &Parts,
    body: Incoming,
    arrived: Time,
    delivery: Delivery,
) -> HttpResponse {
    let head = Head::read(&parts.headers);
    let mut asked = Asked::new(shared, arrived, &parts.headers, head.request_id, head.traceparent);
    let target = parts.uri.path();
    let checked = head.check_size(
        parts.uri.path_and_query().map_or(0, |target| target.as_str().len()),
        shared.settings.header_max_bytes,
    );
    let route = match checked {
        Ok(()) => find(target),
        Err(error) => Err(error),
    };
    let mut response = match route {
        Ok(route) if !route.takes(&parts.method) => {
            body::discard(body);
            let error = Error::new(
                ErrorKind::MethodNotAllowed,
                format!("{target} does not take {}; send {}", parts.method, route.methods()[0]),
            );
            response::with_allow(failed(shared, &asked, &error), route.methods())
        }
        Ok(Route::Model(path, ModelRoute::Infer)) => {
            infer::answer(shared, &path, &head, &mut asked, body, delivery, Form::Tensors).await
        }
        Ok(Route::Model(path, route @ (ModelRoute::Plain | ModelRoute::Predict))) => {
            let form = if route == ModelRoute::Plain { Form::Plain } else { Form::Instances };
            infer::answer(shared, &path, &head, &mut asked, body, delivery, form).await
        }
        Ok(Route::Model(path, route @ (ModelRoute::Generate | ModelRoute::GenerateStream))) => {
            let stream = route == ModelRoute::GenerateStream;
            Box::pin(generate::answer(shared, &path, &head, &mut asked, body, delivery, stream)).await
        }
        Ok(Route::Docs(route)) => {
            body::discard(body);
            let folder = shared.settings.docs_folder.as_deref();
            Box::pin(docs::answer(folder, route, &parts.headers, head.pack()))
                .await
                .unwrap_or_else(|error| failed(shared, &asked, &error))
        }
        // Rare, so that it may allocate and not make every other request's future larger.
        Ok(route) => Box::pin(describe(shared, &route, &head, body, delivery))
            .await
            .unwrap_or_else(|error| failed(shared, &asked, &error)),
        Err(error) => {
            body::discard(body);
            failed(shared, &asked, &error)
        }
    };
    let headers = response.headers_mut();
    if let Some(context) = asked.context {
        headers.insert(HeaderName::from_static(TRACEPARENT), context.header());
    }
    headers.insert(HeaderName::from_static(REQUEST_ID), asked.request_id);
    response
}

fn find(path: &str) -> Result<Route<'_>, Error> {
    Route::of(path).ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!("there is nothing at {path}; the protocol's paths begin at /v2, /openapi.json lists all, /docs shows it"),
        )
    })
}

/// Logs an error that is not about an inference, and answers with it.
fn failed(shared: &Shared, asked: &Asked, error: &Error) -> HttpResponse {
    let of = crate::observe::failures::Of {
        request_id: asked.request_id.to_str().unwrap_or_default(),
        trace: asked.context.map(|context| context.trace),
        ..Default::default()
    };
    shared.log.failure(shared.clock.now(), error, of);
    response::error(error)
}

/// Answers everything that runs no model.
async fn describe(
    shared: &Shared,
    route: &Route<'_>,
    head: &Head<'_>,
    body: Incoming,
    delivery: Delivery,
) -> Result<HttpResponse, Error> {
    if let Route::RepositoryIndex | Route::Register(_) = route {
        let body =
            infer::read(shared, head, body, delivery, &crate::admit::inflight::Held::none(&shared.inflight))
                .await?;
        return match route {
            Route::Register(name) => describe::register(shared, name, &body),
            _ => describe::index(shared, &body),
        };
    }
    body::discard(body);
    match route {
        Route::Live => Ok(response::empty(StatusCode::OK)),
        Route::Ready if shared.is_ready() => Ok(response::empty(StatusCode::OK)),
        Route::Ready => Err(crate::describe::not_ready(shared)),
        Route::Server => Ok(describe::server(shared)),
        Route::Regions(name) => describe::regions(shared, name.as_deref()),
        Route::Unregister(name) => {
            shared.regions.unregister(name.as_deref()).map(|()| response::empty(StatusCode::OK))
        }
        Route::CudaRegions => Ok(describe::no_regions()),
        Route::CudaUnregister => Ok(response::empty(StatusCode::OK)),
        Route::AllStatistics => describe::statistics(shared, None),
        Route::Model(path, ModelRoute::Metadata) => describe::metadata(shared, path),
        Route::Model(path, ModelRoute::Ready) => describe::ready(shared, path),
        Route::Model(path, ModelRoute::Config) => describe::config(shared, path),
        Route::Model(path, ModelRoute::Statistics) => describe::statistics(shared, Some(path)),
        Route::Model(path, ModelRoute::V1Status) => describe::v1_status(shared, path),
        Route::V1Models => Ok(describe::v1_models(shared)),
        Route::OpenApi => Ok(describe::openapi(shared)),
        Route::Unbuilt(feature) => {
            Err(Error::new(ErrorKind::Unimplemented, format!("not implemented: {feature}")))
        }
        Route::Model(
            _,
            ModelRoute::Infer
            | ModelRoute::Plain
            | ModelRoute::Predict
            | ModelRoute::Generate
            | ModelRoute::GenerateStream,
        )
        | Route::RepositoryIndex
        | Route::Register(_)
        | Route::Docs(_) => Err(Error::new(ErrorKind::Internal, "a route was answered in the wrong place")),
    }
}

/// A header's value that is a number.
fn number(number: usize) -> HeaderValue {
    HeaderValue::from_str(itoa::Buffer::new().format(number))
        .unwrap_or_else(|_| HeaderValue::from_static("0"))
}

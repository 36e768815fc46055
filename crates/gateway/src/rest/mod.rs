//! The REST forms: the Open Inference Protocol, plain values, KServe's first protocol, Triton's generate.
//!
//! Reads requests with their endpoints, hands back whole answers. Knows nothing of connections.

mod bodies;
mod describe;
mod docs;
mod generate;
mod infer;
mod plain;
mod tensors;

use http::request::Parts;
use inferd_types::{Error, ErrorKind, Result, Time};

use self::infer::RestRequest;
use self::plain::PlainForm;
use self::tensors::TensorForm;
use crate::admit::body::RequestBody;
use crate::admit::caller::{Caller, Rejected};
use crate::admit::head::RequestHead;
use crate::answer::response::{self, HttpResponse};
use crate::infer::record::record;
use crate::infer::target::Target;
use crate::observe::failures::LogSubject;
use crate::route::endpoint::{Endpoint, ModelAction};
use crate::server_state::{Connected, ServerState};

/// Answers one request.
pub(crate) async fn answer(
    connected: &Connected,
    parts: &Parts,
    body: RequestBody,
    arrived: Time,
) -> HttpResponse {
    let server = &connected.server;
    let head = RequestHead::read(&parts.method, &parts.uri, &parts.headers);
    let caller = match server.admission.admit(connected.peer, arrived, &head) {
        Ok(caller) => caller,
        Err(rejected) => return reject(server, &head, *rejected),
    };
    let request = RestRequest { server, head: &head, caller: &caller };
    // What is rare is boxed: it may allocate, and must not make the future of an inference larger.
    let endpoint = find(&head);
    let answered = match &endpoint {
        Ok(Endpoint::Model(path, ModelAction::Infer)) => {
            Ok(infer::answer(&request, path, TensorForm::new, body).await)
        }
        Ok(Endpoint::Model(path, ModelAction::Plain)) => {
            Ok(Box::pin(infer::answer(&request, path, PlainForm::values, body)).await)
        }
        Ok(Endpoint::Model(path, ModelAction::Predict)) => {
            Ok(Box::pin(infer::answer(&request, path, PlainForm::instances, body)).await)
        }
        Ok(Endpoint::Model(path, ModelAction::Generate)) => {
            Ok(Box::pin(generate::answer(&request, path, body)).await)
        }
        Ok(Endpoint::Model(path, ModelAction::GenerateStream)) => {
            Ok(Box::pin(generate::stream(&request, path, body)).await)
        }
        Ok(Endpoint::Docs(path)) => {
            let folder = server.settings.docs_folder.as_deref();
            Box::pin(docs::answer(folder, *path, head.headers, head.accepted_coding())).await
        }
        Ok(endpoint) => Box::pin(describe::answer(&request, endpoint, body)).await,
        Err(error) => Ok(failed(server, &head, &caller, error)),
    };
    let mut response = answered.unwrap_or_else(|error| failed(server, &head, &caller, &error));
    caller.ids.write(response.headers_mut());
    response
}

/// The endpoint of a request.
///
/// # Errors
/// `NotFound` where no endpoint has this path, `MethodNotAllowed` where it does not take this method.
fn find<'a>(head: &RequestHead<'a>) -> Result<Endpoint<'a>> {
    let path = head.uri.path();
    let endpoint = Endpoint::of(path).ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!(
                "no route matches {path}; the protocol's paths begin at /v2, /openapi.json lists all, /docs shows it"
            ),
        )
    })?;
    if endpoint.takes(head.method) {
        return Ok(endpoint);
    }
    Err(Error::new(
        ErrorKind::MethodNotAllowed,
        format!("{path} does not take {}; send {}", head.method, endpoint.methods()[0]),
    ))
}

/// Answers a request that was not admitted. One for an inference counts for its model.
fn reject(server: &ServerState, head: &RequestHead<'_>, rejected: Rejected) -> HttpResponse {
    let Rejected { caller, error } = rejected;
    let mut response = match find(head) {
        Ok(Endpoint::Model(path, action)) if action.is_inference() => {
            let target = Target::find(server, &path.name, path.version.as_deref()).ok();
            record(server, &caller, target.as_ref(), Err(&error));
            response::error(&error)
        }
        _ => failed(server, head, &caller, &error),
    };
    caller.ids.write(response.headers_mut());
    response
}

/// Logs an error that is not about an inference, and answers with it.
fn failed(server: &ServerState, head: &RequestHead<'_>, caller: &Caller, error: &Error) -> HttpResponse {
    let subject = LogSubject {
        request_id: caller.ids.request_id(),
        trace: caller.ids.trace.map(|context| context.trace),
        ..LogSubject::default()
    };
    server.failures.log(server.clock.now(), error, subject);
    let response = response::error(error);
    match Endpoint::of(head.uri.path()) {
        Some(endpoint) if error.kind() == ErrorKind::MethodNotAllowed => {
            response::with_allow(response, endpoint.methods())
        }
        _ => response,
    }
}

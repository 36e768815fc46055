//! Where a request goes: gRPC, or a route of the REST protocol.
//!
//! Reads heads, hands bodies on to `rest` and `grpc`. Knows nothing of tensors.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request};
use hyper::body::Incoming;

use crate::accept::connection::Busy;
use crate::admit::body::Delivery;
use crate::answer::response::{self, Answer, Served};
use crate::state::Shared;
use crate::{grpc, rest};

/// Answers a request of HTTP/1.1.
pub(crate) async fn http1(shared: Arc<Shared>, request: Request<Incoming>, busy: Busy) -> Served {
    // What a future owns is moved with it, and hyper moves every request's: it owns the head once, callees borrow.
    let (head, body) = request.into_parts();
    let mut response = rest::answer(&shared, &head, body, busy.arrived, Delivery::WhenAsked).await;
    match response.body_mut() {
        Answer::Events(events) => events.busy = Some(busy),
        _ => drop(busy),
    }
    Ok(response)
}

/// Answers a request of HTTP/2: gRPC where its content type says so.
pub(crate) async fn http2(shared: Arc<Shared>, request: Request<Incoming>) -> Served {
    let arrived = shared.clock.now();
    let is_grpc = request.headers().get(CONTENT_TYPE).is_some_and(names_grpc);
    if is_grpc {
        return Ok(grpc::answer(&shared, request, arrived).await.map(Answer::Grpc));
    }
    let (head, body) = request.into_parts();
    let response = rest::answer(&shared, &head, body, arrived, Delivery::AsItComes).await;
    // In HTTP/1.1 hyper leaves the body out by itself.
    Ok(if head.method == Method::HEAD { response::head_of(response) } else { response })
}

/// `application/grpc`, with a subtype or not; not `application/grpc-web`, which is another protocol.
fn names_grpc(content_type: &HeaderValue) -> bool {
    content_type
        .as_bytes()
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

//! Hands each request to the form that it is written in: gRPC or REST.
//!
//! Reads the protocol and the content type, hands requests to `rest` and `grpc`. Knows nothing of tensors.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{Method, Request};
use hyper::body::Incoming;

use crate::accept::activity::ActiveRequest;
use crate::admit::body::{Delivery, RequestBody};
use crate::admit::head::is_grpc;
use crate::answer::response::{self, ResponseBody, Served};
use crate::server_state::Connected;
use crate::{grpc, rest};

/// Answers a request of HTTP/1.1.
pub(crate) async fn http1(
    connected: Arc<Connected>,
    request: Request<Incoming>,
    active: ActiveRequest,
) -> Served {
    // What a future owns is moved with it, and hyper moves every request's: it owns the head once, callees borrow.
    let (head, body) = request.into_parts();
    let body = RequestBody::new(body, Delivery::OnDemand);
    let mut response = rest::answer(&connected, &head, body, active.arrived).await;
    match response.body_mut() {
        ResponseBody::Events(events) => events.active = Some(active),
        _ => drop(active),
    }
    Ok(response)
}

/// Answers a request of HTTP/2: gRPC where its content type says so.
pub(crate) async fn http2(connected: Arc<Connected>, request: Request<Incoming>) -> Served {
    let arrived = connected.server.clock.now();
    if request.headers().get(CONTENT_TYPE).is_some_and(is_grpc) {
        return Ok(grpc::answer(&connected, request, arrived).await.map(ResponseBody::Grpc));
    }
    let (head, body) = request.into_parts();
    let response = rest::answer(&connected, &head, RequestBody::new(body, Delivery::Eager), arrived).await;
    // In HTTP/1.1 hyper leaves the body out by itself.
    Ok(if head.method == Method::HEAD { response::head_of(response) } else { response })
}

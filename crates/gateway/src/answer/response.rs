//! HTTP responses: bodies, headers, errors.
//!
//! Reads bytes and errors, hands responses to hyper. Knows nothing of requests.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use inferd_types::{Error, RetryHint};

use crate::accept::activity::ActiveRequest;

/// The body of any response on the data port.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// Whole; `None` once it is sent.
    Whole(Option<Bytes>),
    /// From tonic.
    Grpc(tonic::body::Body),
    /// Events as they come.
    Events(Events),
}

/// The body of `text/event-stream`. Dropping it before its end cancels the request behind it.
pub(crate) struct Events {
    events: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    /// Keeps the connection from being idle while events come.
    pub(crate) active: Option<ActiveRequest>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

pub(crate) type HttpResponse = Response<ResponseBody>;

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        match &mut *self {
            ResponseBody::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            ResponseBody::Grpc(body) => Pin::new(body).poll_frame(context),
            ResponseBody::Events(body) => {
                let next = body.events.as_mut().poll_next(context);
                if let Poll::Ready(None) = next {
                    body.active = None;
                }
                next.map(|next| next.map(|event| Ok(Frame::data(event))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Whole(bytes) => bytes.is_none(),
            ResponseBody::Grpc(body) => body.is_end_stream(),
            ResponseBody::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            ResponseBody::Grpc(body) => body.size_hint(),
            ResponseBody::Events(_) => SizeHint::default(),
        }
    }
}

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A response without a body.
pub(crate) fn empty(status: StatusCode) -> HttpResponse {
    let mut response = Response::new(ResponseBody::Whole(None));
    *response.status_mut() = status;
    response
}

/// A response with a JSON body.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> HttpResponse {
    let mut response = Response::new(ResponseBody::Whole(Some(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// A response of events.
pub(crate) fn events(events: impl Stream<Item = Bytes> + Send + 'static) -> HttpResponse {
    let mut response = Response::new(ResponseBody::Events(Events { events: Box::pin(events), active: None }));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `error` as the client sees it.
pub(crate) fn error(error: &Error) -> HttpResponse {
    let status =
        StatusCode::from_u16(error.kind().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, inferd_protocol::error_body(error));
    if let Some(seconds) = retry_after_seconds(error) {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// The response to `HEAD`: that of `GET` without its body.
pub(crate) fn head_of(mut response: HttpResponse) -> HttpResponse {
    let length = response.body().size_hint().exact();
    *response.body_mut() = ResponseBody::Whole(None);
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response
}

/// Names the methods that the path takes.
pub(crate) fn with_allow(mut response: HttpResponse, methods: &[Method]) -> HttpResponse {
    let allow = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    if let Ok(allow) = HeaderValue::from_str(&allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// `Retry-After`: whole seconds, at least one, where trying again helps at all.
fn retry_after_seconds(error: &Error) -> Option<u64> {
    (error.kind().retry() == RetryHint::Later).then(|| {
        error.retry_after().map_or(1, |after| after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1)
    })
}

/// `grpc-retry-pushback-ms`: the same in milliseconds.
pub(crate) fn retry_pushback_ms(error: &Error) -> Option<u64> {
    (error.kind().retry() == RetryHint::Later).then(|| {
        error.retry_after().map_or(1000, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)).max(1)
    })
}

/// What hyper's services return. Errors are responses.
pub(crate) type Served = Result<HttpResponse, Infallible>;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use inferd_types::ErrorKind;

    use super::*;

    #[test]
    fn every_kind_has_its_status_and_only_what_may_be_retried_says_when() {
        for kind in ErrorKind::ALL {
            let response = error(&Error::new(*kind, "why"));
            assert_eq!(response.status().as_u16(), kind.http_status(), "{kind:?}");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
            let expected = (kind.retry() == RetryHint::Later).then(|| HeaderValue::from_static("1"));
            assert_eq!(response.headers().get(RETRY_AFTER), expected.as_ref(), "{kind:?}");
        }
    }

    #[test]
    fn a_retry_time_is_rounded_up_to_seconds_and_kept_in_milliseconds() {
        let error = Error::new(ErrorKind::Overloaded, "full").with_retry_after(Duration::from_millis(1200));
        assert_eq!(retry_after_seconds(&error), Some(2));
        assert_eq!(retry_pushback_ms(&error), Some(1200));
        let soon = Error::new(ErrorKind::Overloaded, "full").with_retry_after(Duration::from_millis(3));
        assert_eq!(retry_after_seconds(&soon), Some(1));
        assert_eq!(retry_pushback_ms(&soon), Some(3));
    }
}

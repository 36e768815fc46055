//! Who calls: the one point where a request is admitted or refused before its body is read.
//!
//! Reads the peer of a connection and the head of a request, hands on a [`Caller`]. A message of a stream passes the
//! same point. Knows nothing of models, nor of what the body holds.

use std::net::SocketAddr;
use std::time::Duration;

use inferd_types::settings::GatewaySettings;
use inferd_types::{Error, ErrorKind, Result, Tenant, Time};

use super::head::RequestHead;
use super::tenants::Tenants;
use super::trace::{Ids, RequestIds, TraceParent};

/// The other end of a connection. A certificate that it has shown stands here beside the address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
}

/// What is known of a request before its body, from one pass over its head. Nothing is added later.
///
/// An identity stands here once there is one: [`Admission::admit`] establishes it from the peer's certificate or the
/// credentials among the headers, and refuses what it can't establish.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) peer: Peer,
    /// The tenant that the request counts for.
    pub(crate) tenant: Tenant,
    /// When the request's first byte was seen.
    pub(crate) arrived: Time,
    /// How long the caller waits, from the headers. The body may name a shorter time.
    pub(crate) timeout: Option<Duration>,
    /// What the answer, the log and the span carry.
    pub(crate) ids: RequestIds,
}

/// A request that is not admitted, with what its answer needs.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) caller: Caller,
    pub(crate) error: Error,
}

/// Admits requests.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) tenants: Tenants,
    pub(crate) ids: Ids,
    header_max_bytes: usize,
    /// Every request gets a trace context, since spans are collected.
    traces: bool,
}

impl Admission {
    /// # Errors
    /// `InvalidInput` where `tenant_header` can't be a header's name.
    pub(crate) fn new(settings: &GatewaySettings) -> Result<Admission> {
        Ok(Admission {
            tenants: Tenants::new(settings.tenant_header.as_deref(), &settings.tenants)?,
            ids: Ids::new(),
            header_max_bytes: settings.header_max_bytes,
            traces: settings.otlp_endpoint.is_some(),
        })
    }

    /// Admits the request with this `head`, whose first byte came at `arrived`.
    ///
    /// # Errors
    /// `TooLarge` over `header_max_bytes`, `InvalidInput` for a timeout that is no number.
    pub(crate) fn admit(
        &self,
        peer: Peer,
        arrived: Time,
        head: &RequestHead<'_>,
    ) -> Result<Caller, Box<Rejected>> {
        let parent = head.traceparent.and_then(TraceParent::parse);
        let mut caller = Caller {
            peer,
            tenant: self.tenants.of(head.headers),
            arrived,
            timeout: None,
            ids: RequestIds {
                request_id: self.ids.request_id(head.request_id),
                trace: (parent.is_some() || self.traces).then(|| self.ids.context(parent)),
            },
        };
        match head.check_size(self.header_max_bytes).and_then(|()| head.timeout()) {
            Ok(timeout) => {
                caller.timeout = timeout;
                Ok(caller)
            }
            Err(error) => Err(Box::new(Rejected { caller, error })),
        }
    }

    /// Admits one message of a stream, which came at `arrived`. `call` was admitted when the stream began.
    ///
    /// # Errors
    /// `DeadlineMissed` where the call's time, which is for all of its messages, is over.
    pub(crate) fn admit_message(&self, call: &Caller, arrived: Time) -> Result<Caller, Box<Rejected>> {
        let ids = RequestIds {
            request_id: call.ids.request_id.clone(),
            trace: call.ids.trace.map(|trace| self.ids.sibling(trace)),
        };
        let timeout = call.timeout.map(|timeout| (call.arrived + timeout).since(arrived));
        let caller = Caller { arrived, timeout, ids, ..*call };
        if timeout == Some(Duration::ZERO) {
            let error = Error::new(
                ErrorKind::DeadlineMissed,
                "the timeout of the call is over; open a new stream, with a longer grpc-timeout or none",
            );
            return Err(Box::new(Rejected { caller, error }));
        }
        Ok(caller)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::{HeaderMap, HeaderValue, Method, Uri};

    use super::*;

    const PEER: Peer = Peer { address: SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7) };

    fn admission() -> Admission {
        Admission {
            tenants: Tenants::new(Some("x-tenant"), &[("gold".to_owned(), 4)].into_iter().collect()).unwrap(),
            ids: Ids::new(),
            header_max_bytes: 200,
            traces: false,
        }
    }

    fn admit(headers: &[(&str, &str)]) -> Result<Caller, Box<Rejected>> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let uri = Uri::from_static("/v2/models/m/infer");
        let head = RequestHead::read(&Method::POST, &uri, &headers);
        admission().admit(PEER, Time::from_nanos(5), &head)
    }

    #[test]
    fn a_caller_is_known_from_its_head_alone() {
        let caller = admit(&[
            ("x-request-id", "abc"),
            ("x-tenant", "gold"),
            ("inferd-timeout-ms", "250"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ])
        .unwrap();
        assert_eq!((caller.peer.address.port(), caller.arrived), (7, Time::from_nanos(5)));
        assert_eq!((caller.tenant.id, caller.tenant.weight), (1, 4));
        assert_eq!(caller.timeout, Some(Duration::from_millis(250)));
        assert_eq!(caller.ids.request_id, "abc");
        assert!(caller.ids.trace.is_some());
        assert!(admit(&[]).unwrap().ids.trace.is_none());
    }

    #[test]
    fn a_request_that_is_not_admitted_keeps_the_ids_for_its_answer() {
        let rejected = admit(&[("x-request-id", "abc"), ("inferd-timeout-ms", "soon")]).unwrap_err();
        assert_eq!(rejected.error.kind(), ErrorKind::InvalidInput);
        assert_eq!(rejected.caller.ids.request_id, "abc");
        let large = "x".repeat(200);
        assert_eq!(admit(&[("x-long", &large)]).unwrap_err().error.kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn messages_share_the_time_of_their_call() {
        let admission = admission();
        let call = Caller { timeout: Some(Duration::from_nanos(10)), ..admit(&[]).unwrap() };
        let message = admission.admit_message(&call, Time::from_nanos(11)).unwrap();
        assert_eq!((message.arrived, message.timeout), (Time::from_nanos(11), Some(Duration::from_nanos(4))));
        let late = admission.admit_message(&call, Time::from_nanos(15)).unwrap_err();
        assert_eq!(late.error.kind(), ErrorKind::DeadlineMissed);
        let patient = Caller { timeout: None, ..call };
        assert_eq!(admission.admit_message(&patient, Time::from_nanos(99)).unwrap().timeout, None);
    }
}

//! The gateway: one port for HTTP/1.1, HTTP/2 and gRPC, with its limits, metrics, logs and spans.
//!
//! Reads bytes from sockets, hands decoded requests to `dispatcher` and the answers back. Every limit on what comes
//! from outside is kept here, before anything is decoded. A request passes the modules in this order:
//!
//! | module | stage |
//! |---|---|
//! | [`accept`] | ports, connections, drain |
//! | [`admit`] | caller, tenant, trace ids, limits of headers and bodies |
//! | [`route`] | from a path to its endpoint, from a protocol to its form |
//! | [`rest`], [`grpc`] | the forms: what a body means, and how an answer is written |
//! | [`infer`] | one inference, whatever it came over |
//! | [`answer`] | response bodies, headers, compression |
//!
//! Beside them: [`observe`] (metrics, logs, spans), [`regions`] (shared memory of clients), [`describe`] (metadata).
//! Knows nothing of batches, workers or the scheduler's reasons.
#![forbid(unsafe_code)]

mod accept;
mod admit;
mod answer;
mod describe;
mod gateway;
mod grpc;
mod infer;
mod lifecycle;
mod observe;
mod offload;
mod regions;
mod rest;
mod route;
mod server_state;

pub use gateway::{Gateway, serve};
pub use inferd_dispatcher::Drained;
pub use observe::logging::{LogDrops, LogFormat, LogLayer, LogShare, LogWriter};
pub use observe::metrics::Metrics;

//! The gateway: one port for HTTP/1.1, HTTP/2 and gRPC, with its limits, metrics, logs and spans.
//!
//! Reads bytes from sockets, hands decoded requests to `dispatcher` and the answers back. Every limit on what comes
//! from outside is kept here, before anything is decoded.
//! Knows nothing of batches, workers or the scheduler's reasons.
#![forbid(unsafe_code)]

mod answer;
mod body;
mod compression;
mod connection;
mod describe;
mod gateway;
mod grpc;
mod infer;
mod inflight;
mod listener;
mod log;
mod logging;
mod metrics;
mod regions;
mod rest;
mod router;
mod service;
mod shared;
mod spans;
mod tenants;
mod trace;

pub use gateway::{Gateway, serve};
pub use inferd_dispatcher::Drained;
pub use logging::{LogDrops, LogFormat, LogLayer, LogShare, LogWriter};
pub use metrics::Metrics;

//! The Open Inference Protocol: bytes to types and back, over REST and gRPC.
//!
//! Reads whole bodies and messages, hands on validated tensors in the signature's order; encodes responses,
//! descriptions and errors. The rules that REST and gRPC share are in `check` and `options`. Knows nothing of
//! sockets, requests in flight or where a model runs.
#![forbid(unsafe_code)]

mod check;
mod classification;
mod decoded;
pub mod describe;
mod error_body;
pub mod grpc;
mod invalid;
mod options;
pub mod pb;
pub mod plain;
mod region;
mod register;
pub mod rest;

pub use classification::classify;
pub use decoded::Decoded;
pub use error_body::{error_body, error_event};
pub use options::{OutputSelection, RequestOptions, RequestedOutput};
pub use region::{OutsideInput, Region, RegionSlice};
pub use register::{decode_register, regions_json, regions_pb};

/// Limits of a request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum nesting of arrays and objects in JSON.
    pub json_depth_max: usize,
    /// Maximum size of a body, decompressed.
    pub body_max_bytes: usize,
    /// Whether tensors may be in shared memory.
    pub shared_memory: bool,
}

impl Default for Limits {
    /// The defaults of the settings with the same names: 64 levels, 64 MiB, no shared memory.
    fn default() -> Self {
        Limits { json_depth_max: 64, body_max_bytes: 64 << 20, shared_memory: false }
    }
}

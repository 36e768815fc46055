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
mod limits;
mod options;
pub mod pb;
pub mod plain;
mod region;
mod register;
pub mod rest;

pub use classification::classify;
pub use decoded::Decoded;
pub use error_body::{error_body, error_event};
pub use limits::Limits;
pub use options::{OutputSelection, RequestOptions, RequestedOutput};
pub use region::{OutsideInput, Region, RegionSlice};
pub use register::{decode_register, regions_json, regions_pb};

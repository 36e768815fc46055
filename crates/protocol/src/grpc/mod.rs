//! The Open Inference Protocol over gRPC: messages, unary and in a stream.
//!
//! Reads messages that tonic has parsed, hands on [`crate::Decoded`] requests and response messages. Does not know
//! of connections, metadata or status codes.

mod contents;
mod decode;
mod encode;

pub use decode::decode_infer;
pub use encode::{empty_final_response, encode_infer, stream_error, stream_response};

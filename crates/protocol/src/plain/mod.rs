//! Values without names of types and shapes: plain JSON, KServe V1, raw bytes.
//!
//! Reads whole bodies, hands on tensors in the signature's order; encodes responses as plain JSON. Knows nothing of
//! paths and headers.

mod decode;
mod encode;
mod records;

pub use decode::{Part, Plain, decode, decode_element, decode_instances, decode_parts};
pub use encode::{encode, encode_predictions};

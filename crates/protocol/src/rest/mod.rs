//! The Open Inference Protocol over HTTP: JSON, followed by raw tensors if the client requests them.
//!
//! Reads bodies, hands on [`crate::Decoded`] requests and encoded responses. Does not know of headers but the two
//! lengths that are its arguments and results.

mod data;
mod decode;
mod element;
mod encode;
mod generate;
mod input;
mod members;
mod number;
mod raw;
mod scan;
mod strings;

pub use decode::{decode_index_ready, decode_infer};
pub use encode::{EncodedBody, encode_infer};
pub use generate::{decode_generate, encode_generate};

pub(crate) use encode::write_string;
pub(crate) use scan::Scanner;

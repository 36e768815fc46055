//! The Open Inference Protocol over HTTP: JSON, with raw tensors behind it where the client wishes.
//!
//! Reads bodies, hands on [`crate::Decoded`] requests and encoded answers.
//! Does not know of headers other than the two numbers that it is given and gives back.

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

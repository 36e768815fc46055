//! One inference, whatever it came over: find the model, decode, run, encode, record.
//!
//! Reads requests from `rest` and `grpc` in a form of theirs ([`wire::Wire`]), hands them to the model. Knows nothing
//! of bytes on the wire.

pub(crate) mod inference;
pub(crate) mod record;
pub(crate) mod stream;
pub(crate) mod target;
pub(crate) mod wire;

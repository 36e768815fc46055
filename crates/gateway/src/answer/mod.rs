//! How answers go back over HTTP.
//!
//! Reads bytes and errors, hands responses to hyper. Knows nothing of requests.

pub(crate) mod compression;
pub(crate) mod response;

//! From a request to the form and the endpoint that answer it.
//!
//! Reads protocols and paths, hands requests to `rest` and `grpc`. Knows nothing of tensors.

pub(crate) mod dispatch;
pub(crate) mod endpoint;

//! Ports and connections: from a socket to requests.
//!
//! Reads bytes, hands requests to `route`. Knows nothing of paths or models.

pub(crate) mod connection;
pub(crate) mod listener;

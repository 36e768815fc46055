//! Ports and connections: from a socket to requests.
//!
//! Reads bytes, hands requests to `route`. Knows nothing of paths or models.

pub(crate) mod activity;
pub(crate) mod connection;
mod io;
pub(crate) mod listener;
pub(crate) mod socket;
mod wake;

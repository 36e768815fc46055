//! What a request must pass before it is decoded: who calls, within which limits.
//!
//! Reads headers and bodies, hands on a caller and bytes that are counted. Knows nothing of models.

pub(crate) mod body;
pub(crate) mod caller;
pub(crate) mod head;
pub(crate) mod inflight;
pub(crate) mod tenants;
pub(crate) mod trace;

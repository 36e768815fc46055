//! Batches: which requests run together now.

pub(crate) mod forming;
pub(crate) mod rules;

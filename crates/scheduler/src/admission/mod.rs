//! Arrivals: whether each is queued or refused, how many come, and who comes back.

pub(crate) mod admit;
pub(crate) mod inflow;
pub(crate) mod refusal;
pub(crate) mod returning;

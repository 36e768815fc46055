//! Requests that nobody sent: those that warm a replica up, and those that measure it.

pub(crate) mod profiler;
pub(crate) mod samples;
pub(crate) mod synthetic;

//! Whether requests may share a run, and the comparisons that find it out.

pub(crate) mod cross_request;
mod ring;
pub(crate) mod trial;

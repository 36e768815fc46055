//! The state of the scheduler, what each event does to it, and how it shows.

pub(crate) mod counters;
pub(crate) mod scheduler;
pub(crate) mod snapshot;

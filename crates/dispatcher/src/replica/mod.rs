//! Replicas: what any kind of them must do, the kind that is a worker process, and what a model's task keeps of each.

pub(crate) mod backoff;
pub(crate) mod entry;
pub(crate) mod kind;
pub(crate) mod map;
pub(crate) mod process;
pub(crate) mod quarantine;
pub(crate) mod slot;

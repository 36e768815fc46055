//! What others may see of a model: figures while it serves, its status, and why it is served as it is.

pub(crate) mod cpu_time;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod observer;
pub(crate) mod recent;
pub(crate) mod status;

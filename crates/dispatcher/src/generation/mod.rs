//! One load of one model version: what its task publishes, and the model as everybody outside the task holds it.

pub(crate) mod model;
pub(crate) mod published;
pub(crate) mod state;
pub(crate) mod statistics;

//! Answers that are kept: the stage that looks them up, the key of a request, and the store.

mod key;
pub(crate) mod lookup;
mod store;

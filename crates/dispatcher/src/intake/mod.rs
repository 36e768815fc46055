//! A request's way in: entry → cache → sequences → implicit tensors → submission → inbox of the model's task.
//!
//! Each file is one stage and hands on to the next; `ticket` and `stream` are what the caller holds meanwhile.

pub(crate) mod cache;
pub(crate) mod entry;
pub(crate) mod filling;
pub(crate) mod implicit;
pub(crate) mod inbox;
pub(crate) mod sequences;
pub(crate) mod stream;
pub(crate) mod submission;
pub(crate) mod ticket;

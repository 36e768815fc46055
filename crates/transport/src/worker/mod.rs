//! The worker's end of the channel. Blocking; used inside worker processes only.
//!
//! Reads batches from the arena, hands back outputs or a failure.
//! Knows nothing of runtimes, and nothing of the requests that a batch is made of.

mod batch;
mod channel;
mod cut;
mod listen;
mod shared;

pub use batch::{Batch, View};
pub use channel::Channel;

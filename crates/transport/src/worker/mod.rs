//! The worker's end of the channel. Blocking; used inside worker processes only.
//!
//! Reads batches from the arena, hands on outputs or a failure. Knows nothing of runtimes, nor of the requests of a
//! batch.

mod batch;
mod channel;
mod cut;
mod listen;
mod shared;

pub use batch::{Batch, View};
pub use channel::Channel;

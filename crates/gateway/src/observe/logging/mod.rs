//! The log of the process: events become lines, a thread writes them, without blocking any other.
//!
//! Reads events of `tracing`, hands lines to a standard stream. Knows nothing of requests and models.

mod layer;
mod line;
mod writer;

pub use layer::LogLayer;
pub use line::LogFormat;
pub use writer::{LogDrops, LogShare, LogWriter};

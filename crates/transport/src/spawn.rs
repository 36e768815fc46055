//! Starts processes: stub of the public surface.
use std::io;

/// Owns the thread that starts worker processes, and the zygotes. Clones share them. Workers end with the thread,
/// which ends with the last clone; every [`crate::Worker`] keeps one.
#[derive(Clone, Debug)]
pub struct Spawner {}

impl Spawner {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn new() -> io::Result<Spawner> {
        todo!()
    }
}

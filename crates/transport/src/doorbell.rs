//! How a worker wakes its gateway: stub of the public surface.
use std::io;

/// One eventfd that all workers of one model ring; given to each of them. Clones are the same bell.
#[derive(Clone, Debug)]
pub struct Doorbell {}

impl Doorbell {
    /// A bell nobody has rung. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn new() -> io::Result<Doorbell> {
        todo!()
    }

    /// Waits until a worker has rung since the last call. May return without cause.
    pub async fn rung(&self) {
        todo!()
    }
}

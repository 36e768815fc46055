//! Runs work that may take long on another thread than the reactor's.
//!
//! Reads closures, hands back what they return. Knows nothing of what the work is.

use inferd_types::{Error, ErrorKind, Result};

/// Work on more bytes than this leaves the reactor, so that one large request never delays the small ones.
pub(crate) const LARGE_BYTES: usize = 256 * 1024;

/// Runs `work` on a thread for blocking work.
///
/// # Errors
/// `Internal` where `work` panicked.
pub(crate) async fn off_reactor<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Error::new(ErrorKind::Internal, "the server failed to read or write a large body")
            .with_detail(error.to_string())
    })
}

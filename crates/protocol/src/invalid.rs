//! The error for what a client did wrong.

use inferd_types::{Error, ErrorKind};

/// An error that the client made.
#[cold]
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message.into())
}

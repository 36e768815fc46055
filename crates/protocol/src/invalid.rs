//! The constructor of `InvalidInput` errors.

use inferd_types::{Error, ErrorKind};

/// An `InvalidInput` error.
#[cold]
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message.into())
}

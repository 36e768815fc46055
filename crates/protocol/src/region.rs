//! Tensors that are in shared memory instead of the request, and the regions that hold them.
//!
//! Does not know what memory is there, nor whether a client may use it: the server does.

use inferd_types::{DataType, Error, ErrorKind};

/// A part of a region: where an input is, or an output shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionSlice {
    /// The region, by the name that it was registered with.
    pub region: String,
    /// From the region's own beginning.
    pub offset: u64,
    /// What is read, or may at most be written.
    pub bytes: u64,
}

/// An input whose bytes are not in the request. In [`Decoded::inputs`] its tensor has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideInput {
    /// Its place in the signature.
    pub index: usize,
    /// The type that its elements have there: the signature's, or one that is widened to it.
    pub sent: DataType,
    /// Where its bytes are.
    pub slice: RegionSlice,
}

/// A region as it was registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// What requests call it.
    pub name: String,
    /// What the system calls the memory.
    pub key: String,
    /// Where in it the region begins.
    pub offset: u64,
    /// How long it is.
    pub byte_size: u64,
}

/// The error for shared memory where the server has none.
pub(crate) fn is_off(parameter: &str) -> Error {
    Error::new(
        ErrorKind::Unimplemented,
        format!(
            "shared memory between client and server (parameter '{parameter}') is off; send tensors in the request, \
             or set shared_memory: true for the server"
        ),
    )
}

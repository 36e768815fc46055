//! Tensors in shared memory, and the regions that hold them.
//!
//! Does not know what memory exists, nor whether a client may use it: the server does.

use inferd_types::{DataType, Error, ErrorKind};

/// A part of a region, for an input or an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionSlice {
    /// The registered name of the region.
    pub region: String,
    /// Offset from the region's beginning.
    pub offset: u64,
    /// Size in bytes: read from an input, or the maximum of an output.
    pub bytes: u64,
}

/// An input in shared memory. Its tensor in [`Decoded::inputs`] is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideInput {
    /// Its index in the signature.
    pub index: usize,
    /// The type of its elements there: the signature's, or one that is widened to it.
    pub sent: DataType,
    /// Its location.
    pub slice: RegionSlice,
}

/// A registered region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Its name in requests.
    pub name: String,
    /// The system's name of the memory.
    pub key: String,
    /// Offset of the region in the memory.
    pub offset: u64,
    /// Its size in bytes.
    pub byte_size: u64,
}

/// The error for shared memory if it is off.
pub(crate) fn is_off(parameter: &str) -> Error {
    Error::new(
        ErrorKind::Unimplemented,
        format!(
            "shared memory between client and server (parameter '{parameter}') is off; send tensors in the request, \
             or set shared_memory: true for the server"
        ),
    )
}

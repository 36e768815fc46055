//! Values without names of types and shapes: plain JSON, KServe V1, raw bytes.
//!
//! Reads whole bodies, hands on tensors in the signature's order; encodes responses as plain JSON. Knows nothing of
//! paths and headers.

mod decode;
mod encode;
mod records;

use inferd_types::Tensor;
use smallvec::SmallVec;

pub use decode::{Part, decode, decode_element, decode_instances, decode_parts};
pub use encode::{encode, encode_predictions};

/// A request that matches the signature it was decoded for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Every input of the signature, in its order.
    pub inputs: SmallVec<[Tensor; 2]>,
    /// Whether it was one row, written without the batch dimension: so is its response.
    pub one_row: bool,
}

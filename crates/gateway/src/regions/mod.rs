//! Shared memory that clients registered: inputs are read from it, outputs are written to it.
//!
//! Reads names and slices, hands on bytes. Knows nothing of models.

mod registered;
pub(crate) mod table;

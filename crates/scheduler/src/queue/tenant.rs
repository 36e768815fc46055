//! What one tenant has waiting in a class, and how far its turn is.

use inferd_types::Tenant;

use crate::queue::order::Order;

/// A tag's unit: a row of a tenant of weight 1 is this many. Weights may differ by as much.
pub(crate) const ROW: u32 = 16;

/// One tenant's.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) tenant: Tenant,
    pub(crate) order: Order,
    /// The start tag of its first item; its last finish tag while it is empty.
    pub(crate) start: u64,
    /// Rows of those that were demoted.
    pub(crate) late: u64,
    pub(crate) bytes: usize,
}

/// What serving `rows` adds to a tag; at least one, so that turns pass.
pub(crate) fn tag(rows: u64, weight: u32) -> u64 {
    (rows << ROW).div_ceil(u64::from(weight.clamp(1, 1 << ROW)))
}

//! One tenant's queue in a class, and the tag of its next turn.

use inferd_types::Tenant;

use super::order::Order;

/// Units of a tag per row of a tenant of weight 1, which is the largest ratio of weights.
pub(crate) const ROW: u32 = 16;

/// One tenant's queue.
#[derive(Debug)]
pub(crate) struct TenantQueue {
    pub(crate) tenant: Tenant,
    pub(crate) order: Order,
    /// The start tag of its first item; its last finish tag while it is empty.
    pub(crate) start: u64,
    /// Rows of demoted requests.
    pub(crate) demoted: u64,
    pub(crate) bytes: usize,
}

/// What serving `rows` adds to a tag; at least one, so that turns pass.
pub(crate) fn tag(rows: u64, weight: u32) -> u64 {
    (rows << ROW).div_ceil(u64::from(weight.clamp(1, 1 << ROW)))
}

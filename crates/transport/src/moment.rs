//! Timestamps that both sides of an arena share.
//!
//! Reads the machine's monotonic clock, hands on nanoseconds. Knows nothing of [`inferd_types::Clock`], which
//! starts with each process.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of a clock that all processes of the machine share.
pub fn nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

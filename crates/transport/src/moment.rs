//! A point in time that both sides of an arena mean the same by.
//!
//! Reads the machine's monotonic clock. Knows nothing of the clocks that the processes count from their own starts.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since some moment that is the same for all processes of the machine.
pub fn nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

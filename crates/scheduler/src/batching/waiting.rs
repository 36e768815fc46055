//! Decides what is better not staged yet: small batches whose callers are about to return, and batches behind a
//! long run.
//!
//! Reads the queue, the latency model and the returning callers, hands on times. Stages nothing.
//!
//! Tried and rejected: holding a batch on an idle replica until the last moment at which one more row would still
//! fit (`limit - T(b + 1, q)`, Symphony's frontrun), while arrivals are faster than batches of this size sustain.
//! Simulated with one model (1.75 ms and 0.25 ms a row), three variants, 1, 4 and 8 replicas, objectives of 12 and
//! 25 ms, Poisson and bursty arrivals, eight paired seeds. One replica met up to 2.4 points less under bursts.
//! Several met the same within about half a point either way. Their median latency fell by up to two fifths at
//! medium load, but rose by a tenth for eight replicas under bursts at a load of 0.1, where batching must cost
//! nothing.

use std::time::Duration;

use inferd_types::Time;

use crate::scheduler::Scheduler;

/// Cost of handing a batch to an idle replica; the minimum that merging two batches must save.
pub(crate) const HAND_OVER_NANOS: f64 = 100_000.0;

/// How long before the end of a running batch the next is staged, at least and as a fraction of its duration, so
/// that a small error of prediction leaves no replica idle. Behind a run no longer than that, the next is staged at
/// once.
const LEAD: Duration = Duration::from_millis(5);
const LEAD_PART: f64 = 0.1;
/// The minimum if tenants share the queue.
const LEAD_SHARED: Duration = Duration::from_micros(200);

impl Scheduler {
    /// Until when a small batch lingers although a replica is idle, because callers of the last batch are about to
    /// return.
    pub(crate) fn linger(&self, now: Time, head: u32) -> Option<Time> {
        if !self.config.linger || self.config.batch_rows_max == 1 {
            return None;
        }
        let (until, missing) = self.returning.expected().filter(|(until, _)| *until > now)?;
        let (waiting, more) = self.room_to_grow(head, missing)?;
        let wait = until.since(now).as_nanos() as f64;
        let latency = &self.sizes.of(self.table[head].size).latency;
        let late = until + Duration::from_nanos(latency.high(waiting + more)) > self.table[head].limit();
        // Most callers return long before the window ends: half of it is a generous estimate of the cost.
        (latency.gain(waiting, more) > wait / 2.0 && !late).then_some(until)
    }

    /// Whether to stage nothing behind a running batch, because its callers will return right after it and a larger
    /// batch with them is worth the idle time.
    pub(crate) fn hold(&self, at: usize, start: Time, head: u32) -> bool {
        let Some(first) = self.replicas[at].first.as_ref().filter(|_| self.config.linger) else {
            return false;
        };
        let back = self.returning.will_return(first.requests.len());
        let Some((waiting, more)) = self.room_to_grow(head, back) else { return false };
        let latency = &self.sizes.of(self.table[head].size).latency;
        let size = Duration::from_nanos(latency.high(waiting + more));
        let late = start + size + size / 5 > self.table[head].limit();
        latency.gain(waiting, more) > HAND_OVER_NANOS && !late
    }

    /// Until when to stage nothing behind a long run: arrivals that are more urgent, or of a tenant that is owed a
    /// turn, would wait behind a batch that was closed too early.
    pub(crate) fn stage_late(&self, now: Time, at: usize, start: Time) -> Option<Time> {
        let first = self.replicas[at].first.as_ref()?;
        let takes = self.sizes.of(first.size).latency.mean(first.rows)?;
        let shared = takes > 10.0 * HAND_OVER_NANOS && self.queue.is_shared();
        let least = if shared { LEAD_SHARED } else { LEAD };
        let until = start - Duration::from_nanos((takes * LEAD_PART) as u64).max(least);
        (until > now).then_some(until)
    }

    /// The queued rows compatible with `head`, and how many rows of another `requests` would fit with them.
    fn room_to_grow(&self, head: u32, requests: u32) -> Option<(u32, u32)> {
        let room = u64::from(self.config.batch_rows_max);
        let waiting = self.queue.rows_of(self.table[head].shape);
        let each = self.queue.rows().div_ceil(self.queue.requests().max(1) as u64);
        let more = (u64::from(requests) * each).min(room.saturating_sub(waiting));
        (more > 0).then_some((waiting as u32, more as u32))
    }
}

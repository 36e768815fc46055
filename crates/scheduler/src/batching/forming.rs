//! Forms batches: which requests run next, on which replica.
//!
//! Reads the queue and the replicas, hands on what to stage and when to wake. Admits nothing.

use std::time::Duration;

use inferd_types::{BatchId, RequestId, Time};

use super::waiting::HAND_OVER_NANOS;
use crate::message::{Action, BatchRule};
use crate::queue::table::{Entry, Place};
use crate::replicas::{Batch, Replica};
use crate::scheduler::Scheduler;

/// A request that waits this long rises by one class, and by another after as long again.
const AGEING: Duration = Duration::from_secs(1);
/// One of this many rows that run may have risen: ageing prevents starvation, it must not turn an overload of the
/// low classes into one of the high.
const AGEING_PART: u32 = 8;
/// Maximum number of items scanned to fill one batch when shapes are mixed.
pub(crate) const SCAN_MAX: usize = 4096;

/// A batch while it is filled.
#[derive(Clone, Copy)]
pub(crate) struct Fill {
    pub(crate) rows: u32,
    pub(crate) bytes: usize,
    pub(crate) limit: Time,
    pub(crate) shape: u64,
    pub(crate) size: u8,
    /// Maximum rows.
    pub(crate) cap: u32,
    /// The pace of its replica: its execution time relative to the median replica.
    pub(crate) pace: f64,
}

/// A batch to form: the index of its replica, its predicted start, the slot of its head, its maximum rows.
struct Opening {
    at: usize,
    start: Time,
    head: u32,
    cap: u32,
}

impl Fill {
    /// An empty batch for requests compatible with `head`.
    pub(crate) fn new(head: &Entry, cap: u32) -> Fill {
        Fill { rows: 0, bytes: 0, limit: Time::MAX, shape: head.shape, size: head.size, cap, pace: 1.0 }
    }
}

impl Scheduler {
    /// Forms batches. Call it after the last event of an instant, and when a wake-up is due.
    pub fn decide(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.returning.advance(now);
        self.readmit(now);
        self.expire(now, actions);
        self.age(now);
        let mut wake = None;
        if self.config.batch_rule != BatchRule::Slack {
            self.fill_by_rule(now, actions);
        } else if !self.queue.is_empty() {
            wake = self.fill_idle(now, actions);
            if wake.is_none() && !self.queue.is_empty() {
                self.extend_open(now, actions);
                wake = self.fill_behind(now, actions);
            }
        }
        let next = if self.queue.is_empty() {
            self.rebalance(now, actions);
            self.hedge(now, actions)
        } else {
            self.next_readmission()
        };
        if let Some(at) = [wake, self.next_expiry(), next].into_iter().flatten().min() {
            actions.push(Action::WakeAt(at));
        }
    }

    /// Raises the class of requests that waited long, as far as the credit allows.
    fn age(&mut self, now: Time) {
        let mut risen = Vec::new();
        // A request larger than a batch needs no more credit than the maximum.
        let (table, credit, most) = (&self.table, self.ageing_credit, self.config.batch_rows_max);
        self.queue.visit_oldest(table, |slot, above| {
            let entry = &table[slot];
            if entry.rows.min(most) <= credit && now.since(entry.arrived) >= AGEING * (entry.risen + 1) {
                risen.push((slot, above));
            }
        });
        for (slot, above) in risen {
            self.queue.remove(&self.table[slot]);
            let entry = &mut self.table[slot];
            entry.class = above;
            entry.risen += 1;
            self.ageing_credit = self.ageing_credit.saturating_sub(entry.rows);
            self.queue.insert(slot, &self.table[slot]);
        }
    }

    /// Stages batches on idle replicas. `Some` is the time until which a batch lingers for returning callers.
    fn fill_idle(&mut self, now: Time, actions: &mut Vec<Action>) -> Option<Time> {
        loop {
            let at = self.idle_replica(now)?;
            let head = self.next_head(now, now, actions)?;
            if let Some(until) = self.linger(now, head) {
                self.count.lingers(until);
                return Some(until);
            }
            let cap = self.cap(head).min(self.even_share(head));
            self.stage(now, Opening { at, start: now, head, cap }, actions);
        }
    }

    /// The replicas that share the work now: the running ones, and as many idle ones as may run.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Replica> {
        let mut idle = self.idle_replicas();
        self.replicas.iter().filter(move |replica| {
            if replica.first.is_some() {
                return !replica.is_excluded();
            }
            let counted = idle > 0 && !replica.is_excluded();
            idle -= usize::from(counted);
            counted
        })
    }

    /// How many replicas could start a batch now.
    pub(crate) fn idle_replicas(&self) -> usize {
        let idle = self.replicas.iter().filter(|replica| replica.is_idle()).count();
        let running = self.replicas.iter().filter(|replica| replica.first.is_some()).count();
        idle.min((self.config.running_max as usize).saturating_sub(running))
    }

    /// Appends new arrivals to staged batches that their replica has not taken.
    fn extend_open(&mut self, now: Time, actions: &mut Vec<Action>) {
        for at in 0..self.replicas.len() {
            let Some(open) = self.replicas[at].open_batch() else { continue };
            let mut fill = Fill {
                rows: open.rows,
                bytes: open.bytes,
                limit: open.limit,
                shape: open.shape,
                size: open.size,
                cap: open.cap,
                pace: self.replicas[at].health.pace(),
            };
            if fill.rows >= fill.cap || self.queue.rows_of(fill.shape) == 0 {
                continue;
            }
            let start = self.replicas[at].next_starts(now, &self.sizes);
            self.gather(start, &mut fill);
            if self.picked.is_empty() {
                continue;
            }
            let replica = self.replicas[at].id;
            let requests = self.dequeue_picked(at, fill);
            let Some(open) = self.replicas[at].second.as_mut() else { continue };
            open.requests.extend_from_slice(&self.picked);
            (open.rows, open.bytes, open.limit) = (fill.rows, fill.bytes, fill.limit);
            let batch = open.id;
            for slot in &self.picked {
                self.table[*slot].place = Place::Batch(replica, batch);
            }
            actions.push(Action::Append { replica, batch, requests });
        }
    }

    /// Stages second batches where that hides the handover and makes no batch smaller. `Some` is the time at which
    /// to stage one that is better staged late.
    fn fill_behind(&mut self, now: Time, actions: &mut Vec<Action>) -> Option<Time> {
        loop {
            let at = self.route(now, Replica::has_room_behind)?;
            let start = self.replicas[at].next_starts(now, &self.sizes);
            let head = self.next_head(now, start, actions)?;
            if self.hold(at, start, head) {
                return None;
            }
            if let Some(until) = self.stage_late(now, at, start) {
                return Some(until);
            }
            let cap = self.cap(head);
            self.stage(now, Opening { at, start, head, cap }, actions);
        }
    }

    /// Withdraws batches staged behind a busy replica while another is idle and the queue is empty.
    fn rebalance(&mut self, now: Time, actions: &mut Vec<Action>) {
        let mut idle = self.idle_replicas();
        for replica in &mut self.replicas {
            if idle == 0 {
                return;
            }
            let wait = replica.next_starts(now, &self.sizes).since(now);
            if wait.as_nanos() as f64 <= HAND_OVER_NANOS {
                continue;
            }
            if let Some(open) = replica.second.as_mut().filter(|open| open.is_open()) {
                open.withdrawing = true;
                actions.push(Action::Withdraw { replica: replica.id, batch: open.id });
                idle -= 1;
            }
        }
    }

    /// Maximum rows of a batch led by `head`: requests without a deadline must not delay arrivals that have one.
    fn cap(&self, head: u32) -> u32 {
        let entry = &self.table[head];
        let plan = self.sizes.of(entry.size).plan;
        let unbound = entry.soft == Time::MAX && !plan.unreachable;
        let others_bound = self.config.objective.is_some() || self.steps;
        if unbound && others_bound { plan.rows } else { self.config.batch_rows_max }
    }

    /// With several idle replicas, the rows for each if one large batch saves little; otherwise no limit.
    fn even_share(&self, head: u32) -> u32 {
        let idle = self.idle_replicas() as u64;
        let waiting = self.queue.rows_of(self.table[head].shape).min(u64::from(u32::MAX)) as u32;
        let together = waiting.min(self.config.batch_rows_max);
        if idle < 2 || together < 2 {
            return u32::MAX;
        }
        let latency = &self.sizes.of(self.table[head].size).latency;
        let saved = latency.gain(together / 2, together - together / 2);
        let whole = latency.mean(together).unwrap_or(0.0);
        if saved <= 0.1 * whole && whole > HAND_OVER_NANOS {
            u64::from(waiting).div_ceil(idle) as u32
        } else {
            u32::MAX
        }
    }

    /// Stages the largest batch led by `head` that is in time if it starts at `start`.
    fn stage(&mut self, now: Time, opening: Opening, actions: &mut Vec<Action>) {
        let Opening { at, start, head, cap } = opening;
        let pace = self.replicas[at].health.pace();
        let mut fill = Fill { pace, ..Fill::new(&self.table[head], cap) };
        self.gather(start, &mut fill);
        if let Some(half) = self.half_of_two(&fill) {
            fill = Fill { pace, ..Fill::new(&self.table[head], half) };
            self.gather(start, &mut fill);
        }
        self.stage_picked(now, at, fill, actions);
    }

    /// The size of each of two equal batches, if a deadline leaves so few rows for the second that they would wait
    /// for a batch nearly twice their size, and no more arrive to fill it: two halves end no later, and the first
    /// ends sooner.
    fn half_of_two(&self, fill: &Fill) -> Option<u32> {
        let all = self.queue.undemoted_rows().min(self.queue.rows_of(fill.shape));
        if fill.limit == Time::MAX || fill.rows >= fill.cap || all <= u64::from(fill.rows) {
            return None;
        }
        let takes = self.sizes.of(fill.size).latency.mean(fill.rows).unwrap_or(0.0);
        let all = all + self.arrival_rate.within(Duration::from_nanos(takes as u64));
        (all < 2 * u64::from(fill.rows)).then_some(all.div_ceil(2) as u32)
    }

    /// Stages the picked requests.
    pub(crate) fn stage_picked(&mut self, now: Time, at: usize, fill: Fill, actions: &mut Vec<Action>) {
        debug_assert!(!self.picked.is_empty(), "the head always fits");
        let replica = self.replicas[at].id;
        let batch = BatchId(self.next_batch);
        self.next_batch += 1;
        let requests = self.dequeue_picked(at, fill);
        let mut slots = self.spare.pop().unwrap_or_default();
        slots.extend_from_slice(&self.picked);
        for slot in &slots {
            self.table[*slot].place = Place::Batch(replica, batch);
        }
        let staged = Batch {
            id: batch,
            rows: fill.rows,
            bytes: fill.bytes,
            shape: fill.shape,
            size: fill.size,
            limit: fill.limit,
            cap: fill.cap,
            started: now,
            taken: false,
            closed: !self.config.batched || slots.iter().any(|slot| self.table[*slot].alone),
            withdrawing: false,
            followed: None,
            twin: None,
            requests: slots,
        };
        self.earn_tokens();
        let place = &mut self.replicas[at];
        if place.first.is_none() {
            place.first = Some(staged)
        } else {
            place.second = Some(staged)
        }
        let deadline_hint = (fill.limit < Time::MAX).then_some(fill.limit);
        actions.push(Action::Stage { replica, batch, requests, deadline_hint });
    }

    /// Picks from the queue the requests that may join a batch that starts at `start`, in order, into `picked`.
    pub(crate) fn gather(&mut self, start: Time, fill: &mut Fill) {
        self.picked.clear();
        let mut left = self.queue.rows_of(fill.shape);
        let latency = &self.sizes.of(fill.size).latency;
        let pace = fill.pace;
        let takes = |rows| Duration::from_nanos((latency.high(rows) as f64 * pace) as u64);
        for item in self.queue.iter().take(SCAN_MAX) {
            if item.shape != fill.shape {
                continue;
            }
            let entry = &self.table[item.slot];
            let rows = fill.rows.saturating_add(item.rows);
            let bytes = fill.bytes.saturating_add(entry.bytes);
            let leads = fill.rows == 0;
            if !leads && (entry.alone || rows > fill.cap || bytes > self.config.batch_max_bytes) {
                break;
            }
            // A request that can't be met even in the smallest batch does not limit the batch for the others.
            let own = start + takes(item.rows);
            let limit = if own <= entry.limit() { fill.limit.min(entry.limit()) } else { fill.limit };
            if !leads && start + takes(rows) > limit {
                break;
            }
            (fill.rows, fill.bytes, fill.limit) = (rows, bytes, limit);
            self.picked.push(item.slot);
            left -= u64::from(item.rows);
            if left == 0 || entry.alone || rows >= fill.cap {
                break;
            }
        }
    }

    /// Removes the picked requests from the queue.
    fn dequeue_picked(&mut self, at: usize, fill: Fill) -> Vec<RequestId> {
        debug_assert!(!self.replicas[at].draining);
        let mut requests = Vec::with_capacity(self.picked.len());
        for slot in &self.picked {
            let entry = &self.table[*slot];
            self.queue.serve(entry);
            requests.push(entry.id);
        }
        // Credit grows with the rows that run; more than one batch of it would admit a burst.
        self.ageing_credit =
            (self.ageing_credit + fill.rows.div_ceil(AGEING_PART)).min(self.config.batch_rows_max);
        requests
    }
}

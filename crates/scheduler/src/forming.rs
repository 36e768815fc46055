//! Batches: who runs now, with whom, where, and what is better left waiting for a moment.
//!
//! Reads the queue and the replicas, hands back what to stage and when to look again. Admits nobody.

use std::cmp::Reverse;
use std::time::Duration;

use inferd_types::{BatchId, Error, ErrorKind, RequestId, Time};

use crate::admission::best_effort_key;
use crate::message::{Action, Refusal};
use crate::replica::Batch;
use crate::scheduler::Scheduler;
use crate::table::Place;

/// A request that waited this long rises by one class, and again after as long.
const AGEING: Duration = Duration::from_secs(1);
/// Of all rows that run, one in so many may have risen: ageing prevents starvation, it must not turn an overload of
/// the low classes into one of the high.
const AGEING_PART: u32 = 8;
/// Most items that are looked at to fill one batch when shapes are mixed.
const SCAN_MAX: usize = 4096;
/// What handing a batch to an idle replica costs; the least that merging two batches must save.
const HAND_OVER_NANOS: f64 = 100_000.0;

/// What a batch holds so far.
#[derive(Clone, Copy)]
struct Fill {
    rows: u32,
    bytes: usize,
    limit: Time,
    shape: u64,
    /// Most rows.
    cap: u32,
}

impl Scheduler {
    /// Forms batches. Call it when there are no more events for this instant, and when a wake-up is due.
    pub fn decide(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.returning.advance(now);
        self.expire(now, actions);
        self.age(now);
        let mut wake = None;
        if !self.queue.is_empty() {
            wake = self.fill_idle(now, actions);
            if wake.is_none() && !self.queue.is_empty() {
                self.extend_open(now, actions);
                self.fill_behind(now, actions);
            }
        }
        if self.queue.is_empty() {
            self.rebalance(now, actions);
        }
        if let Some(at) = [wake, self.next_expiry()].into_iter().flatten().min() {
            actions.push(Action::WakeAt(at));
        }
    }

    /// Answers what can't be run within its timeout any more, wherever it stands in the queue.
    fn expire(&mut self, now: Time, actions: &mut Vec<Action>) {
        let shortest = Duration::from_nanos(self.latency.high(1));
        while let Some(Reverse((timeout, id))) = self.timeouts.peek().copied() {
            if timeout > now && now + shortest <= timeout {
                break;
            }
            self.timeouts.pop();
            let Some(slot) = self.table.find(RequestId(id)) else { continue };
            match self.table[slot].place {
                Place::Queued => self.time_out(slot, actions),
                Place::Batch(replica, batch) => {
                    let behind = self.replica_mut(replica).and_then(|replica| replica.second.as_mut());
                    if let Some(open) = behind.filter(|open| open.id == batch && open.is_open()) {
                        open.withdrawing = true;
                        actions.push(Action::Withdraw { replica, batch });
                    }
                }
                Place::Away => {}
            }
        }
    }

    fn next_expiry(&self) -> Option<Time> {
        let waiting = !self.queue.is_empty() || self.replicas.iter().any(|replica| replica.second.is_some());
        let Reverse((timeout, _)) = self.timeouts.peek().filter(|_| waiting)?;
        let shortest = Duration::from_nanos(self.latency.high(1));
        Some((*timeout).min((*timeout - shortest) + Duration::from_nanos(1)))
    }

    fn time_out(&mut self, slot: u32, actions: &mut Vec<Action>) {
        let entry = &self.table[slot];
        let request = entry.id;
        self.queue.remove(entry);
        self.table.release(slot);
        let error = Error::new(
            ErrorKind::DeadlineMissed,
            "the timeout passed before the request could run; allow more time, or add replicas",
        );
        self.answer(request, Refusal::TimedOut, error, actions);
    }

    /// Lets those who waited long rise, as far as credit goes.
    fn age(&mut self, now: Time) {
        let mut risen = Vec::new();
        // One of more rows than a batch has needs no more credit than there can be.
        let (table, credit, most) = (&self.table, self.ageing_credit, self.config.batch_rows_max);
        self.queue.elders(table, |slot, above| {
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

    /// Gives work to idle replicas. `Some` is the time until which a batch is better held for returning callers.
    fn fill_idle(&mut self, now: Time, actions: &mut Vec<Action>) -> Option<Time> {
        loop {
            let at = self.replicas.iter().position(|replica| replica.is_idle())?;
            let head = self.settle_head(now, now, actions)?;
            if let Some(until) = self.linger(now, head) {
                return Some(until);
            }
            let cap = self.cap(head).min(self.even_share(head));
            self.stage(now, at, now, head, cap, actions);
        }
    }

    /// Adds what came since to batches that their replica has not taken.
    fn extend_open(&mut self, now: Time, actions: &mut Vec<Action>) {
        for at in 0..self.replicas.len() {
            let Some(open) = self.replicas[at].open_batch() else { continue };
            let mut fill = Fill {
                rows: open.rows,
                bytes: open.bytes,
                limit: open.limit,
                shape: open.shape,
                cap: self.config.batch_rows_max,
            };
            if fill.rows >= fill.cap || self.queue.rows_of(fill.shape) == 0 {
                continue;
            }
            let start = self.replicas[at].first_ends(now, &self.latency);
            self.gather(start, &mut fill);
            if self.picked.is_empty() {
                continue;
            }
            let replica = self.replicas[at].id;
            let requests = self.hand_out(at, fill);
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

    /// Stages second batches where that hides the hand-over and spoils no batch.
    fn fill_behind(&mut self, now: Time, actions: &mut Vec<Action>) {
        loop {
            let candidates =
                self.replicas.iter().enumerate().filter(|(_, replica)| replica.has_room_behind());
            let first = candidates.min_by_key(|(_, replica)| replica.first_ends(now, &self.latency));
            let Some(at) = first.map(|(at, _)| at) else { return };
            let start = self.replicas[at].first_ends(now, &self.latency);
            let Some(head) = self.settle_head(now, start, actions) else { return };
            if self.hold(at, start, head) {
                return;
            }
            let cap = self.cap(head);
            self.stage(now, at, start, head, cap, actions);
        }
    }

    /// Takes batches back from behind a busy replica while another is idle and nothing else waits.
    fn rebalance(&mut self, now: Time, actions: &mut Vec<Action>) {
        let mut idle = self.replicas.iter().filter(|replica| replica.is_idle()).count();
        for replica in &mut self.replicas {
            if idle == 0 {
                return;
            }
            let wait = replica.first_ends(now, &self.latency).since(now);
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

    /// The first in line, after those before it that are past help were answered (timeout) or sent back behind all
    /// that can still be met (objective).
    fn settle_head(&mut self, now: Time, start: Time, actions: &mut Vec<Action>) -> Option<u32> {
        loop {
            let slot = self.queue.first()?.slot;
            let entry = &self.table[slot];
            let takes = Duration::from_nanos(self.latency.high(entry.rows));
            if entry.timeout <= now || (now + takes > entry.timeout && !entry.probe) {
                self.time_out(slot, actions);
            } else if !entry.demoted && self.is_better_sent_back(start, slot) {
                self.demote(slot);
            } else {
                return Some(slot);
            }
        }
    }

    fn demote(&mut self, slot: u32) {
        self.queue.remove(&self.table[slot]);
        let entry = &mut self.table[slot];
        entry.soft = Time::MAX;
        entry.key = best_effort_key(entry.arrived);
        entry.demoted = true;
        self.count.demoted += 1;
        self.queue.insert(slot, &self.table[slot]);
    }

    /// Whether the head stands in the way: its objective can't be met, or meeting it costs more than it is worth.
    fn is_better_sent_back(&mut self, start: Time, head: u32) -> bool {
        let entry = &self.table[head];
        let takes = Duration::from_nanos(self.latency.high(entry.rows));
        let hopeless = entry.soft < Time::MAX && start + takes > entry.soft;
        hopeless || (entry.limit() < Time::MAX && self.spoils_more_than_it_gains(start, head))
    }

    /// Whether more deadlines are met if the head is passed over, because it would force a small batch while many
    /// wait that are due soon after it. Without this, one late batch makes the next ones small, which makes those
    /// after them late: under overload the rate would fall to that of lone requests and never recover.
    fn spoils_more_than_it_gains(&mut self, start: Time, head: u32) -> bool {
        let entry = &self.table[head];
        let shape = entry.shape;
        let planned = u64::from(self.pace.rows).min(self.queue.rows_of(shape)) as u32;
        if planned <= entry.rows || start + Duration::from_nanos(self.latency.high(planned)) <= entry.limit()
        {
            return false;
        }
        let mut fill = Fill { rows: 0, bytes: 0, limit: Time::MAX, shape, cap: self.config.batch_rows_max };
        self.gather(start, &mut fill);
        let small = self.picked.len();
        let most = 3 * self.pace.rows as usize;
        self.due.clear();
        let same = self.queue.iter().take(SCAN_MAX).filter(|item| item.shape == shape).take(most);
        self.due.extend(same.map(|item| (self.table[item.slot].limit(), item.rows)));
        let after = start + Duration::from_nanos(self.latency.mean(fill.rows).unwrap_or(0.0) as u64);
        let with = small + self.met(after, &self.due[small.min(self.due.len())..]);
        self.met(start, &self.due) > with
    }

    /// How many of `due`, in this order, are met from `start` on in batches of the planned size that leave out who
    /// can't be.
    fn met(&self, start: Time, due: &[(Time, u32)]) -> usize {
        let mut left: u64 = due.iter().map(|(_, rows)| u64::from(*rows)).sum();
        let (mut time, mut met, mut next) = (start, 0, 0);
        while next < due.len() {
            let planned = u64::from(self.pace.rows).min(left) as u32;
            let end = time + Duration::from_nanos(self.latency.high(planned));
            let mut rows = 0;
            while let Some((limit, more)) =
                due.get(next).filter(|(_, more)| rows == 0 || rows + more <= planned)
            {
                next += 1;
                left -= u64::from(*more);
                if *limit >= end {
                    rows += more;
                    met += 1;
                }
            }
            if rows > 0 {
                time = time + Duration::from_nanos(self.latency.mean(rows).unwrap_or(0.0) as u64);
            }
        }
        met
    }

    /// Most rows of a batch that `head` leads: what has no deadline must not hold up those who come meanwhile and
    /// have one.
    fn cap(&self, head: u32) -> u32 {
        let unbound = self.table[head].soft == Time::MAX && !self.pace.unreachable;
        if unbound && self.config.objective.is_some() { self.pace.rows } else { self.config.batch_rows_max }
    }

    /// With several idle replicas: the rows for each, where running together saves little; else no limit.
    fn even_share(&self, head: u32) -> u32 {
        let idle = self.replicas.iter().filter(|replica| replica.is_idle()).count() as u64;
        let waiting = self.queue.rows_of(self.table[head].shape).min(u64::from(u32::MAX)) as u32;
        let together = waiting.min(self.config.batch_rows_max);
        if idle < 2 || together < 2 {
            return u32::MAX;
        }
        let saved = self.latency.gain(together / 2, together - together / 2);
        let whole = self.latency.mean(together).unwrap_or(0.0);
        if saved <= 0.1 * whole && whole > HAND_OVER_NANOS {
            u64::from(waiting).div_ceil(idle) as u32
        } else {
            u32::MAX
        }
    }

    /// Until when to hold a small batch although a replica is idle: callers of the last batch are about to return.
    fn linger(&self, now: Time, head: u32) -> Option<Time> {
        if !self.config.linger || self.config.batch_rows_max == 1 {
            return None;
        }
        let (until, missing) = self.returning.expected().filter(|(until, _)| *until > now)?;
        let (waiting, more) = self.room_to_grow(head, missing)?;
        let wait = until.since(now).as_nanos() as f64;
        let late = until + Duration::from_nanos(self.latency.high(waiting + more)) > self.table[head].limit();
        // The callers are mostly back long before the window ends: half of it is a generous guess of the cost.
        (self.latency.gain(waiting, more) > wait / 2.0 && !late).then_some(until)
    }

    /// Whether to stage nothing behind a running batch, because its callers will be back right after it and a
    /// larger batch with them is worth an idle moment.
    fn hold(&self, at: usize, start: Time, head: u32) -> bool {
        let Some(first) = self.replicas[at].first.as_ref().filter(|_| self.config.linger) else {
            return false;
        };
        let back = self.returning.will_return(first.requests.len());
        let Some((waiting, more)) = self.room_to_grow(head, back) else { return false };
        let size = Duration::from_nanos(self.latency.high(waiting + more));
        let late = start + size + size / 5 > self.table[head].limit();
        self.latency.gain(waiting, more) > HAND_OVER_NANOS && !late
    }

    /// The rows that wait with `head`, and how many of those that `requests` more would bring fit beside them.
    fn room_to_grow(&self, head: u32, requests: u32) -> Option<(u32, u32)> {
        let room = u64::from(self.config.batch_rows_max);
        let waiting = self.queue.rows_of(self.table[head].shape);
        let each = self.queue.rows().div_ceil(self.queue.requests().max(1) as u64);
        let more = (u64::from(requests) * each).min(room.saturating_sub(waiting));
        (more > 0).then_some((waiting as u32, more as u32))
    }

    /// Stages the largest batch led by `head` that is done in time if it starts at `start`.
    fn stage(&mut self, now: Time, at: usize, start: Time, head: u32, cap: u32, actions: &mut Vec<Action>) {
        let shape = self.table[head].shape;
        let mut fill = Fill { rows: 0, bytes: 0, limit: Time::MAX, shape, cap };
        self.gather(start, &mut fill);
        debug_assert!(!self.picked.is_empty(), "the head always fits");
        let replica = self.replicas[at].id;
        let batch = BatchId(self.next_batch);
        self.next_batch += 1;
        let requests = self.hand_out(at, fill);
        let mut slots = self.spare.pop().unwrap_or_default();
        slots.extend_from_slice(&self.picked);
        for slot in &slots {
            self.table[*slot].place = Place::Batch(replica, batch);
        }
        let staged = Batch {
            id: batch,
            rows: fill.rows,
            bytes: fill.bytes,
            shape,
            limit: fill.limit,
            started: now,
            taken: false,
            closed: !self.config.batched || slots.iter().any(|slot| self.table[*slot].alone),
            withdrawing: false,
            requests: slots,
        };
        let place = &mut self.replicas[at];
        if place.first.is_none() {
            place.first = Some(staged)
        } else {
            place.second = Some(staged)
        }
        let deadline_hint = (fill.limit < Time::MAX).then_some(fill.limit);
        actions.push(Action::Stage { replica, batch, requests, deadline_hint });
    }

    /// Picks from the queue what may join a batch that starts at `start`, in order, into `picked`.
    fn gather(&mut self, start: Time, fill: &mut Fill) {
        self.picked.clear();
        let mut left = self.queue.rows_of(fill.shape);
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
            // What can't be met in the smallest batch does not keep the batch small for the others.
            let own = start + Duration::from_nanos(self.latency.high(item.rows));
            let limit = if own <= entry.limit() { fill.limit.min(entry.limit()) } else { fill.limit };
            if !leads && start + Duration::from_nanos(self.latency.high(rows)) > limit {
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

    /// Takes what was picked out of the queue.
    fn hand_out(&mut self, at: usize, fill: Fill) -> Vec<RequestId> {
        debug_assert!(!self.replicas[at].draining);
        let mut requests = Vec::with_capacity(self.picked.len());
        for slot in &self.picked {
            let entry = &self.table[*slot];
            self.queue.remove(entry);
            requests.push(entry.id);
        }
        // Credit grows with what runs; more than a batch of it would let a burst through.
        self.ageing_credit =
            (self.ageing_credit + fill.rows.div_ceil(AGEING_PART)).min(self.config.batch_rows_max);
        requests
    }
}

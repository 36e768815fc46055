//! Chooses the head of the queue: times out, refuses and demotes the requests before it that can't be met.
//!
//! Reads the queue and the latency model, hands on refusals and the head. Stages nothing.

use std::cmp::Reverse;
use std::time::Duration;

use inferd_types::{Error, ErrorKind, RequestId, Time};

use super::forming::{Fill, SCAN_MAX};
use crate::admission::best_effort_key;
use crate::latency::sizes::Size;
use crate::message::{Action, BatchRule, Refusal};
use crate::queue::table::Place;
use crate::scheduler::Scheduler;

impl Scheduler {
    /// Times out queued requests that can no longer run within their timeout, and refuses demoted ones that waited
    /// too long: under lasting overload they would never be served.
    pub(crate) fn expire(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.expire_timeouts(now, actions);
        // Without replicas nothing runs: that is no overload.
        while !self.replicas.is_empty()
            && let Some(Reverse((_, id))) =
                self.overdue.peek().copied().filter(|Reverse((due, _))| *due <= now)
        {
            self.overdue.pop();
            let queued = |slot: &u32| self.table[*slot].place == Place::Queued;
            if let Some(slot) = self.table.find(RequestId(id)).filter(queued) {
                self.refuse_overdue(now, slot, actions);
            }
        }
    }

    fn expire_timeouts(&mut self, now: Time, actions: &mut Vec<Action>) {
        let shortest = Duration::from_nanos(self.sizes.shortest());
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

    pub(crate) fn next_expiry(&self) -> Option<Time> {
        let waiting = !self.queue.is_empty() || self.replicas.iter().any(|replica| replica.second.is_some());
        let shortest = Duration::from_nanos(self.sizes.shortest());
        let timeout = self
            .timeouts
            .peek()
            .filter(|_| waiting)
            .map(|Reverse((timeout, _))| (*timeout).min((*timeout - shortest) + Duration::from_nanos(1)));
        let may_run = !self.queue.is_empty() && !self.replicas.is_empty();
        let overdue = self.overdue.peek().filter(|_| may_run).map(|Reverse((due, _))| *due);
        timeout.into_iter().chain(overdue).min()
    }

    fn refuse_overdue(&mut self, now: Time, slot: u32, actions: &mut Vec<Action>) {
        let entry = &self.table[slot];
        let (request, arrived) = (entry.id, entry.arrived);
        let objective = entry.promised.since(arrived);
        self.queue.remove(entry);
        self.table.release(slot);
        let message = format!(
            "the request waited {:.1} s, {:.1} times its objective of {:.0} ms, behind requests that could still meet \
             theirs; try again later, add replicas, or raise late_wait_objectives",
            now.since(arrived).as_secs_f64(),
            now.since(arrived).as_secs_f64() / objective.as_secs_f64().max(1e-9),
            objective.as_secs_f64() * 1e3,
        );
        let error = Error::new(ErrorKind::Overloaded, message).with_retry_after(self.drain_time(now));
        self.answer(request, Refusal::WaitedTooLong, error, actions);
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

    /// The head of the queue, after requests before it were timed out, or demoted behind all that can still meet
    /// their objective.
    pub(crate) fn next_head(&mut self, now: Time, start: Time, actions: &mut Vec<Action>) -> Option<u32> {
        let slack = self.config.batch_rule == BatchRule::Slack;
        loop {
            let slot = self.queue.first()?.slot;
            let entry = &self.table[slot];
            let takes = Duration::from_nanos(self.sizes.of(entry.size).latency.needed(entry.rows));
            if entry.timeout <= now || (now + takes > entry.timeout && !entry.probe) {
                self.time_out(slot, actions);
            } else if slack && !entry.demoted && self.should_demote(start, slot) {
                self.demote(now, slot);
            } else {
                return Some(slot);
            }
        }
    }

    fn demote(&mut self, now: Time, slot: u32) {
        self.queue.remove(&self.table[slot]);
        let entry = &mut self.table[slot];
        entry.soft = Time::MAX;
        entry.key = best_effort_key(entry.arrived);
        entry.demoted = true;
        self.count.demoted += 1;
        self.queue.insert(slot, &self.table[slot]);
        self.watch_overdue(now, slot);
    }

    /// Whether to demote the head: its objective can't be met, or meeting it costs more than it gains.
    fn should_demote(&mut self, start: Time, head: u32) -> bool {
        let entry = &self.table[head];
        let takes = Duration::from_nanos(self.sizes.of(entry.size).latency.needed(entry.rows));
        let missed = entry.soft < Time::MAX && start + takes > entry.soft;
        missed || (entry.limit() < Time::MAX && self.costs_more_than_it_gains(start, head))
    }

    /// Whether more deadlines are met without the head, because it would force a small batch while many requests
    /// are due soon after it. Otherwise one late batch makes the next ones small, which makes their successors
    /// late: under overload, throughput would fall to that of single requests and never recover.
    fn costs_more_than_it_gains(&mut self, start: Time, head: u32) -> bool {
        let entry = &self.table[head];
        let (shape, size) = (entry.shape, self.sizes.of(entry.size));
        let plan = size.plan;
        let planned = u64::from(plan.rows).min(self.queue.rows_of(shape)) as u32;
        if planned <= entry.rows || start + Duration::from_nanos(size.latency.high(planned)) <= entry.limit()
        {
            return false;
        }
        let size = entry.size;
        let mut fill = Fill::new(entry, self.config.batch_rows_max);
        self.gather(start, &mut fill);
        let small = self.picked.len();
        let most = 3 * plan.rows as usize;
        self.due.clear();
        let same = self.queue.iter().take(SCAN_MAX).filter(|item| item.shape == shape).take(most);
        self.due.extend(same.map(|item| (self.table[item.slot].limit(), item.rows)));
        let after =
            start + Duration::from_nanos(self.sizes.of(size).latency.mean(fill.rows).unwrap_or(0.0) as u64);
        let with = small + self.met(after, size, &self.due[small.min(self.due.len())..]);
        self.met(start, size, &self.due) > with
    }

    /// How many of `due`, in this order, are met in batches of the planned size from `start` on that skip requests
    /// that can't be met.
    fn met(&self, start: Time, size: u8, due: &[(Time, u32)]) -> usize {
        let Size { latency, plan, .. } = self.sizes.of(size);
        let mut left: u64 = due.iter().map(|(_, rows)| u64::from(*rows)).sum();
        let (mut time, mut met, mut next) = (start, 0, 0);
        while next < due.len() {
            let planned = u64::from(plan.rows).min(left) as u32;
            let end = time + Duration::from_nanos(latency.high(planned));
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
                time = time + Duration::from_nanos(latency.mean(rows).unwrap_or(0.0) as u64);
            }
        }
        met
    }
}

//! The door: whether an arrival is queued or refused at once, and the answer of whoever is passed over.
//!
//! Reads the queue, the replicas and the latency model. Forms no batch.

use std::time::Duration;

use inferd_types::{Error, ErrorKind, Time};

use crate::message::{Action, Arrival, Refusal};
use crate::pace;
use crate::scheduler::Scheduler;
use crate::table::{Entry, Place};

/// How long a request without a deadline lets others pass. It is ordered as if it were due then, so that those with
/// deadlines never starve those without.
const PATIENCE: Duration = Duration::from_secs(10);
/// A timeout that the model says can't be met is tried all the same if nothing ran for this long: a model that
/// learned wrongly from a bad moment would refuse for ever.
const PROBE_AFTER: Duration = Duration::from_millis(250);
/// Told to callers while the drain time can't be predicted.
const RETRY_UNKNOWN: Duration = Duration::from_secs(1);
/// Shorter hints only make callers come back into the same queue.
const RETRY_MIN: Duration = Duration::from_millis(1);

impl Scheduler {
    pub(crate) fn admit(&mut self, now: Time, arrival: Arrival, actions: &mut Vec<Action>) {
        self.count.arrivals += 1;
        self.returning.arrived(now);
        if self.table.find(arrival.request).is_some() {
            return;
        }
        let rows = arrival.rows.max(1);
        let own = self.latency.high(rows);
        let mut probe = false;
        if let Some(timeout) = arrival.timeout
            && (timeout <= now || own > timeout.since(now).as_nanos() as u64)
        {
            probe = timeout > now && self.may_probe(now);
            if !probe {
                return self.refuse_short_timeout(arrival, own, actions);
            }
        }
        // An empty queue takes anything: a request larger than the queue would otherwise never be served.
        if !self.queue.is_empty() {
            if self.queue.rows() + u64::from(rows) > self.config.queue_rows_max as u64 {
                return self.refuse_full(now, arrival, Refusal::QueueRows, actions);
            }
            if self.queue.bytes().saturating_add(arrival.bytes) > self.config.queue_max_bytes {
                return self.refuse_full(now, arrival, Refusal::QueueBytes, actions);
            }
        }
        let entry = self.entry(now, arrival, own, probe);
        if entry.limit() < Time::MAX {
            self.watch_horizon(entry.limit().since(now));
        }
        if entry.limit() < Time::MAX
            && let Some(late) = self.predicted_lateness(now, &entry).filter(|_| !probe)
        {
            return self.refuse_late(now, arrival, late, actions);
        }
        let slot = self.table.insert(entry);
        self.queue.insert(slot, &self.table[slot]);
        self.watch_timeout(slot);
    }

    fn entry(&self, now: Time, arrival: Arrival, own: u64, probe: bool) -> Entry {
        // An objective that can't be met even alone on an idle replica orders nothing and refuses nobody.
        let soft = match self.config.objective {
            Some(objective) if u128::from(own) <= objective.latency.as_nanos() => now + objective.latency,
            _ => Time::MAX,
        };
        let timeout = arrival.timeout.unwrap_or(Time::MAX);
        let limit = soft.min(timeout);
        let key = if limit == Time::MAX { best_effort_key(now) } else { limit.as_nanos() };
        Entry {
            id: arrival.request,
            arrived: now,
            soft,
            timeout,
            key,
            shape: arrival.shape.0,
            rows: arrival.rows.max(1),
            bytes: arrival.bytes,
            class: arrival.priority.0,
            risen: 0,
            place: Place::Queued,
            demoted: false,
            alone: false,
            probe,
        }
    }

    fn may_probe(&self, now: Time) -> bool {
        self.queue.is_empty()
            && now.since(self.learned) >= PROBE_AFTER
            && self.replicas.iter().any(|replica| replica.is_idle())
    }

    /// By how much the backlog puts a newcomer past its deadline; `None` where it is in time or nothing is known.
    fn predicted_lateness(&mut self, now: Time, entry: &Entry) -> Option<Duration> {
        let batch = self.pace.batch_nanos?;
        if self.queue.is_empty() && self.replicas.iter().any(|replica| replica.is_idle()) {
            return None;
        }
        let planned = u64::from(self.pace.rows.max(1));
        // Demoted requests stand behind, but they will be run: whoever counted on their never running would soon
        // find the queue full of them.
        let ahead =
            self.queue.rows_ahead(entry.class, entry.key) + self.queue.demoted() + self.look_at_replicas(now);
        let whole = ahead / planned;
        if self.joins_next_batch(now, entry, ahead) {
            return None;
        }
        // What is left over runs together with the newcomer, but under a backlog its batch fills up behind it.
        let beside = if whole > 0 { planned } else { ahead + u64::from(entry.rows) };
        let size = u32::try_from(beside.min(planned)).unwrap_or(u32::MAX).max(entry.rows);
        let start = pace::drained((whole as f64 * batch) as u64, &mut self.free)?;
        let done = start
            + Duration::from_nanos(self.latency.high(size))
            + self.margin(whole + u64::from(start > now));
        (done > entry.limit()).then(|| done.since(entry.limit()))
    }

    /// Whether a newcomer and all that waits before it can run at once, in one batch on an idle replica, without
    /// making the first in line late. The planned size may be smaller, since it leaves room for a batch before.
    fn joins_next_batch(&self, now: Time, entry: &Entry, ahead: u64) -> bool {
        let rows = ahead + u64::from(entry.rows);
        let idle = self.replicas.iter().any(|replica| replica.is_idle());
        if !idle || rows > u64::from(self.config.batch_rows_max) {
            return false;
        }
        let first = self.queue.first().map_or(Time::MAX, |first| self.table[first.slot].limit());
        now + Duration::from_nanos(self.latency.high(rows as u32)) <= first.min(entry.limit())
    }

    /// What `batches` of the planned size may take longer than their mean: independent spreads add up as squares.
    fn margin(&self, batches: u64) -> Duration {
        let spread = self.latency.high(self.pace.rows) as f64 - self.pace.batch_nanos.unwrap_or(0.0);
        Duration::from_nanos((spread.max(0.0) * (batches as f64).sqrt()) as u64)
    }

    /// Fills `free` with the times at which the replicas are done with what can no longer change, and returns the
    /// rows of batches that are still open: a newcomer may join them, they count like queued ones.
    fn look_at_replicas(&mut self, now: Time) -> u64 {
        let mut open = 0;
        self.free.clear();
        for replica in self.replicas.iter().filter(|replica| !replica.draining) {
            let batch = replica.open_batch();
            open += batch.map_or(0, |batch| u64::from(batch.rows));
            let free = if batch.is_some() {
                replica.first_ends(now, &self.latency)
            } else {
                replica.free_at(now, &self.latency)
            };
            self.free.push(free);
        }
        open
    }

    /// When everything that waits now will have run.
    fn drain_time(&mut self, now: Time) -> Duration {
        let rows = self.queue.rows() + self.look_at_replicas(now);
        let drained = self.pace.batch_nanos.and_then(|batch| {
            let batches = rows as f64 / f64::from(self.pace.rows.max(1));
            pace::drained((batches * batch) as u64, &mut self.free)
        });
        drained.map_or(RETRY_UNKNOWN, |drained| drained.since(now).max(RETRY_MIN))
    }

    fn refuse_short_timeout(&mut self, arrival: Arrival, own: u64, actions: &mut Vec<Action>) {
        let takes = own as f64 / 1e6;
        let message = if own == 0 {
            "the timeout had passed when the request arrived; raise it".to_owned()
        } else {
            format!(
                "the timeout is shorter than the model takes ({takes:.1} ms); raise it to at least {:.0} ms",
                (takes * 1.5).ceil()
            )
        };
        self.answer(
            arrival.request,
            Refusal::TimeoutTooShort,
            Error::new(ErrorKind::DeadlineMissed, message),
            actions,
        );
    }

    fn refuse_full(&mut self, now: Time, arrival: Arrival, reason: Refusal, actions: &mut Vec<Action>) {
        let message = match reason {
            Refusal::QueueBytes => format!(
                "the queue is full: {} bytes wait; try again later, or raise queue_max_bytes above {}",
                self.queue.bytes(),
                self.config.queue_max_bytes
            ),
            _ => format!(
                "the queue is full: {} rows wait; try again later, add replicas, or raise queue_rows_max above {}",
                self.queue.rows(),
                self.config.queue_rows_max
            ),
        };
        let error = Error::new(ErrorKind::Overloaded, message).with_retry_after(self.drain_time(now));
        self.answer(arrival.request, reason, error, actions);
    }

    fn refuse_late(&mut self, now: Time, arrival: Arrival, late: Duration, actions: &mut Vec<Action>) {
        let message = format!(
            "the backlog would make the answer {:.1} ms late; try again later, allow more time, or add replicas",
            late.as_secs_f64() * 1e3
        );
        let error = Error::new(ErrorKind::Overloaded, message).with_retry_after(self.drain_time(now));
        self.answer(arrival.request, Refusal::PredictedLate, error, actions);
    }

    pub(crate) fn answer(
        &mut self,
        request: inferd_types::RequestId,
        reason: Refusal,
        error: Error,
        actions: &mut Vec<Action>,
    ) {
        self.count.refusals[reason as usize] += 1;
        actions.push(Action::Answer { request, reason, error });
    }
}

/// The place in the order of what has no deadline, or has lost it.
pub(crate) fn best_effort_key(arrived: Time) -> u64 {
    (arrived + PATIENCE).as_nanos()
}

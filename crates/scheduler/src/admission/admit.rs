//! The door: whether an arrival is queued or refused at once.
//!
//! Reads the queue, the replicas and the latency model. Forms no batch.

use std::time::Duration;

use inferd_types::{Due, Time};

use crate::latency::pace::{self, Pace};
use crate::latency::sizes::Size;
use crate::message::{Action, Arrival, BatchRule, Refusal};
use crate::queue::table::{Entry, Place};
use crate::state::scheduler::Scheduler;

/// How long a request without a deadline lets others pass. It is ordered as if it were due then, so that those with
/// deadlines never starve those without.
const PATIENCE: Duration = Duration::from_secs(10);
/// A timeout that the model says can't be met is tried all the same if nothing ran for this long: a model that
/// learned wrongly from a bad moment would refuse for ever.
const PROBE_AFTER: Duration = Duration::from_millis(250);
/// While no more comes than can be done, how far a newcomer's runs are judged from what they take on average towards what
/// they take at the judged quantile. Of those whom that quantile itself keeps out, nearly all would have been in time.
const CAUTION: f64 = 0.5;
/// Told to callers while the drain time can't be predicted.
const RETRY_UNKNOWN: Duration = Duration::from_secs(1);
/// Shorter hints only make callers come back into the same queue.
const RETRY_MIN: Duration = Duration::from_millis(1);

impl Scheduler {
    /// Queues the parts of one request, or refuses them as one in the name of the first.
    pub(crate) fn admit(&mut self, now: Time, parts: &[Arrival], actions: &mut Vec<Action>) {
        self.count.arrivals += 1;
        parts.iter().for_each(|_| self.returning.arrived(now));
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return };
        if parts.iter().any(|part| self.table.find(part.request).is_some()) {
            return;
        }
        let size = self.sizes.index(first.size, &self.config, self.horizon);
        self.sizes.arrived(size);
        let own = self.takes_alone(size, parts);
        let mut probe = false;
        if let Some(timeout) = first.timeout
            && (timeout <= now || own > timeout.since(now).as_nanos() as u64)
        {
            probe = timeout > now && self.may_probe(now);
            if !probe {
                return self.refuse_short_timeout(first, own, actions);
            }
        }
        let rows = parts.iter().map(|part| u64::from(part.rows.max(1))).sum();
        self.inflow.came(now, rows, self.horizon);
        if let Some(reason) = self.is_full(first, rows, parts.iter().map(|part| part.bytes).sum()) {
            return self.refuse_full(now, first, reason, actions);
        }
        let entry = self.entry(now, last, size, own, probe);
        let limit = entry.limit();
        if limit < Time::MAX && (probe || now + Duration::from_nanos(own) <= limit) {
            self.watch_horizon(limit.since(now));
        }
        self.steps |= matches!(first.due, Due::At(_));
        let refusable = first.due == Due::Objective && !probe && self.config.batch_rule == BatchRule::Slack;
        if limit < Time::MAX
            && refusable
            && let Some(late) = self.predicted_lateness(now, &entry, rows - u64::from(entry.rows))
        {
            return self.refuse_late(now, first, late, actions);
        }
        for part in parts {
            let slot = self.table.insert(self.entry(now, part, size, own, probe));
            self.queue.insert(slot, &self.table[slot]);
            self.watch_timeout(slot);
        }
    }

    /// Within what time all parts are run if nothing else is, in nanoseconds; 0 while nothing is known.
    fn takes_alone(&self, size: u8, parts: &[Arrival]) -> u64 {
        let largest = parts.iter().map(|part| part.rows.max(1)).max().unwrap_or(1);
        let each = self.sizes.of(size).latency.high(largest);
        if parts.len() == 1 {
            return each;
        }
        let running = self.replicas.len().min(self.config.running_max as usize).max(1);
        each.saturating_mul(parts.len().div_ceil(running) as u64)
    }

    /// Why the queue has no room for so much, if it has none.
    ///
    /// Where tenants share it, none may hold more than what is still free (the dynamic threshold of Choudhury and
    /// Hahne 1998): a burst of one finds the queue full when half of it is, and leaves the rest to the others.
    fn is_full(&self, arrival: &Arrival, rows: u64, bytes: usize) -> Option<Refusal> {
        // An empty queue takes anything: a request larger than the queue would otherwise never be served.
        if self.queue.is_empty() {
            return None;
        }
        let held = self.queue.held_by(arrival.priority.0, arrival.tenant).unwrap_or_default();
        if self.queue.rows() + rows + held.rows > self.config.queue_rows_max as u64 {
            Some(Refusal::QueueRows)
        } else if self.queue.bytes().saturating_add(bytes + held.bytes) > self.config.queue_max_bytes {
            Some(Refusal::QueueBytes)
        } else {
            None
        }
    }

    fn entry(&self, now: Time, arrival: &Arrival, size: u8, own: u64, probe: bool) -> Entry {
        let (promised, reachable) = match (arrival.due, self.config.objective) {
            // An objective that can't be met even alone on an idle replica orders nothing and refuses nobody.
            (Due::Objective, Some(objective)) => {
                (now + objective.latency, u128::from(own) <= objective.latency.as_nanos())
            }
            (Due::At(at), _) => (at, true),
            (Due::Objective, None) | (Due::Never, _) => (Time::MAX, false),
        };
        let soft = if reachable { promised } else { Time::MAX };
        let timeout = arrival.timeout.unwrap_or(Time::MAX);
        let limit = soft.min(timeout);
        let key = if limit == Time::MAX { best_effort_key(now) } else { limit.as_nanos() };
        Entry {
            id: arrival.request,
            arrived: now,
            promised,
            soft,
            timeout,
            key,
            tenant: arrival.tenant,
            shape: arrival.shape.0,
            size,
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
        self.queue.is_empty() && now.since(self.learned) >= PROBE_AFTER && self.idle_replicas() > 0
    }

    /// By how much the backlog, and `before` rows of its own request, put a newcomer past its deadline; `None` where
    /// it is in time or nothing is known.
    fn predicted_lateness(&mut self, now: Time, entry: &Entry, before: u64) -> Option<Duration> {
        let pace = self.sizes.of(entry.size).pace;
        let planned = u64::from(pace.rows.max(1));
        let batch = self.batch_of_backlog(pace)? * self.mean_pace();
        if self.queue.is_empty() && self.idle_replicas() > 0 {
            return None;
        }
        // Demoted requests stand behind, but they will be run: whoever counted on their never running would soon
        // find the queue full of them.
        let ahead =
            before + self.queue.rows_ahead(entry.class, entry.tenant, entry.key) + self.look_at_replicas(now);
        let whole = ahead / planned;
        if self.joins_next_batch(now, entry, ahead) {
            return None;
        }
        // What is left over runs together with the newcomer, but under a backlog its batch fills up behind it.
        let beside = if whole > 0 { planned } else { ahead + u64::from(entry.rows) };
        let size = u32::try_from(beside.min(planned)).unwrap_or(u32::MAX).max(entry.rows);
        let start = pace::drained((whole as f64 * batch) as u64, &mut self.free)?;
        // A burst ends, and whoever is let in at its end harms few; a load that lasts pays for each who is late.
        let overloaded = self.is_overloaded(entry.size);
        let caution = if overloaded { 1.0 } else { CAUTION };
        let latency = &self.sizes.of(entry.size).latency;
        let mean = latency.mean(size)?;
        let run = mean + caution * (latency.high(size) as f64 - mean);
        let margin = caution * self.margin(entry.size, whole + u64::from(start > now));
        let done = start + Duration::from_nanos((run + margin) as u64);
        if done <= entry.limit() || (!overloaded && self.fits_larger_batches(now, entry, ahead, whole)) {
            return None;
        }
        Some(done.since(entry.limit()))
    }

    /// Whether a newcomer that is late behind batches of the planned size is in time if these are somewhat larger, so
    /// that there are no more of them. A burst has more time than the plan, which leaves room for a batch before; a load
    /// that lasts and is more than can be done has not, and is not to be asked about.
    fn fits_larger_batches(&mut self, now: Time, entry: &Entry, ahead: u64, whole: u64) -> bool {
        if !self.sizes.is_one() {
            return false;
        }
        self.look_at_replicas(now);
        let Some(first) = self.free.iter().min().copied() else { return false };
        let head = self.queue.first().map_or(Time::MAX, |first| self.table[first.slot].limit());
        let latency = &self.sizes.of(entry.size).latency;
        let batches = whole.max(1);
        let rows = (ahead + u64::from(entry.rows)).div_ceil(batches);
        if rows > u64::from(self.config.batch_rows_max) {
            return false;
        }
        let high = latency.high(rows as u32);
        if first + Duration::from_nanos(high) > head {
            return false;
        }
        let each = latency.mean(rows as u32).unwrap_or(0.0) * self.mean_pace();
        let spread = (high as f64 - each).max(0.0);
        let run = each + CAUTION * spread * (1.0 + ((batches - 1) as f64).sqrt());
        let paused = each + self.sizes.pause().as_nanos() as f64;
        let start = pace::drained((paused * (batches - 1) as f64) as u64, &mut self.free);
        start.is_some_and(|start| start + Duration::from_nanos(run as u64) <= entry.limit())
    }

    /// Whether more rows come, for longer than a burst, than the replicas work off.
    fn is_overloaded(&self, size: u8) -> bool {
        let Some(each) = self.sizes.of(size).pace.row_nanos() else { return false };
        let work = self.inflow.within(self.horizon) as f64 * each * self.mean_pace();
        work > self.horizon.as_nanos() as f64 * self.servers().count() as f64
    }

    /// For how long as many rows of those that wait as a batch has keep a replica on average, in nanoseconds: their sizes may
    /// differ.
    fn batch_of_backlog(&self, pace: Pace) -> Option<f64> {
        if self.sizes.is_one() {
            return pace.batch_nanos;
        }
        Some(self.sizes.per_row(self.queue.by_size())? * f64::from(pace.rows))
    }

    /// Whether a newcomer and all that waits before it can run at once, in one batch on an idle replica, without
    /// making the first in line late. The planned size may be smaller, since it leaves room for a batch before.
    fn joins_next_batch(&self, now: Time, entry: &Entry, ahead: u64) -> bool {
        let rows = ahead + u64::from(entry.rows);
        let idle = self.idle_replicas() > 0;
        if !idle || rows > u64::from(self.config.batch_rows_max) {
            return false;
        }
        let first = self.queue.first().map_or(Time::MAX, |first| self.table[first.slot].limit());
        now + Duration::from_nanos(self.sizes.of(entry.size).latency.high(rows as u32))
            <= first.min(entry.limit())
    }

    /// What `batches` of the planned size may take longer than their mean, in nanoseconds: independent spreads add up as
    /// squares.
    fn margin(&self, size: u8, batches: u64) -> f64 {
        let Size { latency, pace, .. } = self.sizes.of(size);
        let spread = latency.high(pace.rows) as f64 - latency.mean(pace.rows).unwrap_or(0.0);
        spread.max(0.0) * (batches as f64).sqrt()
    }

    /// Fills `free` with the times at which the replicas are done with what can no longer change, and returns the
    /// rows of batches that are still open: a newcomer may join them, they count like queued ones.
    fn look_at_replicas(&mut self, now: Time) -> u64 {
        let mut open = 0;
        self.free.clear();
        let mut free_at = std::mem::take(&mut self.free);
        for replica in self.servers() {
            let batch = replica.open_batch();
            open += batch.map_or(0, |batch| u64::from(batch.rows));
            let free = if batch.is_some() {
                replica.next_starts(now, &self.sizes)
            } else {
                replica.free_at(now, &self.sizes)
            };
            free_at.push(free);
        }
        self.free = free_at;
        open
    }

    /// When everything that waits now will have run.
    pub(crate) fn drain_time(&mut self, now: Time) -> Duration {
        let rows = self.queue.rows() + self.look_at_replicas(now);
        let each = self.sizes.per_row(self.queue.by_size()).map(|each| each * self.mean_pace());
        let drained = each.and_then(|each| pace::drained((rows as f64 * each) as u64, &mut self.free));
        drained.map_or(RETRY_UNKNOWN, |drained| drained.since(now).max(RETRY_MIN))
    }
}

/// The place in the order of what has no deadline, or has lost it.
pub(crate) fn best_effort_key(arrived: Time) -> u64 {
    (arrived + PATIENCE).as_nanos()
}

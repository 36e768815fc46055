//! Admission: whether an arrival is queued or refused.
//!
//! Reads the queue, the replicas and the latency model, hands on queued entries or refusals. Forms no batch.

pub(crate) mod arrival_rate;
pub(crate) mod estimate;
pub(crate) mod refusal_errors;

use std::time::Duration;

use inferd_types::{Due, Time};

use crate::latency::Latency;
use crate::latency::plan::{self, Plan};
use crate::latency::sizes::Size;
use crate::message::{Action, Arrival, BatchRule, Refusal};
use crate::queue::table::{Entry, Place};
use crate::scheduler::Scheduler;

/// The deadline by which a request without one is ordered, so that requests with deadlines never starve it.
const BEST_EFFORT_DUE: Duration = Duration::from_secs(10);
/// A timeout that the latency model considers too short is tried all the same if nothing ran for this long: a model
/// that learned from a slow moment would otherwise refuse forever.
const PROBE_AFTER: Duration = Duration::from_millis(250);
/// While the load is below capacity, runs are judged between their mean (0) and the judged quantile (1). Nearly all
/// requests that the quantile alone refuses would be in time.
const CAUTION: f64 = 0.5;
/// `Retry-After` while the drain time can't be predicted.
const RETRY_UNKNOWN: Duration = Duration::from_secs(1);
/// Shorter hints only make clients return to the same queue.
const RETRY_MIN: Duration = Duration::from_millis(1);

impl Scheduler {
    /// Queues the parts of one request, or refuses them all in the name of the first.
    pub(crate) fn admit(&mut self, now: Time, parts: &[Arrival], actions: &mut Vec<Action>) {
        self.count.arrivals += 1;
        parts.iter().for_each(|_| self.returning.arrived(now));
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return };
        if parts.iter().any(|part| self.table.find(part.request).is_some()) {
            return;
        }
        let size = self.sizes.index(first.size, &self.config, self.horizon);
        self.sizes.arrived(size);
        let own = self.takes_alone(size, parts, Latency::high);
        let mut probe = false;
        if let Some(timeout) = first.timeout {
            let needed = self.takes_alone(size, parts, Latency::needed);
            if timeout <= now || needed > timeout.since(now).as_nanos() as u64 {
                probe = timeout > now && self.may_probe(now);
                if !probe {
                    return self.refuse_short_timeout(first, needed, actions);
                }
            }
        }
        let rows = parts.iter().map(|part| u64::from(part.rows.max(1))).sum();
        self.arrival_rate.record(now, rows, self.horizon);
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

    /// The time in which all parts would run on idle replicas, in nanoseconds; 0 while nothing is known.
    fn takes_alone(&self, size: u8, parts: &[Arrival], of: fn(&Latency, u32) -> u64) -> u64 {
        let largest = parts.iter().map(|part| part.rows.max(1)).max().unwrap_or(1);
        let each = of(&self.sizes.of(size).latency, largest);
        if parts.len() == 1 {
            return each;
        }
        let running = self.replicas.len().min(self.config.running_max as usize).max(1);
        each.saturating_mul(parts.len().div_ceil(running) as u64)
    }

    /// Why the queue has no room for this request, if it has none.
    ///
    /// If tenants share it, none may hold more than what is still free (the dynamic threshold of Choudhury and
    /// Hahne 1998): a burst of one tenant finds the queue full when half of it is, and leaves the rest to the
    /// others.
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
            // An objective that can't be met even by a lone request affects neither order nor admission.
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

    /// By how much the backlog, and `before` rows of the same request, delay a new request past its deadline;
    /// `None` if it is in time or nothing is known.
    fn predicted_lateness(&mut self, now: Time, entry: &Entry, before: u64) -> Option<Duration> {
        let plan = self.sizes.of(entry.size).plan;
        let planned = u64::from(plan.rows.max(1));
        let batch = self.batch_of_backlog(plan)? * self.mean_pace();
        if self.queue.is_empty() && self.idle_replicas() > 0 {
            return None;
        }
        // Demoted requests are ordered behind it but will run: admission that ignored them would soon find the
        // queue full of them.
        let ahead =
            before + self.queue.rows_ahead(entry.class, entry.tenant, entry.key) + self.look_at_replicas(now);
        let whole = ahead / planned;
        if self.joins_next_batch(now, entry, ahead) {
            return None;
        }
        // The remainder runs together with the new request, but under a backlog its batch fills up behind it.
        let joined = if whole > 0 { planned } else { ahead + u64::from(entry.rows) };
        let size = u32::try_from(joined.min(planned)).unwrap_or(u32::MAX).max(entry.rows);
        let start = plan::drained((whole as f64 * batch) as u64, &mut self.free)?;
        // A burst ends, and a request that is admitted at its end delays few; under a lasting load every late
        // request costs another.
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

    /// Whether a new request that is late behind batches of the planned size is in time if these grow somewhat, so
    /// that there are no more of them. A burst has more time than the plan, which leaves room for a preceding
    /// batch. Not used under a lasting overload.
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
        let start = plan::drained((paused * (batches - 1) as f64) as u64, &mut self.free);
        start.is_some_and(|start| start + Duration::from_nanos(run as u64) <= entry.limit())
    }

    /// Whether the arrival rate, averaged over more than a burst, exceeds the capacity of the replicas.
    fn is_overloaded(&self, size: u8) -> bool {
        let Some(each) = self.sizes.of(size).plan.row_nanos() else { return false };
        let work = self.arrival_rate.within(self.horizon) as f64 * each * self.mean_pace();
        work > self.horizon.as_nanos() as f64 * self.servers().count() as f64
    }

    /// Mean execution time of a batch of queued rows, in nanoseconds; their sizes may differ.
    fn batch_of_backlog(&self, plan: Plan) -> Option<f64> {
        if self.sizes.is_one() {
            return plan.batch_nanos;
        }
        Some(self.sizes.per_row(self.queue.by_size())? * f64::from(plan.rows))
    }

    /// Whether a new request and all that is queued before it fit one batch on an idle replica now, without making
    /// the queue's head late. The planned size may be smaller, since it leaves room for a preceding batch.
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

    /// How much longer than their mean `batches` of the planned size may take, in nanoseconds: independent spreads
    /// add up as squares.
    fn margin(&self, size: u8, batches: u64) -> f64 {
        let Size { latency, plan, .. } = self.sizes.of(size);
        let spread = latency.high(plan.rows) as f64 - latency.mean(plan.rows).unwrap_or(0.0);
        spread.max(0.0) * (batches as f64).sqrt()
    }

    /// Fills `free` with the times at which the replicas finish what can no longer change, and returns the rows of
    /// open batches: a new request may join them, so they count as queued.
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

    /// The time until everything that is queued now has run.
    pub(crate) fn drain_time(&mut self, now: Time) -> Duration {
        let rows = self.queue.rows() + self.look_at_replicas(now);
        let each = self.sizes.per_row(self.queue.by_size()).map(|each| each * self.mean_pace());
        let drained = each.and_then(|each| plan::drained((rows as f64 * each) as u64, &mut self.free));
        drained.map_or(RETRY_UNKNOWN, |drained| drained.since(now).max(RETRY_MIN))
    }
}

/// The order of requests without a deadline, and of demoted ones.
pub(crate) fn best_effort_key(arrived: Time) -> u64 {
    (arrived + BEST_EFFORT_DUE).as_nanos()
}

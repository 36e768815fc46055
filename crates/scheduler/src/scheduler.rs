//! The scheduler's state and the effect of each event.
//!
//! Reads events, hands on refusals and withdrawals. Forms no batch: that is `batching`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use inferd_types::{BatchId, ReplicaId, RequestId, Time};

use crate::admission::arrival_rate::ArrivalRate;
use crate::batching::returning::Returning;
use crate::counters::Counters;
use crate::latency::sizes::Sizes;
use crate::message::{Action, Config, Event, Room, SizeBucket};
use crate::queue::Queue;
use crate::queue::table::{Place, Table};
use crate::replicas::{Batch, Replica};

/// No run is unusually long before this, however fast the model: a suspended machine is no stalled worker.
const STALL_MIN: Duration = Duration::from_secs(1);
/// An unusually long run takes this many times the longest usual one.
const STALL_FACTOR: u32 = 20;
/// Weight of one request in the horizon.
const HORIZON_STEP: f64 = 0.02;

/// Decides which requests run next, on which replica, in which batch. One for each model version.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: Config,
    /// Maximum rows per batch while requests share batches; `config.batch_rows_max` is the present value.
    rows_max: u32,
    /// The objective's quantile, or 0.99.
    pub(crate) quantile: f64,
    pub(crate) table: Table,
    pub(crate) queue: Queue,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) sizes: Sizes,
    /// Moving average of the time from arrival to deadline; [`Duration::MAX`] while no request has one.
    pub(crate) horizon: Duration,
    /// The horizon of the present plans.
    planned: Duration,
    /// Whether steps of pipelines arrived, which have deadlines although the model may have no objective.
    pub(crate) steps: bool,
    pub(crate) returning: Returning,
    pub(crate) arrival_rate: ArrivalRate,
    /// (timeout, id) of requests that may expire before they run. Entries of requests that left are dropped when
    /// met.
    pub(crate) timeouts: BinaryHeap<Reverse<(Time, u64)>>,
    /// (time, id) of demoted requests and when each will have waited too long. Dropped likewise.
    pub(crate) overdue: BinaryHeap<Reverse<(Time, u64)>>,
    /// Rows that may still rise to a better class by ageing.
    pub(crate) ageing_credit: u32,
    pub(crate) next_batch: u64,
    /// Saved tokens for hedges.
    pub(crate) tokens: f64,
    /// Runs until replicas are compared again.
    pub(crate) until_compared: u32,
    /// State of the random generator.
    pub(crate) random: u64,
    /// When a run was last learned from.
    pub(crate) learned: Time,
    pub(crate) count: Counters,
    /// Reused, so that deciding allocates only what it returns.
    pub(crate) picked: Vec<u32>,
    pub(crate) free: Vec<Time>,
    pub(crate) due: Vec<(Time, u32)>,
    pub(crate) spare: Vec<Vec<u32>>,
}

impl Scheduler {
    /// A scheduler without replicas: arrivals are queued.
    pub fn new(mut config: Config) -> Self {
        config.batch_rows_max = if config.batched { config.batch_rows_max.max(1) } else { 1 };
        let quantile = config.objective.map_or(0.99, |objective| objective.quantile.clamp(0.5, 1.0));
        let horizon = config.objective.map_or(Duration::MAX, |objective| objective.latency);
        let sizes = Sizes::new(&config, quantile, horizon);
        let random = config.seed;
        Scheduler {
            rows_max: config.batch_rows_max,
            config,
            quantile,
            table: Table::default(),
            queue: Queue::default(),
            replicas: Vec::new(),
            sizes,
            horizon,
            planned: horizon,
            steps: false,
            returning: Returning::default(),
            arrival_rate: ArrivalRate::default(),
            timeouts: BinaryHeap::new(),
            overdue: BinaryHeap::new(),
            ageing_credit: 0,
            next_batch: 0,
            tokens: 0.0,
            until_compared: 0,
            random,
            learned: Time::ZERO,
            count: Counters::default(),
            picked: Vec::new(),
            free: Vec::new(),
            due: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Applies an event at `now`; pushes refusals and withdrawals to `actions`. Batches are formed by
    /// [`Scheduler::decide`] alone.
    pub fn on_event(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Arrived(arrival) => self.admit(now, &[arrival], actions),
            Event::ArrivedInParts(parts) => self.admit(now, &parts, actions),
            Event::Cancelled(request) => self.cancel(request, actions),
            Event::ReplicaReady(id, room) => self.ready(id, room),
            Event::Taken { replica, batch } => self.taken(now, replica, batch),
            Event::Finished { replica, batch, execution, ok } => {
                self.finish(now, (replica, batch), execution, ok, actions)
            }
            Event::Returned { requests } => self.take_back(now, &requests),
            Event::Withdrawn { replica, batch, requests } => self.withdrawn(now, replica, batch, &requests),
            Event::ReplicaLost(id) => self.lose(id),
            Event::Removed(request) => self.remove(now, request),
            Event::DrainReplica(id) => self.drain(id, actions),
        }
    }

    /// `T(rows, quantile)`: execution time of a batch of `rows` of the usual size at `quantile`; `None` while
    /// nothing is known.
    pub fn predict(&self, rows: u32, quantile: f64) -> Option<Duration> {
        self.sizes.usual().latency.at(rows, quantile)
    }

    /// The execution time beyond which a batch of `rows` is unusually long: twenty times the longest usual one of
    /// any size, at least a second. `None` while something is not known. The run may be legitimate all the same.
    pub fn stall_limit(&self, rows: u32) -> Option<Duration> {
        let longest = self.sizes.longest(rows)?;
        Some(longest.saturating_mul(STALL_FACTOR).max(STALL_MIN))
    }

    /// Learns from a run outside this scheduler's batches (warm-up, profiling), of rows of size 0.
    pub fn observe(&mut self, rows: u32, execution: Duration) {
        self.observe_size(SizeBucket::default(), rows, execution);
    }

    /// The same for rows of any size.
    pub fn observe_size(&mut self, size: SizeBucket, rows: u32, execution: Duration) {
        let at = self.sizes.index(size, &self.config, self.horizon);
        self.learn(at, rows, execution);
    }

    fn learn(&mut self, size: u8, rows: u32, execution: Duration) {
        if self.sizes.observe(size, rows, execution) {
            self.sizes.plan(Some(size), &self.config, self.horizon);
        }
    }

    /// Lowers the maximum rows per batch (a larger batch was found to break the worker). Never raises it.
    pub fn limit_batch_rows(&mut self, rows: u32) {
        self.rows_max = self.rows_max.min(rows.max(1));
        self.config.batch_rows_max = self.config.batch_rows_max.min(self.rows_max);
        self.plan();
    }

    /// Sets the maximum number of replicas that execute at once; `None`: all. Batches that have begun are not affected.
    pub fn set_running_max(&mut self, most: Option<u32>) {
        self.config.running_max = most.unwrap_or(u32::MAX).max(1);
    }

    /// Turns batching of several requests on or off. Batches of several requests that no replica has begun are
    /// withdrawn by [`Action::Withdraw`]. Only for a model that was configured as batched.
    pub fn set_batching(&mut self, batched: bool, actions: &mut Vec<Action>) {
        self.config.batched = batched;
        self.config.batch_rows_max = if batched { self.rows_max } else { 1 };
        self.plan();
        if batched {
            return;
        }
        for replica in &mut self.replicas {
            let id = replica.id;
            for batch in [&mut replica.first, &mut replica.second].into_iter().flatten() {
                batch.closed = true;
                if batch.is_open() && batch.requests.len() > 1 {
                    batch.withdrawing = true;
                    actions.push(Action::Withdraw { replica: id, batch: batch.id });
                }
            }
        }
    }

    /// Whether requests share batches now.
    pub fn is_batching(&self) -> bool {
        self.config.batched
    }

    /// Whether the queue is empty and a replica is idle: time for work without a caller.
    pub fn has_room(&self) -> bool {
        self.queue.is_empty() && self.idle_replicas() > 0
    }

    /// Whether no request is held: time for profiling.
    pub fn is_idle(&self) -> bool {
        self.table.len() == 0
    }

    pub(crate) fn replica_mut(&mut self, id: ReplicaId) -> Option<&mut Replica> {
        self.replicas.iter_mut().find(|replica| replica.id == id)
    }

    fn plan(&mut self) {
        self.planned = self.horizon;
        self.sizes.plan(None, &self.config, self.horizon);
    }

    /// Records that a request is due after `due`.
    pub(crate) fn watch_horizon(&mut self, due: Duration) {
        let moved = self.horizon.mul_f64(1.0 - HORIZON_STEP).saturating_add(due.mul_f64(HORIZON_STEP));
        self.horizon = if self.horizon == Duration::MAX { due } else { moved };
        if self.horizon.abs_diff(self.planned) > self.planned / 10 {
            self.plan();
        }
    }

    fn ready(&mut self, id: ReplicaId, room: Room) {
        match self.replica_mut(id) {
            Some(replica) => (replica.draining, replica.room) = (false, room),
            None => self.replicas.push(Replica::new(id, room)),
        }
    }

    /// Stops new work and withdraws what it has not taken.
    fn drain(&mut self, id: ReplicaId, actions: &mut Vec<Action>) {
        let Some(replica) = self.replica_mut(id) else { return };
        replica.draining = true;
        for batch in
            [&mut replica.first, &mut replica.second].into_iter().flatten().filter(|batch| batch.is_open())
        {
            batch.withdrawing = true;
            actions.push(Action::Withdraw { replica: id, batch: batch.id });
        }
    }

    fn cancel(&mut self, request: RequestId, actions: &mut Vec<Action>) {
        let Some(slot) = self.table.find(request) else { return };
        match self.table[slot].place {
            Place::Queued => self.queue.remove(&self.table[slot]),
            Place::Batch(replica, id) => {
                self.leave_copy(slot, replica, id);
                let batch = self.replica_mut(replica).and_then(|replica| replica.batch_mut(id));
                if let Some(batch) = batch {
                    batch.requests.retain(|other| *other != slot);
                    if batch.is_open() {
                        batch.withdrawing = true;
                        actions.push(Action::Withdraw { replica, batch: id });
                    }
                }
            }
            Place::Away => {}
        }
        self.table.release(slot);
    }

    /// As `cancel`, but the dispatcher knows already and the rows were never staged or are gone from the slot.
    fn remove(&mut self, now: Time, request: RequestId) {
        let Some(slot) = self.table.find(request) else { return };
        match self.table[slot].place {
            Place::Queued => self.queue.remove(&self.table[slot]),
            Place::Batch(..) => self.leave_batch(now, slot),
            Place::Away => {}
        }
        self.table.release(slot);
    }

    /// Removes a request from its batch, and the batch from its slot if it was never taken and is empty now.
    fn leave_batch(&mut self, now: Time, slot: u32) {
        let (place, rows, bytes) = (self.table[slot].place, self.table[slot].rows, self.table[slot].bytes);
        let Place::Batch(replica, id) = place else { return };
        self.leave_copy(slot, replica, id);
        let Some(replica) = self.replica_mut(replica) else { return };
        let Some(batch) = replica.batch_mut(id) else { return };
        batch.requests.retain(|other| *other != slot);
        if !batch.taken {
            batch.closed = true;
            batch.rows = batch.rows.saturating_sub(rows);
            batch.bytes = batch.bytes.saturating_sub(bytes);
            if batch.requests.is_empty() && batch.rows == 0 && !batch.withdrawing {
                let empty = replica.take_out(now, id);
                self.recycle(empty);
            }
        }
    }

    /// Removes a request from the copy of its batch, if there is one.
    fn leave_copy(&mut self, slot: u32, replica: ReplicaId, id: BatchId) {
        let twin = self.replica_mut(replica).and_then(|replica| replica.batch_mut(id)?.twin);
        let copy = twin.and_then(|(replica, id)| self.replica_mut(replica)?.batch_mut(id));
        if let Some(copy) = copy {
            copy.requests.retain(|other| *other != slot);
        }
    }

    fn taken(&mut self, now: Time, replica: ReplicaId, batch: BatchId) {
        if let Some(batch) = self.replica_mut(replica).and_then(|replica| replica.batch_mut(batch))
            && !batch.taken
        {
            batch.taken = true;
            batch.withdrawing = false;
            batch.started = now;
        }
    }

    fn finish(
        &mut self,
        now: Time,
        (replica, id): (ReplicaId, BatchId),
        execution: Duration,
        ok: bool,
        actions: &mut Vec<Action>,
    ) {
        let Some(mut batch) = self.replica_mut(replica).and_then(|replica| replica.take_out(now, id)) else {
            return;
        };
        let expected = self.sizes.of(batch.size).latency.mean(batch.rows);
        let relative = expected.map_or(1.0, |expected| execution.as_nanos() as f64 / expected);
        let pace = self.watch_health(now, replica, ok.then_some(relative), actions);
        if ok {
            self.cancel_twin(&mut batch, actions);
        } else {
            self.hand_to_twin(&mut batch);
        }
        self.returning.finished(now, u32::try_from(batch.requests.len()).unwrap_or(u32::MAX), execution);
        self.count.batch(batch.rows);
        if let Some(next) = self.replica_mut(replica).and_then(|replica| replica.first.as_mut()) {
            next.followed = Some(now);
        }
        if let Some(before) = batch.followed {
            self.sizes.paused(now.since(before).as_nanos() as f64 - execution.as_nanos() as f64, execution);
        }
        if ok {
            self.learn(batch.size, batch.rows, execution.div_f64(pace));
            self.learned = now;
        }
        for slot in &batch.requests {
            if now > self.table[*slot].promised {
                self.count.missed += 1;
            }
            self.table.release(*slot);
        }
        self.recycle(Some(batch));
    }

    fn withdrawn(&mut self, now: Time, replica: ReplicaId, id: BatchId, requests: &[RequestId]) {
        let batch = self.replica_mut(replica).and_then(|replica| replica.take_out(now, id));
        if let Some(mut batch) = batch {
            self.hand_to_twin(&mut batch);
            // No withdrawal was requested, so staging failed. Together they would not fit the next time either.
            let alone = !batch.withdrawing && batch.requests.len() > 1;
            for slot in &batch.requests {
                self.table[*slot].place = Place::Away;
                self.table[*slot].alone |= alone;
            }
            self.recycle(Some(batch));
        }
        self.take_back(now, requests);
    }

    fn take_back(&mut self, now: Time, requests: &[RequestId]) {
        for request in requests {
            let Some(slot) = self.table.find(*request) else { continue };
            match self.table[slot].place {
                Place::Queued => continue,
                Place::Batch(..) => self.leave_batch(now, slot),
                Place::Away => {}
            }
            self.table[slot].place = Place::Queued;
            self.queue.insert(slot, &self.table[slot]);
            self.watch_timeout(slot);
            self.watch_overdue(now, slot);
        }
    }

    fn lose(&mut self, id: ReplicaId) {
        let Some(at) = self.replicas.iter().position(|replica| replica.id == id) else { return };
        let lost = self.replicas.swap_remove(at);
        for mut batch in [lost.first, lost.second].into_iter().flatten() {
            self.hand_to_twin(&mut batch);
            for slot in &batch.requests {
                self.table[*slot].place = Place::Away;
            }
            self.recycle(Some(batch));
        }
    }

    fn recycle(&mut self, batch: Option<Batch>) {
        if let Some(mut batch) = batch.filter(|_| self.spare.len() < 16) {
            batch.requests.clear();
            self.spare.push(batch.requests);
        }
    }

    /// Records when the timeout is due.
    pub(crate) fn watch_timeout(&mut self, slot: u32) {
        let entry = &self.table[slot];
        if entry.timeout == Time::MAX || entry.probe {
            return;
        }
        if self.timeouts.len() > 64 + 4 * self.table.len() {
            let table = &self.table;
            self.timeouts.retain(|Reverse((_, id))| table.find(RequestId(*id)).is_some());
        }
        self.timeouts.push(Reverse((entry.timeout, entry.id.0)));
    }

    /// Records when a demoted request will have waited too long. One that waited for a replica to restart has at
    /// least another objective's time for its turn.
    pub(crate) fn watch_overdue(&mut self, now: Time, slot: u32) {
        let entry = &self.table[slot];
        // The deadline of a pipeline's step says nothing about how long the caller would wait.
        let own = |objective: &Duration| entry.demoted && entry.promised == entry.arrived + *objective;
        let Some(objective) = self.config.objective.map(|objective| objective.latency).filter(own) else {
            return;
        };
        let due = (entry.arrived + objective.mul_f64(self.config.late_wait)).max(now + objective);
        self.overdue.push(Reverse((due, entry.id.0)));
    }
}

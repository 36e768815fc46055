//! A scheduler under a steady load: a fixed queue depth, one batch after another.
//!
//! Used by the benchmark and by the instruction counter. Measures nothing itself.

use std::time::Duration;

use inferd_scheduler::{Action, Arrival, Config, Event, Objective, Room, Scheduler, ShapeKey, SizeBucket};
use inferd_types::{BatchId, Due, Priority, ReplicaId, RequestId, Tenant, Time};

/// The kind of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No deadline, in order of arrival.
    Plain,
    /// The same, each in a batch of its own.
    Alone,
    /// An objective, which admission judges each arrival by.
    Objective,
    /// Each with its own timeout, so that arrivals are inserted anywhere in the order.
    Timeouts,
    /// The same, from sixteen tenants.
    Tenants,
    /// The same, in three classes and two sizes.
    Mixed,
}

impl Kind {
    pub(crate) const ALL: [Kind; 6] =
        [Kind::Plain, Kind::Alone, Kind::Objective, Kind::Timeouts, Kind::Tenants, Kind::Mixed];

    /// Requests of one batch.
    pub(crate) fn batch(self) -> u32 {
        if self == Kind::Alone { 1 } else { 32 }
    }
}

const EXECUTION: Duration = Duration::from_micros(100);

pub(crate) struct Load {
    kind: Kind,
    scheduler: Scheduler,
    actions: Vec<Action>,
    /// Batches on the replica.
    staged: Vec<BatchId>,
    now: Time,
    next: u64,
    random: u64,
}

impl Load {
    /// A load with `depth` queued requests.
    pub(crate) fn new(kind: Kind, depth: usize) -> Load {
        let objective = Objective { latency: Duration::from_secs(3600), quantile: 0.99 };
        let config = Config {
            batch_rows_max: kind.batch(),
            queue_rows_max: 1 << 24,
            queue_max_bytes: usize::MAX,
            objective: (kind == Kind::Objective).then_some(objective),
            profile: vec![(1, EXECUTION / 4), (32, EXECUTION)],
            ..Config::default()
        };
        let scheduler = Scheduler::new(config);
        let mut load = Load {
            kind,
            scheduler,
            actions: Vec::new(),
            staged: Vec::new(),
            now: Time::ZERO,
            next: 0,
            random: 0x9E37_79B9_7F4A_7C15,
        };
        load.send(Event::ReplicaReady(ReplicaId(0), Room::default()));
        for _ in 0..depth + 64 {
            load.arrive();
        }
        // Until the latency curve and the plan have settled.
        (0..200).for_each(|_| load.cycle());
        load
    }

    /// A batch of requests arrives, each followed by a decision, and one queued batch runs.
    pub(crate) fn cycle(&mut self) {
        for _ in 0..self.kind.batch() {
            self.now = self.now + EXECUTION / 32;
            self.arrive();
            self.decide();
        }
        let batch = self.staged.remove(0);
        let replica = ReplicaId(0);
        // Varies execution times, so that the curve keeps learning.
        let stray = 0.8 + 0.4 * (self.random() % 1024) as f64 / 1024.0;
        let execution = (EXECUTION / 32 * self.kind.batch()).mul_f64(stray);
        self.send(Event::Finished { replica, batch, execution, ok: true });
        if let Some(batch) = self.staged.first().copied() {
            self.send(Event::Taken { replica, batch });
        }
        self.decide();
    }

    pub(crate) fn waiting(&self) -> usize {
        self.scheduler.snapshot().queue_requests
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn arrive(&mut self) {
        let random = self.random();
        let timed = !matches!(self.kind, Kind::Plain | Kind::Alone | Kind::Objective);
        let mixed = self.kind == Kind::Mixed;
        let size = if mixed { (random % 2) as u8 } else { 0 };
        let arrival = Arrival {
            request: RequestId(self.next),
            rows: 1,
            bytes: 100,
            shape: ShapeKey(u64::from(size)),
            size: SizeBucket(size),
            priority: Priority(if mixed { (random >> 8) as u8 % 3 } else { 1 }),
            tenant: match self.kind {
                Kind::Tenants => Tenant { id: (random >> 16) as u32 % 16, weight: 1 + random as u32 % 2 },
                _ => Tenant::default(),
            },
            due: Due::Objective,
            timeout: timed.then(|| self.now + Duration::from_secs(1000 + (random >> 20) % 1000)),
        };
        self.next += 1;
        self.send(Event::Arrived(arrival));
    }

    fn send(&mut self, event: Event) {
        self.scheduler.on_event(self.now, event, &mut self.actions);
    }

    fn decide(&mut self) {
        self.scheduler.decide(self.now, &mut self.actions);
        for action in self.actions.drain(..) {
            match action {
                Action::Stage { batch, .. } => self.staged.push(batch),
                Action::Append { .. } | Action::WakeAt(_) => {}
                other => panic!("the load is steady: {other:?}"),
            }
        }
    }
}

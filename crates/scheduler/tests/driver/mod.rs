//! The environment of the scheduler in virtual time: replicas, callers, faults, and the rules that always hold.
//!
//! Carries out actions as a dispatcher does, with the delays of doorbells and threads, and checks every one.
#![allow(dead_code, reason = "each test file uses its part")]

mod actions;
mod faults;

use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) use inferd_testkit::Random;

use inferd_scheduler::{Arrival, Config, Event, Refusal, Room, Scheduler, ShapeKey, SizeBucket};
use inferd_testkit::{Agenda, VirtualReplica};
use inferd_types::{BatchId, Due, Priority, ReplicaId, RequestId, Tenant, Time};

/// From a ready batch to its run, and from its end to the dispatcher's knowledge of it.
pub(crate) const DOORBELL: Duration = Duration::from_micros(30);

/// The state of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Queued,
    Staged(ReplicaId, BatchId),
    /// In a batch of a lost replica, until the driver returns it.
    Away,
    Done(Time),
    Answered(Refusal, Time),
    Cancelled,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) arrival: Arrival,
    pub(crate) at: Time,
    pub(crate) fate: Fate,
    /// The closed-loop caller that sent it.
    pub(crate) caller: Option<usize>,
}

#[derive(Debug)]
enum Happening {
    Arrive { caller: Option<usize> },
    Take(ReplicaId),
    End(ReplicaId, BatchId, Duration),
    Report(Event),
    Wake,
    Lose,
    Start,
    Cancel,
}

/// Execution time of a batch of this many rows.
pub(crate) type Execution = Box<dyn Fn(u32, &mut Random) -> Duration>;
/// Turns a plain arrival into what the case needs.
pub(crate) type ShapeRequest = Box<dyn Fn(&mut Random, Time, &mut Arrival)>;
/// Checks a staged batch against all requests.
pub(crate) type CheckStage = fn(&[RequestId], &[Request]);

/// The behaviour of the world.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) replicas: u32,
    pub(crate) seed: u64,
    /// Closed-loop callers, and the time from a response to the next request.
    pub(crate) callers: usize,
    pub(crate) think: Duration,
    /// Mean time between open-loop arrivals.
    pub(crate) open_loop: Option<Duration>,
    /// Whether open-loop arrivals are bursty (hyperexponential, coefficient of variation 4).
    pub(crate) bursty: bool,
    pub(crate) execution: Execution,
    /// Relative execution time of a batch of requests of this shape.
    pub(crate) slowdown: fn(ShapeKey) -> f64,
    pub(crate) shape_request: ShapeRequest,
    /// Mean time between losses of a replica, between cancellations; none if zero.
    pub(crate) losses: Duration,
    pub(crate) cancellations: Duration,
    /// The fraction of appends that find no room.
    pub(crate) append_fails: f64,
    /// The fraction of requests that come in three parts.
    pub(crate) in_parts: f64,
    pub(crate) stop_at: Time,
}

impl Setup {
    pub(crate) fn new(config: Config, execution: impl Fn(u32, &mut Random) -> Duration + 'static) -> Self {
        Setup {
            config,
            replicas: 1,
            seed: 1,
            callers: 0,
            think: Duration::from_micros(100),
            open_loop: None,
            bursty: false,
            execution: Box::new(execution),
            slowdown: |_| 1.0,
            shape_request: Box::new(|_, _, _| {}),
            losses: Duration::ZERO,
            cancellations: Duration::ZERO,
            append_fails: 0.0,
            in_parts: 0.0,
            stop_at: Time::ZERO + Duration::from_secs(2),
        }
    }
}

pub(crate) struct World {
    setup: Setup,
    pub(crate) scheduler: Scheduler,
    pub(crate) random: Random,
    agenda: Agenda<Happening>,
    replicas: BTreeMap<ReplicaId, VirtualReplica>,
    next_replica: u32,
    pub(crate) requests: Vec<Request>,
    /// (end, rows) of every batch.
    pub(crate) batches: Vec<(Time, u32)>,
    /// Called with every staged batch and all requests, before states change.
    pub(crate) check_stage: Option<CheckStage>,
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        let mut world = World {
            scheduler: Scheduler::new(setup.config.clone()),
            random: Random(setup.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            agenda: Agenda::default(),
            replicas: BTreeMap::new(),
            next_replica: 0,
            requests: Vec::new(),
            batches: Vec::new(),
            check_stage: None,
            setup,
        };
        (0..world.setup.replicas).for_each(|_| world.after(Duration::ZERO, Happening::Start));
        for caller in 0..world.setup.callers {
            let first = Duration::from_micros(10 * caller as u64 + 1);
            world.after(first, Happening::Arrive { caller: Some(caller) });
        }
        if world.setup.open_loop.is_some() {
            world.after(Duration::from_micros(1), Happening::Arrive { caller: None });
        }
        if !world.setup.losses.is_zero() {
            world.after(world.setup.losses, Happening::Lose);
        }
        if !world.setup.cancellations.is_zero() {
            world.after(world.setup.cancellations, Happening::Cancel);
        }
        world
    }

    /// Runs until nothing is scheduled; arrivals and faults end at `stop_at`.
    pub(crate) fn run(&mut self) {
        let mut steps = 0u64;
        while let Some(happening) = self.agenda.next() {
            steps += 1;
            assert!(steps < 50_000_000, "the world does not come to rest");
            self.happen(happening);
            // All events of an instant are reported before a decision.
            if !self.agenda.has_more_now() {
                let mut actions = Vec::new();
                self.scheduler.decide(self.now(), &mut actions);
                self.carry_out(actions);
            }
        }
    }

    /// Every request has ended, and the scheduler holds nothing.
    pub(crate) fn check_rest(&self) {
        for request in &self.requests {
            let ended = matches!(request.fate, Fate::Done(_) | Fate::Answered(..) | Fate::Cancelled);
            assert!(ended, "left behind: {request:?}");
        }
        assert!(self.scheduler.is_idle());
        let snapshot = self.scheduler.snapshot();
        assert_eq!((snapshot.queue_requests, snapshot.queue_rows, snapshot.queue_bytes), (0, 0, 0));
    }

    /// Mean rows of the batches that ended after `from`.
    pub(crate) fn mean_rows(&self, from: Time) -> f64 {
        let rows: Vec<_> = self.batches.iter().filter(|batch| batch.0 >= from).map(|batch| batch.1).collect();
        f64::from(rows.iter().sum::<u32>()) / rows.len() as f64
    }

    /// Ascending latencies of answered requests that arrived after `from`, in microseconds.
    pub(crate) fn latencies(&self, from: Time) -> Vec<u64> {
        let mut latencies: Vec<u64> = self
            .requests
            .iter()
            .filter(|request| request.at >= from)
            .filter_map(|request| match request.fate {
                Fate::Done(at) => Some(at.since(request.at).as_micros() as u64),
                _ => None,
            })
            .collect();
        latencies.sort_unstable();
        latencies
    }

    fn now(&self) -> Time {
        self.agenda.now
    }

    fn after(&mut self, wait: Duration, happening: Happening) {
        self.agenda.after(wait, happening);
    }

    fn send(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.scheduler.on_event(self.now(), event, &mut actions);
        self.carry_out(actions);
    }

    fn running(&self) -> bool {
        self.now() < self.setup.stop_at
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive { caller } => self.arrive(caller),
            Happening::Take(replica) => self.take(replica),
            Happening::End(replica, batch, execution) => self.end(replica, batch, execution),
            Happening::Report(event) => self.report(event),
            Happening::Wake => {}
            Happening::Lose => self.lose(),
            Happening::Start => {
                let id = ReplicaId(self.next_replica);
                self.next_replica += 1;
                self.replicas.insert(id, VirtualReplica::default());
                self.send(Event::ReplicaReady(id, Room::default()));
            }
            Happening::Cancel => self.cancel(),
        }
    }

    fn arrive(&mut self, caller: Option<usize>) {
        if !self.running() {
            return;
        }
        let request = RequestId(self.requests.len() as u64);
        let mut arrival = Arrival {
            request,
            rows: 1,
            bytes: 100,
            shape: ShapeKey(0),
            size: SizeBucket::default(),
            priority: Priority::default(),
            tenant: Tenant::default(),
            due: Due::Objective,
            timeout: None,
        };
        let now = self.now();
        (self.setup.shape_request)(&mut self.random, now, &mut arrival);
        let one = Request { arrival, at: self.now(), fate: Fate::Queued, caller };
        self.requests.push(one.clone());
        if self.setup.in_parts > 0.0 && self.random.unit() < self.setup.in_parts {
            self.arrive_in_parts(one);
        } else {
            self.send(Event::Arrived(arrival));
        }
        if let Some(mean) = self.setup.open_loop.filter(|_| caller.is_none()) {
            // Two exponentials, balanced so that the mean stays and the coefficient of variation is 4.
            const RARE: f64 = 0.0302;
            let part = match self.setup.bursty {
                true if self.random.unit() < RARE => 1.0 / (2.0 * RARE),
                true => 1.0 / (2.0 * (1.0 - RARE)),
                false => 1.0,
            };
            let next = self.random.exponential(mean.mul_f64(part));
            self.after(next, Happening::Arrive { caller: None });
        }
    }

    /// Adds two more like the last request; a refusal of the first is one of all.
    fn arrive_in_parts(&mut self, first: Request) {
        let mut parts = vec![first.arrival];
        for _ in 0..2 {
            let request = RequestId(self.requests.len() as u64);
            parts.push(Arrival { request, ..first.arrival });
            let arrival = Arrival { request, ..first.arrival };
            self.requests.push(Request { arrival, caller: None, ..first.clone() });
        }
        let first = first.arrival.request.0 as usize;
        self.send(Event::ArrivedInParts(parts));
        if let Fate::Answered(..) = self.requests[first].fate {
            for part in 1..=2 {
                assert_eq!(self.requests[first + part].fate, Fate::Queued);
                self.requests[first + part].fate = self.requests[first].fate;
            }
        }
    }

    fn take(&mut self, id: ReplicaId) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        let Some(batch) = replica.take() else { return };
        let (batch, rows) = (batch.id, rows(&self.requests, &batch.requests));
        let shape = self.requests[self.replicas[&id].slots[0].requests[0].0 as usize].arrival.shape;
        let execution = (self.setup.execution)(rows, &mut self.random).mul_f64((self.setup.slowdown)(shape));
        self.after(execution, Happening::End(id, batch, execution));
        self.after(DOORBELL, Happening::Report(Event::Taken { replica: id, batch }));
    }

    fn end(&mut self, id: ReplicaId, batch: BatchId, execution: Duration) {
        let now = self.now();
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        self.batches.push((now, rows(&self.requests, &replica.end(batch).requests)));
        self.take(id);
        self.after(DOORBELL, Happening::Report(Event::Finished { replica: id, batch, execution, ok: true }));
    }

    /// Reports an event, unless its replica was lost meanwhile.
    fn report(&mut self, event: Event) {
        match &event {
            Event::Finished { replica, batch, .. } => {
                let Some(place) = self.replicas.get_mut(replica) else { return };
                for request in place.seen_end(*batch) {
                    let now = self.agenda.now;
                    let known = &mut self.requests[request.0 as usize];
                    if known.fate == Fate::Staged(*replica, *batch) {
                        known.fate = Fate::Done(now);
                        self.call_again(request);
                    }
                }
            }
            Event::Taken { replica, batch } => {
                let Some(place) = self.replicas.get_mut(replica) else { return };
                place.seen_taken(*batch);
            }
            _ => {}
        }
        self.send(event);
    }

    fn call_again(&mut self, request: RequestId) {
        if let Some(caller) = self.requests[request.0 as usize].caller {
            let think = self.random.exponential(self.setup.think / 2) + self.setup.think / 2;
            self.after(think, Happening::Arrive { caller: Some(caller) });
        }
    }
}

fn rows(all: &[Request], requests: &[RequestId]) -> u32 {
    requests.iter().map(|id| all[id.0 as usize].arrival.rows.max(1)).sum()
}

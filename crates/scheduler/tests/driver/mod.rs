//! A machine in virtual time around the scheduler: replicas, callers, faults, and the rules that always hold.
//!
//! Carries out actions as a dispatcher does, with the delays of doorbells and threads, and checks every one.
#![allow(dead_code, reason = "each test file uses its part")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::time::Duration;

use inferd_scheduler::{Action, Arrival, Config, Event, Refusal, Scheduler, ShapeKey, SizeBucket};
use inferd_types::{BatchId, Due, Priority, ReplicaId, RequestId, Tenant, Time};

/// From a batch being ready to the replica running it, and from its end to the dispatcher knowing.
pub(crate) const DOORBELL: Duration = Duration::from_micros(30);

/// A small generator (xorshift), so that a seed replays exactly.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// In [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Exponentially distributed.
    pub(crate) fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.unit()).ln())
    }
}

/// What the caller of a request lived to see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Queued,
    Staged(ReplicaId, BatchId),
    /// In a batch of a lost replica, until the driver gives it back.
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
    /// Which closed-loop caller sent it.
    pub(crate) caller: Option<usize>,
}

#[derive(Debug)]
struct Batch {
    id: BatchId,
    requests: Vec<RequestId>,
    /// The worker has it: nothing can be added or withdrawn any more.
    taken: bool,
    /// The scheduler has been told so.
    told: bool,
    refused_append: bool,
}

#[derive(Debug, Default)]
struct Replica {
    /// The first is executing if one is.
    slots: Vec<Batch>,
    /// Ended, but the dispatcher has not seen it.
    done: Vec<Batch>,
    executing: bool,
    draining: bool,
}

#[derive(Debug)]
enum Happening {
    Arrive { caller: Option<usize> },
    Take(ReplicaId),
    End(ReplicaId, BatchId, Duration),
    Tell(Event),
    Wake(u64),
    Lose,
    Start,
    Cancel,
}

/// What a batch of so many rows takes.
pub(crate) type Execution = Box<dyn Fn(u32, &mut Random) -> Duration>;
/// Makes of a plain arrival what the case needs.
pub(crate) type ShapeRequest = Box<dyn Fn(&mut Random, Time, &mut Arrival)>;
/// Looks at a batch that is staged and at all requests.
pub(crate) type CheckStage = fn(&[RequestId], &[Request]);

/// How the world behaves.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) replicas: u32,
    pub(crate) seed: u64,
    /// Closed-loop callers, and the time from their answer to their next request.
    pub(crate) callers: usize,
    pub(crate) think: Duration,
    /// Mean time between open-loop arrivals.
    pub(crate) open_loop: Option<Duration>,
    /// Whether open-loop arrivals come in bursts (hyperexponential, coefficient of variation 4).
    pub(crate) bursty: bool,
    pub(crate) execution: Execution,
    /// How many times as long a batch of requests of this shape takes.
    pub(crate) slowdown: fn(ShapeKey) -> f64,
    pub(crate) shape_request: ShapeRequest,
    /// Mean time between losses of a replica, cancellations; none if zero.
    pub(crate) losses: Duration,
    pub(crate) cancellations: Duration,
    /// The share of appends that find no room.
    pub(crate) append_fails: f64,
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
            stop_at: Time::ZERO + Duration::from_secs(2),
        }
    }
}

pub(crate) struct World {
    setup: Setup,
    pub(crate) scheduler: Scheduler,
    pub(crate) random: Random,
    now: Time,
    coming: BinaryHeap<Reverse<(Time, u64)>>,
    happenings: HashMap<u64, Happening>,
    sequence: u64,
    wake: u64,
    replicas: BTreeMap<ReplicaId, Replica>,
    next_replica: u32,
    pub(crate) requests: Vec<Request>,
    /// (when it ended, rows) of every batch.
    pub(crate) batches: Vec<(Time, u32)>,
    /// Called with every batch that is staged and all requests, before fates change.
    pub(crate) check_stage: Option<CheckStage>,
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        let mut world = World {
            scheduler: Scheduler::new(setup.config.clone()),
            random: Random(setup.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            now: Time::ZERO,
            coming: BinaryHeap::new(),
            happenings: HashMap::new(),
            sequence: 0,
            wake: 0,
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

    /// Runs until nothing happens any more; arrivals and faults end at `stop_at`.
    pub(crate) fn run(&mut self) {
        let mut steps = 0u64;
        while let Some(Reverse((time, sequence))) = self.coming.pop() {
            steps += 1;
            assert!(steps < 50_000_000, "the world does not come to rest");
            self.now = time;
            let happening = self.happenings.remove(&sequence).expect("every moment has its happening");
            self.happen(happening);
            // All that happens at one instant is told before a decision is asked for.
            if self.coming.peek().is_none_or(|Reverse((next, _))| *next > self.now) {
                let mut actions = Vec::new();
                self.scheduler.decide(self.now, &mut actions);
                self.wake += 1;
                self.carry_out(actions);
            }
        }
    }

    /// Every request has an end, and the scheduler holds nothing.
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

    /// Times from arrival to answer of what was done and came after `from`, ascending, in microseconds.
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

    fn after(&mut self, wait: Duration, happening: Happening) {
        self.sequence += 1;
        self.coming.push(Reverse((self.now + wait, self.sequence)));
        self.happenings.insert(self.sequence, happening);
    }

    fn tell(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.scheduler.on_event(self.now, event, &mut actions);
        self.carry_out(actions);
    }

    fn running(&self) -> bool {
        self.now < self.setup.stop_at
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive { caller } => self.arrive(caller),
            Happening::Take(replica) => self.take(replica),
            Happening::End(replica, batch, execution) => self.end(replica, batch, execution),
            Happening::Tell(event) => self.told(event),
            Happening::Wake(_) => {}
            Happening::Lose => self.lose(),
            Happening::Start => {
                let id = ReplicaId(self.next_replica);
                self.next_replica += 1;
                self.replicas.insert(id, Replica::default());
                self.tell(Event::ReplicaReady(id));
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
        (self.setup.shape_request)(&mut self.random, self.now, &mut arrival);
        self.requests.push(Request { arrival, at: self.now, fate: Fate::Queued, caller });
        self.tell(Event::Arrived(arrival));
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

    fn take(&mut self, id: ReplicaId) {
        let Some(replica) = self.replicas.get_mut(&id).filter(|replica| !replica.executing) else { return };
        let Some(batch) = replica.slots.first_mut() else { return };
        batch.taken = true;
        replica.executing = true;
        let batch_id = batch.id;
        let rows = batch.requests.iter().map(|id| self.requests[id.0 as usize].arrival.rows.max(1)).sum();
        let shape = self.requests[batch.requests[0].0 as usize].arrival.shape;
        let execution = (self.setup.execution)(rows, &mut self.random).mul_f64((self.setup.slowdown)(shape));
        self.after(execution, Happening::End(id, batch_id, execution));
        self.after(DOORBELL, Happening::Tell(Event::Taken { replica: id, batch: batch_id }));
    }

    fn end(&mut self, id: ReplicaId, batch: BatchId, execution: Duration) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        replica.executing = false;
        // The slot stays occupied until the dispatcher has seen the end.
        let done = replica.slots.remove(0);
        assert_eq!(done.id, batch);
        let rows = done.requests.iter().map(|id| self.requests[id.0 as usize].arrival.rows.max(1)).sum();
        self.batches.push((self.now, rows));
        replica.done.push(done);
        self.take(id);
        self.after(DOORBELL, Happening::Tell(Event::Finished { replica: id, batch, execution, ok: true }));
    }

    /// Hands an event on, unless its replica has been lost meanwhile.
    fn told(&mut self, event: Event) {
        match &event {
            Event::Finished { replica, batch, .. } => {
                let Some(place) = self.replicas.get_mut(replica) else { return };
                let at = place.done.iter().position(|done| done.id == *batch).expect("it ended");
                for request in place.done.remove(at).requests {
                    let known = &mut self.requests[request.0 as usize];
                    if known.fate == Fate::Staged(*replica, *batch) {
                        known.fate = Fate::Done(self.now);
                        self.call_again(request);
                    }
                }
            }
            Event::Taken { replica, batch } => {
                let Some(place) = self.replicas.get_mut(replica) else { return };
                if let Some(batch) = place.slots.iter_mut().find(|slot| slot.id == *batch) {
                    batch.told = true;
                }
            }
            _ => {}
        }
        self.tell(event);
    }

    fn call_again(&mut self, request: RequestId) {
        if let Some(caller) = self.requests[request.0 as usize].caller {
            let think = self.random.exponential(self.setup.think / 2) + self.setup.think / 2;
            self.after(think, Happening::Arrive { caller: Some(caller) });
        }
    }

    /// Ends a replica; the innocent and (after a while) the suspects come back, a new one starts.
    fn lose(&mut self) {
        if !self.running() {
            return;
        }
        let ids: Vec<_> = self.replicas.keys().copied().collect();
        if !ids.is_empty() {
            let id = ids[self.random.below(ids.len() as u64) as usize];
            let lost = self.replicas.remove(&id).expect("just listed");
            self.tell(Event::ReplicaLost(id));
            let (mut innocent, mut suspects) = (Vec::new(), Vec::new());
            for batch in lost.slots.into_iter().chain(lost.done) {
                for request in batch.requests {
                    let known = &mut self.requests[request.0 as usize];
                    if known.fate == Fate::Staged(id, batch.id) {
                        known.fate = Fate::Away;
                        if batch.taken { suspects.push(request) } else { innocent.push(request) }
                    }
                }
            }
            self.give_back(&innocent);
            // One suspect is condemned, the others may run again.
            if let Some(condemned) = suspects.pop() {
                self.requests[condemned.0 as usize].fate = Fate::Done(self.now);
                self.tell(Event::Removed(condemned));
                self.call_again(condemned);
            }
            self.give_back(&suspects);
            self.after(Duration::from_millis(3), Happening::Start);
        }
        let next = self.random.exponential(self.setup.losses);
        self.after(next, Happening::Lose);
    }

    fn give_back(&mut self, requests: &[RequestId]) {
        requests.iter().for_each(|request| self.requests[request.0 as usize].fate = Fate::Queued);
        self.tell(Event::Returned { requests: requests.to_vec() });
    }

    fn cancel(&mut self) {
        if !self.running() {
            return;
        }
        let recent = 1 + self.random.below(64).min(self.requests.len() as u64);
        if let Some(at) = self.requests.len().checked_sub(recent as usize) {
            let request = RequestId(at as u64);
            let held = matches!(self.requests[at].fate, Fate::Queued | Fate::Staged(..) | Fate::Away);
            if held {
                self.requests[at].fate = Fate::Cancelled;
                self.tell(Event::Cancelled(request));
                self.call_again(request);
            }
        }
        let next = self.random.exponential(self.setup.cancellations);
        self.after(next, Happening::Cancel);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Stage { replica, batch, requests, .. } => self.stage(replica, batch, requests),
                Action::Append { replica, batch, requests } => self.append(replica, batch, requests),
                Action::Withdraw { replica, batch } => self.withdraw(replica, batch),
                Action::Answer { request, reason, .. } => {
                    let known = &mut self.requests[request.0 as usize];
                    assert_eq!(known.fate, Fate::Queued, "{request} was answered ({reason:?})");
                    known.fate = Fate::Answered(reason, self.now);
                    self.call_again(request);
                }
                Action::Hedge { .. } => unreachable!("hedging is off"),
                Action::WakeAt(at) => {
                    assert!(at > self.now, "woken at once: {at:?} at {:?}", self.now);
                    self.after(at.since(self.now), Happening::Wake(self.wake));
                }
            }
        }
    }

    fn hand_out(&mut self, replica: ReplicaId, batch: BatchId, requests: &[RequestId]) {
        assert!(!requests.is_empty());
        for request in requests {
            let known = &mut self.requests[request.0 as usize];
            assert_eq!(known.fate, Fate::Queued, "{request} was handed out");
            known.fate = Fate::Staged(replica, batch);
        }
    }

    fn check_batch(&self, requests: &[RequestId]) {
        let of = |request: &RequestId| &self.requests[request.0 as usize].arrival;
        let rows: u32 = requests.iter().map(|request| of(request).rows.max(1)).sum();
        let config = &self.setup.config;
        assert!(
            rows <= config.batch_rows_max || requests.len() == 1,
            "{rows} rows of {} requests",
            requests.len()
        );
        assert!(config.batched || requests.len() == 1);
        assert!(
            requests.iter().all(|request| of(request).shape == of(&requests[0]).shape),
            "shapes are mixed"
        );
    }

    fn stage(&mut self, id: ReplicaId, batch: BatchId, requests: Vec<RequestId>) {
        self.check_batch(&requests);
        if let Some(check) = self.check_stage {
            check(&requests, &self.requests);
        }
        self.hand_out(id, batch, &requests);
        let replica = self.replicas.get_mut(&id).expect("no action on a lost replica");
        assert!(!replica.draining, "a draining replica gets nothing");
        assert!(replica.slots.len() + replica.done.len() < 2, "{id} has no free slot");
        replica.slots.push(Batch { id: batch, requests, taken: false, told: false, refused_append: false });
        if replica.slots.len() == 1 {
            self.after(DOORBELL, Happening::Take(id));
        }
    }

    fn append(&mut self, id: ReplicaId, batch: BatchId, requests: Vec<RequestId>) {
        self.hand_out(id, batch, &requests);
        let full = self.random.unit() < self.setup.append_fails;
        let replica = self.replicas.get_mut(&id).expect("no action on a lost replica");
        let ended = replica.done.iter_mut();
        let batch =
            replica.slots.iter_mut().chain(ended).find(|slot| slot.id == batch).expect("appended to a batch");
        assert!(!batch.told, "appended to a batch that was known to be taken");
        assert!(!batch.refused_append, "appended again after a refusal");
        if batch.taken || full {
            batch.refused_append = true;
            self.give_back(&requests);
        } else {
            batch.requests.extend(&requests);
            let all = batch.requests.clone();
            self.check_batch(&all);
        }
    }

    fn withdraw(&mut self, id: ReplicaId, batch: BatchId) {
        let replica = self.replicas.get_mut(&id).expect("no action on a lost replica");
        let at = replica.slots.iter().position(|slot| slot.id == batch && !slot.taken);
        if let Some(at) = at {
            let gone = replica.slots.remove(at);
            let mut requests = gone.requests;
            requests.retain(|request| self.requests[request.0 as usize].fate == Fate::Staged(id, batch));
            requests.iter().for_each(|request| self.requests[request.0 as usize].fate = Fate::Queued);
            self.tell(Event::Withdrawn { replica: id, batch, requests });
        } else {
            self.told(Event::Taken { replica: id, batch });
        }
    }
}

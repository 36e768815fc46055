//! The environment of the scheduler in virtual time: replicas, callers, doorbells.
//!
//! Reads a scenario; reports events to the scheduler as a dispatcher would, late and several at once after a clock
//! jump. Injects no faults itself: that is `faults`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use inferd_scheduler::{Action, Arrival, Event, Room, Scheduler};
use inferd_testkit::{Agenda, VirtualReplica};
use inferd_types::{BatchId, ReplicaId, RequestId, Time};

use crate::ledger::{Fate, Home, Ledger};
use crate::scenario::{REQUESTS, Scenario, often};

/// From a ready batch to its run, and from its end to the dispatcher's knowledge of it.
pub(crate) const DOORBELL: Duration = Duration::from_micros(30);
/// Maximum time that work may wait while a replica is idle, for returning callers.
const LINGER_MAX: Duration = Duration::from_millis(1);
/// Steps between two checks of the scheduler's counts.
const LOOK_EVERY: u64 = 64;
/// Far more steps than a run of [`REQUESTS`] takes.
const MOMENTS_MAX: u64 = 5_000_000;

#[derive(Debug)]
pub(crate) enum Happening {
    Arrive { caller: Option<u64> },
    Take(ReplicaId),
    End(ReplicaId, BatchId, Duration),
    Report(Event),
    Wake(u64),
    Start,
    GiveBack(Vec<RequestId>),
    Ready(ReplicaId),
    Lose,
    Cancel,
    Drain,
    ToggleBatching,
    Jump,
    ChangeSpeed,
}

/// See the module.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) scheduler: Scheduler,
    pub(crate) ledger: Ledger,
    pub(crate) agenda: Agenda<Happening>,
    pub(crate) replicas: BTreeMap<ReplicaId, VirtualReplica>,
    /// What the scheduler is told once the actions at hand are carried out.
    pub(crate) reports: VecDeque<Event>,
    /// When this round of decisions wants to be woken.
    pub(crate) wake: Option<Time>,
    pub(crate) batches: u64,
    pub(crate) copies: u64,
    rounds: u64,
    next_replica: u32,
}

impl World {
    pub(crate) fn new(scenario: Scenario) -> World {
        let mut world = World {
            scheduler: Scheduler::new(scenario.config.clone()),
            ledger: Ledger::new(&scenario.config),
            agenda: Agenda::default(),
            replicas: BTreeMap::new(),
            reports: VecDeque::new(),
            wake: None,
            batches: 0,
            copies: 0,
            rounds: 0,
            next_replica: 0,
            scenario,
        };
        (0..world.scenario.replicas).for_each(|_| world.after(Duration::ZERO, Happening::Start));
        for caller in 0..world.scenario.callers {
            world.after(Duration::from_micros(10 * caller + 1), Happening::Arrive { caller: Some(caller) });
        }
        world.after(Duration::from_micros(1), Happening::Arrive { caller: None });
        world.plan_faults();
        world
    }

    /// Runs until nothing is scheduled; arrivals and faults end with the last request.
    pub(crate) fn run(&mut self) {
        let mut moments = 0u64;
        // Where the clock has jumped, what was due meanwhile happens now.
        while let Some(happening) = self.agenda.next() {
            if matches!(happening, Happening::Wake(round) if round != self.rounds) {
                continue;
            }
            self.happen(happening);
            self.settle();
            if !self.agenda.has_more_now() {
                self.decide();
                moments += 1;
                assert!(moments < MOMENTS_MAX, "the world does not come to rest");
                if moments.is_multiple_of(LOOK_EVERY) {
                    self.ledger.check(&self.scheduler, self.replicas_ready());
                }
            }
        }
    }

    pub(crate) fn replicas_ready(&self) -> usize {
        self.replicas.values().filter(|replica| !replica.draining).count()
    }

    pub(crate) fn now(&self) -> Time {
        self.agenda.now
    }

    pub(crate) fn after(&mut self, wait: Duration, happening: Happening) {
        self.agenda.after(wait, happening);
    }

    /// Whether requests and faults still arrive.
    pub(crate) fn running(&self) -> bool {
        (self.ledger.len() as u64) < REQUESTS
    }

    /// Decides until no decision leads to an event at once.
    fn decide(&mut self) {
        loop {
            let mut actions = Vec::new();
            self.rounds += 1;
            self.wake = None;
            self.scheduler.decide(self.now(), &mut actions);
            let refused = |action: &Action| matches!(action, Action::Answer { .. });
            assert!(self.ledger.queued() > 0 || !actions.iter().any(refused), "a refusal of nothing");
            self.carry_out(actions);
            if self.reports.is_empty() {
                break;
            }
            self.settle();
        }
        self.check_work_conserved();
        if let Some(at) = self.wake {
            let wait = at.since(self.now());
            self.after(wait, Happening::Wake(self.rounds));
        }
    }

    /// No replica is idle while work is queued, except while a batch lingers.
    fn check_work_conserved(&self) {
        let busy = self.replicas.values().filter(|replica| replica.is_busy()).count();
        let idle = self.replicas.values().filter(|replica| !replica.is_busy() && !replica.draining).count();
        if self.ledger.queued() == 0
            || idle <= self.scheduler.snapshot().replicas_ejected
            || busy >= self.scenario.config.running_max as usize
        {
            return;
        }
        let soon = self.wake.is_some_and(|at| at.since(self.now()) <= LINGER_MAX);
        assert!(soon, "{} wait beside an idle replica until {:?}", self.ledger.queued(), self.wake);
    }

    /// Reports the consequences of the carried out actions. What returns is queued from then on, not before: the
    /// present actions were decided without it.
    fn settle(&mut self) {
        while let Some(event) = self.reports.pop_front() {
            if let Event::Returned { requests } | Event::Withdrawn { requests, .. } = &event {
                requests.iter().for_each(|request| self.ledger.enqueue(*request));
            }
            let mut actions = Vec::new();
            self.scheduler.on_event(self.now(), event, &mut actions);
            self.carry_out(actions);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive { caller } => self.arrive(caller),
            Happening::Take(replica) => self.take(replica),
            Happening::End(replica, batch, execution) => self.end(replica, batch, execution),
            Happening::Report(event) => self.report(event),
            Happening::Wake(_) => {}
            Happening::Start => self.start(),
            Happening::GiveBack(requests) => self.give_back(requests),
            Happening::Ready(replica) => self.ready(replica),
            Happening::Lose => self.lose(),
            Happening::Cancel => self.cancel(),
            Happening::Drain => self.drain(),
            Happening::ToggleBatching => self.toggle_batching(),
            Happening::Jump => self.jump(),
            Happening::ChangeSpeed => self.change_speed(),
        }
    }

    fn start(&mut self) {
        let id = ReplicaId(self.next_replica);
        self.next_replica += 1;
        self.replicas.insert(id, VirtualReplica::default());
        self.reports.push_back(Event::ReplicaReady(id, Room::default()));
    }

    fn arrive(&mut self, caller: Option<u64>) {
        if !self.running() {
            return;
        }
        let first = RequestId(self.ledger.len() as u64);
        let arrival = self.scenario.arrival(self.now(), first);
        self.ledger.open(self.now(), arrival, caller);
        let mut parts = vec![arrival];
        if self.scenario.in_parts() {
            for part in 1..3 {
                let part = Arrival { request: RequestId(first.0 + part), ..arrival };
                self.ledger.open(self.now(), part, None);
                parts.push(part);
            }
        }
        let requests: Vec<_> = parts.iter().map(|part| part.request).collect();
        let event = if parts.len() == 1 { Event::Arrived(arrival) } else { Event::ArrivedInParts(parts) };
        let mut actions = Vec::new();
        self.scheduler.on_event(self.now(), event, &mut actions);
        if actions.is_empty() {
            self.ledger.admitted(&requests);
        } else {
            assert_eq!(actions.len(), 1, "a refusal is one answer");
            self.carry_out(actions);
            assert_eq!(self.ledger.get(first).fate, Fate::Refused);
            // The refusal of the first means all.
            requests[1..].iter().for_each(|part| self.ledger.end(self.now(), *part, Fate::Refused));
        }
        if caller.is_none() {
            self.expect_next();
        }
    }

    fn expect_next(&mut self) {
        let crowds = self.scenario.crowds;
        let random = &mut self.scenario.random;
        let crowd = if often(random, crowds) { random.below(100) } else { 0 };
        let next = random.exponential(self.scenario.between) + Duration::from_nanos(1);
        // One request of a burst schedules the next, the others don't.
        for one in 0..crowd {
            self.after(next, Happening::Arrive { caller: Some(u64::MAX - one) });
        }
        self.after(next, Happening::Arrive { caller: None });
    }

    /// The idle worker takes the batch that is staged first.
    pub(crate) fn take(&mut self, id: ReplicaId) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        let slowness = replica.slowness;
        let Some(batch) = replica.take() else { return };
        let (batch, rows) = (batch.id, self.ledger.rows(&batch.requests));
        let (fixed, each, stalls) = (self.scenario.fixed, self.scenario.each, self.scenario.faults.stalls);
        let random = &mut self.scenario.random;
        let stalled = if often(random, stalls) { 100.0 } else { 1.0 };
        let strays = 0.7 + 0.6 * random.unit() * random.unit();
        let execution = (fixed + each * rows).mul_f64(slowness * stalled * strays);
        self.after(execution, Happening::End(id, batch, execution));
        self.after(DOORBELL, Happening::Report(Event::Taken { replica: id, batch }));
    }

    fn end(&mut self, id: ReplicaId, batch: BatchId, execution: Duration) {
        let ok = !often(&mut self.scenario.random, self.scenario.faults.run_fails);
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        replica.end(batch);
        self.take(id);
        self.after(DOORBELL, Happening::Report(Event::Finished { replica: id, batch, execution, ok }));
    }

    /// Reports an event, unless its replica was lost meanwhile.
    fn report(&mut self, event: Event) {
        match &event {
            Event::Finished { replica, batch, ok, .. } => {
                let Some(place) = self.replicas.get_mut(replica) else { return };
                let requests = place.seen_end(*batch);
                self.answer(&requests, (*replica, *batch), *ok);
            }
            Event::Taken { replica, batch } => {
                let Some(place) = self.replicas.get_mut(replica) else { return };
                place.seen_taken(*batch);
            }
            _ => {}
        }
        self.reports.push_back(event);
    }

    /// Answers the requests that are still held by this batch; of two copies, the first that succeeds finds them.
    fn answer(&mut self, requests: &[RequestId], home: Home, ok: bool) {
        for request in requests {
            let known = self.ledger.get(*request);
            let held = known.fate == Fate::Held && (known.home == Some(home) || known.copy == Some(home));
            if held && (ok || self.ledger.lost_its_last(home, *request)) {
                self.ledger.end(self.now(), *request, if ok { Fate::Done } else { Fate::Failed });
                self.call_again(*request);
            }
        }
    }

    /// A closed-loop caller sends its next request soon after its response.
    pub(crate) fn call_again(&mut self, request: RequestId) {
        let callers = self.scenario.callers;
        if let Some(caller) = self.ledger.get(request).caller.filter(|caller| *caller < callers) {
            let think = Duration::from_micros(20 + self.scenario.random.below(200));
            self.after(think, Happening::Arrive { caller: Some(caller) });
        }
    }
}

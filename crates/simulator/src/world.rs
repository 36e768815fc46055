//! The virtual clock, and the path of every request through its steps.
//!
//! Reads a scenario, hands on a report. Decides nothing about batches: that is each station's scheduler.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use inferd_scheduler::pipeline::{Policy, StepEstimate};
use inferd_scheduler::{Arrival, ShapeKey, SizeBucket};
use inferd_types::{Due, Priority, RequestId, Result, Tenant, Time};

use crate::arrivals::{Arrivals, Coming};
use crate::histogram::Histogram;
use crate::plan::{Target, targets};
use crate::random::Random;
use crate::report::{ModelReport, Report, StepReport, TargetReport};
use crate::scenario::{Scenario, seconds, wrong};
use crate::station::{Effects, Moment, Station};

/// Instants between two reports of progress.
const PROGRESS_EVERY: u64 = 1 << 14;

/// A request in progress.
#[derive(Clone, Copy, Debug)]
struct Request {
    target: u32,
    rows: u32,
    tenant: u32,
    /// When it arrived, and when the gateway had read it.
    came: Time,
    arrived: Time,
    /// Bit sets of the steps that are done or skipped, and of those that ran.
    settled: u64,
    ran: u64,
    over: bool,
}

/// One step of one request, at a station. Its number is its id in the station's scheduler.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    request: u64,
    step: u16,
    station: u16,
    entered: Time,
    over: bool,
}

/// Counts of one target.
#[derive(Debug, Default)]
struct Tally {
    requests: u64,
    met: u64,
    late: u64,
    refused: u64,
    latency: Histogram,
    steps: Vec<Histogram>,
}

/// Items by an increasing number; old ones are dropped once they are done.
#[derive(Debug)]
struct Window<T> {
    first: u64,
    items: VecDeque<T>,
}

impl<T> Window<T> {
    fn new() -> Self {
        Window { first: 0, items: VecDeque::new() }
    }

    fn push(&mut self, item: T) -> u64 {
        self.items.push_back(item);
        self.first + self.items.len() as u64 - 1
    }

    fn get(&mut self, number: u64) -> Option<&mut T> {
        self.items.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn drop_while(&mut self, over: impl Fn(&T) -> bool) {
        while self.items.front().is_some_and(&over) {
            self.items.pop_front();
            self.first += 1;
        }
    }
}

/// Runs `scenario` to its end. `progress` is called occasionally with the fraction of the time that has passed, and
/// ends the simulation by `false`.
///
/// # Errors
/// `InvalidInput` if the scenario is invalid, with a remedy, or if `progress` ended it.
pub fn simulate(scenario: &Scenario, progress: &mut dyn FnMut(f64) -> bool) -> Result<Report> {
    scenario.check()?;
    let policy = scenario.policy()?;
    let (targets, sent) = targets(scenario, policy)?;
    let mut world = World::new(scenario, policy, targets, sent);
    let end = seconds(scenario.duration_s).as_secs_f64();
    let mut instants = 0u64;
    while let Some(now) = world.next() {
        instants += 1;
        if instants.is_multiple_of(PROGRESS_EVERY) {
            let share = now.since(Time::ZERO).as_secs_f64() / end;
            if !progress(share.min(1.0)) {
                return Err(wrong("the simulation was cancelled"));
            }
        }
        world.step(now);
    }
    Ok(world.report(scenario))
}

struct World {
    policy: Policy,
    now: Time,
    targets: Vec<Target>,
    /// The target of each source.
    sent: Vec<usize>,
    stations: Vec<Station>,
    arrivals: Arrivals,
    /// When the gateway will have done its present work.
    gateway_free: Time,
    /// Requests that have arrived, and when each will have been read, sequentially.
    reading: VecDeque<(Time, Time, Coming)>,
    moments: BinaryHeap<Reverse<(Time, u64, u16, Moment)>>,
    sequence: u64,
    requests: Window<Request>,
    tickets: Window<Ticket>,
    tallies: Vec<Tally>,
    waits: Vec<Histogram>,
    /// For weighted choices and conditions.
    random: Random,
    /// Stations with an event at this instant.
    touched: Vec<u16>,
    effects: Effects,
    estimates: Vec<StepEstimate>,
}

impl World {
    fn new(scenario: &Scenario, policy: Policy, targets: Vec<Target>, sent: Vec<usize>) -> World {
        let models = scenario.models.iter().enumerate();
        let tally = |target: &Target| Tally {
            steps: vec![Histogram::default(); if target.steps.len() > 1 { target.steps.len() } else { 0 }],
            ..Tally::default()
        };
        World {
            policy,
            now: Time::ZERO,
            stations: models
                .map(|(number, model)| Station::new(model.clone(), policy, scenario.seed, number as u64 + 1))
                .collect(),
            arrivals: Arrivals::new(&scenario.arrivals, scenario.seed, scenario.duration_s),
            gateway_free: Time::ZERO,
            reading: VecDeque::new(),
            moments: BinaryHeap::new(),
            sequence: 0,
            requests: Window::new(),
            tickets: Window::new(),
            tallies: targets.iter().map(tally).collect(),
            waits: vec![Histogram::default(); scenario.models.len()],
            random: Random::new(scenario.seed, 0),
            touched: Vec::new(),
            effects: Effects::default(),
            estimates: Vec::new(),
            targets,
            sent,
        }
    }

    /// The time of the next event.
    fn next(&self) -> Option<Time> {
        let moment = self.moments.peek().map(|Reverse((at, ..))| *at);
        let read = self.reading.front().map(|(at, ..)| *at);
        [moment, read, self.arrivals.peek()].into_iter().flatten().min()
    }

    /// Handles all events at `now`; then the schedulers decide.
    fn step(&mut self, now: Time) {
        self.now = now;
        while let Some(Reverse((at, _, station, moment))) = self.moments.peek().copied() {
            if at > now {
                break;
            }
            self.moments.pop();
            let mut effects = std::mem::take(&mut self.effects);
            if self.stations[station as usize].happen(now, moment, &mut effects) {
                self.touch(station);
            }
            self.settle(station, effects);
        }
        while self.arrivals.peek().is_some_and(|at| at <= now) {
            if let Some(coming) = self.arrivals.take() {
                self.pass_gateway(self.sent[coming.source]);
                self.reading.push_back((self.gateway_free, now, coming));
            }
        }
        while self.reading.front().is_some_and(|(at, ..)| *at <= now) {
            if let Some((_, came, coming)) = self.reading.pop_front() {
                self.arrive(came, coming);
            }
        }
        while let Some(station) = self.touched.pop() {
            let mut effects = std::mem::take(&mut self.effects);
            self.stations[station as usize].decide(now, &mut effects);
            self.settle(station, effects);
        }
        self.forget();
    }

    fn touch(&mut self, station: u16) {
        if !self.touched.contains(&station) {
            self.touched.push(station);
        }
    }

    /// Carries out a station's effects.
    fn settle(&mut self, station: u16, mut effects: Effects) {
        for (at, moment) in effects.later.drain(..) {
            self.sequence += 1;
            self.moments.push(Reverse((at, self.sequence, station, moment)));
        }
        for (id, started) in effects.done.drain(..) {
            self.done(id, started);
        }
        for id in effects.refused.drain(..) {
            if let Some(ticket) = self.tickets.get(id.0).filter(|ticket| !ticket.over) {
                ticket.over = true;
                let number = ticket.request;
                self.refuse(number);
            }
        }
        // Empty again: kept for reuse.
        self.effects = effects;
    }

    fn arrive(&mut self, came: Time, coming: Coming) {
        let target = self.sent[coming.source];
        self.tallies[target].requests += 1;
        let request = Request {
            target: target as u32,
            rows: coming.rows,
            tenant: coming.tenant,
            came,
            arrived: self.now,
            settled: 0,
            ran: 0,
            over: false,
        };
        let number = self.requests.push(request);
        if self.should_refuse(target) {
            self.refuse(number);
            return;
        }
        for position in 0..self.targets[target].steps.len() {
            if self.targets[target].graph.predecessors(position).is_empty() {
                self.enter(number, position);
            }
        }
    }

    /// Whether a pipeline's admission refuses a new request.
    fn should_refuse(&mut self, target: usize) -> bool {
        if self.policy != Policy::Slack || self.targets[target].deadlines.is_none() {
            return false;
        }
        self.estimate(target);
        let deadlines = self.targets[target].deadlines.as_ref();
        deadlines.is_some_and(|deadlines| deadlines.lateness(self.now, self.now, &self.estimates).is_some())
    }

    /// Fills `estimates` with those of the target's steps.
    fn estimate(&mut self, target: usize) {
        self.estimates.clear();
        for step in &self.targets[target].steps {
            // The model with the largest weight stands for all of a step.
            let station = step.stations.iter().zip(&step.weights).max_by(|one, two| one.1.total_cmp(two.1));
            let estimate = station.map(|(station, _)| self.stations[*station].estimate(self.now));
            self.estimates.push(estimate.unwrap_or_default());
        }
    }

    /// A request enters a step, or skips it.
    fn enter(&mut self, number: u64, position: usize) {
        let Some(request) = self.requests.get(number).filter(|request| !request.over).copied() else {
            return;
        };
        let target = request.target as usize;
        let step = &self.targets[target].steps[position];
        if step.probability < 1.0 && self.random.unit() >= step.probability {
            return self.leave(number, position, false);
        }
        let chosen = if step.stations.len() > 1 { self.random.choose(&step.weights) } else { 0 };
        let station = step.stations[chosen];
        let due = self.due(target, position, request.arrived);
        let (step, at) = (position as u16, station as u16);
        let ticket = Ticket { request: number, step, station: at, entered: self.now, over: false };
        let arrival = Arrival {
            request: RequestId(self.tickets.push(ticket)),
            rows: request.rows,
            bytes: 0,
            shape: ShapeKey::default(),
            size: SizeBucket::default(),
            priority: Priority::default(),
            tenant: Tenant { id: request.tenant, weight: 1 },
            due,
            timeout: None,
        };
        let mut effects = std::mem::take(&mut self.effects);
        self.stations[station].arrive(self.now, arrival, &mut effects);
        self.touch(at);
        self.settle(at, effects);
    }

    fn due(&mut self, target: usize, position: usize, arrived: Time) -> Due {
        let alone = self.targets[target].steps.len() == 1;
        if self.targets[target].deadlines.is_none() {
            return if alone { Due::Objective } else { Due::Never };
        }
        if self.policy == Policy::Slack {
            self.estimate(target);
        }
        let deadlines = self.targets[target].deadlines.as_ref();
        deadlines.map_or(Due::Never, |deadlines| {
            Due::At(deadlines.due(position, arrived, self.now, &self.estimates))
        })
    }

    fn done(&mut self, id: RequestId, started: Time) {
        let Some(ticket) = self.tickets.get(id.0).filter(|ticket| !ticket.over) else { return };
        ticket.over = true;
        let ticket = *ticket;
        self.waits[ticket.station as usize].record(started.since(ticket.entered));
        let Some(request) = self.requests.get(ticket.request).filter(|request| !request.over) else { return };
        let target = request.target as usize;
        if let Some(step) = self.tallies[target].steps.get_mut(ticket.step as usize) {
            step.record(self.now.since(ticket.entered));
        }
        self.leave(ticket.request, ticket.step as usize, true);
    }

    /// A step of a request is done or skipped: its successors are entered once all their predecessors are.
    fn leave(&mut self, number: u64, position: usize, ran: bool) {
        let Some(request) = self.requests.get(number) else { return };
        request.settled |= 1 << position;
        request.ran |= u64::from(ran) << position;
        let request = *request;
        let target = request.target as usize;
        if request.settled.count_ones() as usize == self.targets[target].steps.len() {
            return self.answer(number);
        }
        for next in 0..self.targets[target].graph.successors(position).len() {
            let next = self.targets[target].graph.successors(position)[next];
            let before = self.targets[target].graph.predecessors(next);
            let is_in = |bits: u64| move |step: &usize| bits >> *step & 1 == 1;
            if !before.iter().all(is_in(request.settled)) {
                continue;
            }
            if before.iter().any(is_in(request.ran)) {
                self.enter(number, next);
            } else {
                self.leave(number, next, false);
            }
        }
    }

    fn answer(&mut self, number: u64) {
        let Some(request) = self.requests.get(number).filter(|request| !request.over) else { return };
        request.over = true;
        let request = *request;
        self.pass_gateway(request.target as usize);
        let objective = self.targets[request.target as usize].objective;
        let latency = self.gateway_free.since(request.came) + self.unseen(request.target as usize);
        let tally = &mut self.tallies[request.target as usize];
        tally.latency.record(latency);
        if objective.is_none_or(|objective| latency <= seconds(objective.latency_s)) {
            tally.met += 1;
        } else {
            tally.late += 1;
        }
    }

    /// How long a request waited before it was read.
    fn unseen(&mut self, target: usize) -> Duration {
        self.first_station(target).and_then(Station::unseen).unwrap_or_default()
    }

    /// The gateway reads or answers one request of `target`, after its present work: half of the cost per request.
    fn pass_gateway(&mut self, target: usize) {
        let half = self.first_station(target).map_or(0.0, |station| station.model.overhead_request_s / 2.0);
        self.gateway_free = self.gateway_free.max(self.now) + seconds(half);
    }

    fn first_station(&mut self, target: usize) -> Option<&mut Station> {
        let first = *self.targets[target].steps.first()?.stations.first()?;
        self.stations.get_mut(first)
    }

    fn refuse(&mut self, number: u64) {
        let Some(request) = self.requests.get(number).filter(|request| !request.over) else { return };
        request.over = true;
        let target = request.target as usize;
        self.tallies[target].refused += 1;
        self.pass_gateway(target);
    }

    fn forget(&mut self) {
        self.requests.drop_while(|request| request.over);
        self.tickets.drop_while(|ticket| ticket.over);
        let oldest = self.tickets.first;
        self.stations.iter_mut().for_each(|station| station.forget_before(oldest));
    }

    fn report(self, scenario: &Scenario) -> Report {
        let ended_s = self.now.since(Time::ZERO).as_secs_f64();
        let stations = self.stations.iter().zip(&self.waits);
        Report {
            policy: self.policy.to_string(),
            seed: scenario.seed,
            duration_s: scenario.duration_s,
            ended_s,
            requests: self.tallies.iter().map(|tally| tally.requests).sum(),
            models: stations.map(|(station, wait)| ModelReport::new(station, wait, ended_s)).collect(),
            targets: self
                .targets
                .iter()
                .zip(&self.tallies)
                .map(|(target, tally)| of_target(target, tally))
                .collect(),
        }
    }
}

fn of_target(target: &Target, tally: &Tally) -> TargetReport {
    let attainment = if tally.requests > 0 { tally.met as f64 / tally.requests as f64 } else { 1.0 };
    let steps = target.steps.iter().zip(&tally.steps).map(|(step, times)| StepReport {
        name: step.name.clone(),
        runs: times.count(),
        latency: times.into(),
    });
    TargetReport {
        name: target.name.clone(),
        objective_s: target.objective.map(|objective| objective.latency_s),
        percentile: target.objective.map(|objective| objective.percentile),
        requests: tally.requests,
        met: tally.met,
        late: tally.late,
        refused: tally.refused,
        attainment,
        holds: target.objective.map(|objective| attainment * 100.0 >= objective.percentile),
        latency: (&tally.latency).into(),
        distribution: tally.latency.curve(),
        steps: steps.collect(),
    }
}

//! A station: one model's scheduler, and simulated replicas that take the time of its curve.
//!
//! Reads arrivals and moments, hands on answered and refused requests. Carries out the scheduler's actions as the
//! server's dispatcher does. Knows nothing of pipelines.

use std::collections::VecDeque;
use std::time::Duration;

use inferd_scheduler::pipeline::{Policy, StepEstimate};
use inferd_scheduler::{Action, Arrival, Config, Event, Hedging, Room, Scheduler};
use inferd_types::{BatchId, ReplicaId, RequestId, Time};

use crate::random::Random;
use crate::scenario::{Model, seconds};

/// Number of runs that the scheduler has learned from before the first request, as in a warm server.
const RUNS_BEFORE: u32 = 512;

/// A scheduled event of a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// A replica sees a staged batch.
    Take(usize),
    /// A run ends.
    End(usize),
    /// The dispatcher sees the end of the oldest unseen run.
    Seen(usize),
    /// The scheduler's wake-up.
    Wake,
}

/// The effects of a station on the world.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) later: Vec<(Time, Moment)>,
    /// Answered requests, and when their run began.
    pub(crate) done: Vec<(RequestId, Time)>,
    pub(crate) refused: Vec<RequestId>,
}

#[derive(Debug)]
struct Run {
    batch: BatchId,
    requests: Vec<(RequestId, u32)>,
    /// `None`: not taken yet.
    started: Option<Time>,
    takes: Duration,
}

#[derive(Debug)]
struct Machine {
    /// Its slowdown relative to the curve.
    slowness: f64,
    /// The first executes once it has started.
    slots: VecDeque<Run>,
    /// Ended, but not seen yet.
    ended: VecDeque<Run>,
}

/// Counts of one model.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) busy: Duration,
    pub(crate) requests: u64,
    /// Number of hedges.
    pub(crate) copies: u64,
    /// Batches by their rows.
    pub(crate) batches: Vec<u64>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Station {
    pub(crate) model: Model,
    pub(crate) counts: Counts,
    scheduler: Scheduler,
    machines: Vec<Machine>,
    /// Half of the overhead per batch.
    half: Duration,
    /// Mean times by rows - 1.
    means: Vec<Duration>,
    random: Random,
    /// Draws of the gateway's and the replicas' waits: separate, so that they change no execution time.
    turns: Random,
    /// The index of the next replayed ratio.
    replayed: Option<usize>,
    rows: VecDeque<(u64, u32)>,
    wake: Option<Time>,
    actions: Vec<Action>,
}

impl Station {
    /// A station with warm replicas, and a scheduler that knows the model.
    pub(crate) fn new(model: Model, policy: Policy, seed: u64, number: u64) -> Station {
        let objective = model.objective.map(|objective| inferd_scheduler::Objective {
            latency: seconds(objective.latency_s),
            quantile: objective.percentile / 100.0,
        });
        let config = Config {
            batched: model.batched,
            batch_rows_max: model.batch_rows_max,
            queue_rows_max: model.queue_rows_max,
            queue_max_bytes: usize::MAX,
            objective,
            linger: model.linger,
            ejection: model.ejection && policy == Policy::Slack,
            hedging: (model.hedge_budget > 0.0)
                .then_some(Hedging { quantile: 0.95, budget: model.hedge_budget }),
            running_max: model.machine.running_max(model.replicas).unwrap_or(u32::MAX).max(1),
            batch_rule: policy.batch_rule(),
            seed,
            ..Config::default()
        };
        let machine = |index: usize| Machine {
            slowness: model.slowness.get(index).copied().unwrap_or(1.0),
            slots: VecDeque::new(),
            ended: VecDeque::new(),
        };
        let mut station = Station {
            counts: Counts::default(),
            scheduler: Scheduler::new(config),
            machines: (0..model.replicas as usize).map(machine).collect(),
            half: seconds(model.overhead_batch_s / 2.0),
            means: (1..=model.batch_rows_max).map(|rows| model.mean(rows)).collect(),
            random: Random::new(seed, number),
            turns: Random::new(seed, number + 100_000),
            replayed: None,
            rows: VecDeque::new(),
            wake: None,
            actions: Vec::new(),
            model,
        };
        station.learn();
        station
    }

    fn learn(&mut self) {
        let most = if self.model.batched { self.model.batch_rows_max } else { 1 };
        for run in 0..RUNS_BEFORE {
            // Small and large ones: 1, 2, 4 … and evenly spaced ones.
            let rows = if run % 2 == 0 {
                1 << (run / 2 % 16)
            } else {
                1 + (self.random.unit() * f64::from(most)) as u32
            };
            let rows = rows.min(most);
            let takes = self.draw(rows);
            self.scheduler.observe(rows, takes);
        }
        for replica in 0..self.machines.len() {
            let id = ReplicaId(replica as u32);
            self.scheduler.on_event(Time::ZERO, Event::ReplicaReady(id, Room::default()), &mut self.actions);
        }
    }

    /// The duration of one run of `rows`.
    fn draw(&mut self, rows: u32) -> Duration {
        let known = self.means.get(rows as usize - 1).copied();
        let mean = known.unwrap_or_else(|| self.model.mean(rows));
        self.ratio().map_or(mean, |ratio| mean.mul_f64(ratio))
    }

    /// The ratio of the next run to the mean; `None` if all take the mean.
    fn ratio(&mut self) -> Option<f64> {
        let ratios = &self.model.recent_ratios;
        if ratios.is_empty() {
            return self.random.value(&self.model.spread);
        }
        let at = *self.replayed.get_or_insert((self.random.unit() * ratios.len() as f64) as usize);
        self.replayed = Some((at + 1) % ratios.len());
        Some(ratios[at])
    }

    /// How long the gateway waits for its turn: to see that a run has ended, or to read a request.
    pub(crate) fn unseen(&mut self) -> Option<Duration> {
        self.turns.value(&self.model.unseen).map(seconds)
    }

    /// Number of ejections.
    pub(crate) fn ejections(&self) -> u64 {
        self.scheduler.snapshot().ejections
    }

    /// The scheduler's estimate for a new request.
    pub(crate) fn estimate(&self, now: Time) -> StepEstimate {
        self.scheduler.estimate(now)
    }

    /// A request arrives at the scheduler.
    pub(crate) fn arrive(&mut self, now: Time, arrival: Arrival, effects: &mut Effects) {
        self.counts.requests += 1;
        if arrival.rows > 1 {
            self.rows.push_back((arrival.request.0, arrival.rows));
        }
        self.send(now, Event::Arrived(arrival), effects);
    }

    /// The scheduler decides, after the last event of an instant.
    pub(crate) fn decide(&mut self, now: Time, effects: &mut Effects) {
        let mut actions = std::mem::take(&mut self.actions);
        self.scheduler.decide(now, &mut actions);
        self.carry_out(now, &mut actions, effects);
        self.actions = actions;
    }

    /// Handles a scheduled event; returns whether it concerns the scheduler.
    pub(crate) fn happen(&mut self, now: Time, moment: Moment, effects: &mut Effects) -> bool {
        match moment {
            Moment::Take(machine) => self.take(now, machine, effects),
            Moment::End(machine) => self.end(now, machine, effects),
            Moment::Seen(machine) => self.see(now, machine, effects),
            Moment::Wake => return self.wake.take_if(|at| *at <= now).is_some(),
        }
        true
    }

    fn send(&mut self, now: Time, event: Event, effects: &mut Effects) {
        let mut actions = std::mem::take(&mut self.actions);
        self.scheduler.on_event(now, event, &mut actions);
        self.carry_out(now, &mut actions, effects);
        self.actions = actions;
    }

    fn carry_out(&mut self, now: Time, actions: &mut Vec<Action>, effects: &mut Effects) {
        for action in actions.drain(..) {
            match action {
                Action::Stage { replica, batch, requests, .. } => {
                    self.stage(now, replica, batch, requests, effects);
                }
                Action::Hedge { replica, batch, requests, .. } => {
                    self.counts.copies += 1;
                    self.stage(now, replica, batch, requests, effects);
                }
                Action::Append { replica, batch, requests } => {
                    self.append(now, replica, batch, requests, effects)
                }
                Action::Withdraw { replica, batch } => self.withdraw(now, replica, batch, effects),
                Action::Answer { request, .. } => effects.refused.push(request),
                Action::WakeAt(at) => {
                    if self.wake != Some(at) {
                        self.wake = Some(at);
                        effects.later.push((at.max(now), Moment::Wake));
                    }
                }
            }
        }
    }

    fn stage(
        &mut self,
        now: Time,
        replica: ReplicaId,
        batch: BatchId,
        requests: Vec<RequestId>,
        effects: &mut Effects,
    ) {
        let index = replica.0 as usize;
        let requests = requests.into_iter().map(|request| (request, self.rows_of(request))).collect();
        let slots = &mut self.machines[index].slots;
        slots.push_back(Run { batch, requests, started: None, takes: Duration::ZERO });
        if slots.len() > 1 {
            return;
        }
        if self.half.is_zero() {
            self.take(now, index, effects);
        } else {
            effects.later.push((now + self.half, Moment::Take(index)));
        }
    }

    /// Rows of a request; requests of one row are not stored.
    fn rows_of(&mut self, request: RequestId) -> u32 {
        let at = self.rows.binary_search_by_key(&request.0, |(id, _)| *id);
        at.map_or(1, |at| self.rows[at].1)
    }

    fn append(
        &mut self,
        now: Time,
        replica: ReplicaId,
        batch: BatchId,
        requests: Vec<RequestId>,
        effects: &mut Effects,
    ) {
        let sized: Vec<_> = requests.iter().map(|request| (*request, self.rows_of(*request))).collect();
        let slots = &mut self.machines[replica.0 as usize].slots;
        match slots.iter_mut().find(|run| run.batch == batch && run.started.is_none()) {
            Some(run) => run.requests.extend(sized),
            None => self.send(now, Event::Returned { requests }, effects),
        }
    }

    fn withdraw(&mut self, now: Time, replica: ReplicaId, batch: BatchId, effects: &mut Effects) {
        let slots = &mut self.machines[replica.0 as usize].slots;
        // A replica that has started it has reported that before.
        let Some(at) = slots.iter().position(|run| run.batch == batch && run.started.is_none()) else {
            return;
        };
        let Some(run) = slots.remove(at) else { return };
        let requests = run.requests.into_iter().map(|(request, _)| request).collect();
        self.send(now, Event::Withdrawn { replica, batch, requests }, effects);
    }

    fn take(&mut self, now: Time, machine: usize, effects: &mut Effects) {
        let Some(first) = self.machines[machine].slots.front().filter(|run| run.started.is_none()) else {
            return;
        };
        let batch = first.batch;
        let rows: u32 = first.requests.iter().map(|(_, rows)| rows).sum();
        let takes = self.draw(rows).mul_f64(self.machines[machine].slowness);
        if let Some(first) = self.machines[machine].slots.front_mut() {
            (first.started, first.takes) = (Some(now), takes);
        }
        self.count(rows, takes);
        effects.later.push((now + takes, Moment::End(machine)));
        self.send(now, Event::Taken { replica: ReplicaId(machine as u32), batch }, effects);
    }

    fn count(&mut self, rows: u32, takes: Duration) {
        let rows = rows as usize;
        if self.counts.batches.len() <= rows {
            self.counts.batches.resize(rows + 1, 0);
        }
        self.counts.batches[rows] += 1;
        self.counts.busy += takes;
    }

    fn end(&mut self, now: Time, machine: usize, effects: &mut Effects) {
        let Some(run) = self.machines[machine].slots.pop_front() else { return };
        self.machines[machine].ended.push_back(run);
        let unseen = self.unseen().unwrap_or(self.half);
        if unseen.is_zero() {
            self.see(now, machine, effects);
        } else {
            effects.later.push((now + unseen, Moment::Seen(machine)));
        }
        let staged = !self.machines[machine].slots.is_empty();
        match self.turns.value(&self.model.pauses).filter(|_| staged) {
            Some(pause) if pause > 0.0 => effects.later.push((now + seconds(pause), Moment::Take(machine))),
            _ => self.take(now, machine, effects),
        }
    }

    fn see(&mut self, now: Time, machine: usize, effects: &mut Effects) {
        let Some(run) = self.machines[machine].ended.pop_front() else { return };
        let started = run.started.unwrap_or(now);
        effects.done.extend(run.requests.iter().map(|(request, _)| (*request, started)));
        let finished = Event::Finished {
            replica: ReplicaId(machine as u32),
            batch: run.batch,
            execution: run.takes,
            ok: true,
        };
        self.send(now, finished, effects);
    }

    /// No request before `oldest` is here any more.
    pub(crate) fn forget_before(&mut self, oldest: u64) {
        while self.rows.front().is_some_and(|(id, _)| *id < oldest) {
            self.rows.pop_front();
        }
    }
}

//! One model: the scheduler that serves it, and replicas that take the time that the model's curve says.
//!
//! Carries out the scheduler's actions as the server's dispatcher does. Knows nothing of pipelines.

use std::collections::VecDeque;
use std::time::Duration;

use inferd_scheduler::pipeline::{Policy, StepEstimate};
use inferd_scheduler::{Action, Arrival, Config, Event, Hedging, Room, Scheduler};
use inferd_types::{BatchId, ReplicaId, RequestId, Time};

use crate::random::Random;
use crate::scenario::{Model, seconds};

/// Runs that a scheduler has learned from before the first request, as one of a warm server has.
const RUNS_BEFORE: u32 = 512;

/// What is to happen at a station later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// A replica sees what was staged for it.
    Take(usize),
    /// A run is over.
    End(usize),
    /// The dispatcher sees that the oldest unseen run is over.
    Seen(usize),
    /// The scheduler wanted to be asked.
    Wake,
}

/// What a station asks of the world around it.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) later: Vec<(Time, Moment)>,
    /// Who is answered, and when its run began.
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
    /// How much slower than the curve it is.
    slowness: f64,
    /// The first executes once it has started.
    slots: VecDeque<Run>,
    /// Over, but not seen yet.
    ended: VecDeque<Run>,
}

/// What was counted of one model.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) busy: Duration,
    pub(crate) requests: u64,
    /// Batches that were run a second time elsewhere.
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
    /// Half of what a hand-over and its way back take.
    half: Duration,
    /// Mean times by rows - 1.
    means: Vec<Duration>,
    random: Random,
    /// For how long the gateway waits, and replicas for it: drawn apart, so that it changes no execution.
    turns: Random,
    /// Which of the model's ratios is next.
    replayed: Option<usize>,
    rows: VecDeque<(u64, u32)>,
    wake: Option<Time>,
    actions: Vec<Action>,
}

impl Station {
    /// A station whose replicas are warm, and whose scheduler knows the model as one that has served for a while.
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
            // Small and large ones alike: 1, 2, 4 … and evenly in between.
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

    /// What one run of `rows` takes.
    fn draw(&mut self, rows: u32) -> Duration {
        let known = self.means.get(rows as usize - 1).copied();
        let mean = known.unwrap_or_else(|| self.model.mean(rows));
        self.ratio().map_or(mean, |ratio| mean.mul_f64(ratio))
    }

    /// What the next run takes relative to the mean; `None` where all take the same.
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

    /// How often a replica was left out for a while.
    pub(crate) fn ejections(&self) -> u64 {
        self.scheduler.snapshot().ejections
    }

    /// What the scheduler expects of a newcomer.
    pub(crate) fn estimate(&self, now: Time) -> StepEstimate {
        self.scheduler.estimate(now)
    }

    /// A request comes to the scheduler.
    pub(crate) fn arrive(&mut self, now: Time, arrival: Arrival, effects: &mut Effects) {
        self.counts.requests += 1;
        if arrival.rows > 1 {
            self.rows.push_back((arrival.request.0, arrival.rows));
        }
        self.tell(now, Event::Arrived(arrival), effects);
    }

    /// Nothing more happens at this instant: the scheduler decides.
    pub(crate) fn decide(&mut self, now: Time, effects: &mut Effects) {
        let mut actions = std::mem::take(&mut self.actions);
        self.scheduler.decide(now, &mut actions);
        self.carry_out(now, &mut actions, effects);
        self.actions = actions;
    }

    /// Something that was to happen happens; whether it concerns the scheduler.
    pub(crate) fn happen(&mut self, now: Time, moment: Moment, effects: &mut Effects) -> bool {
        match moment {
            Moment::Take(machine) => self.take(now, machine, effects),
            Moment::End(machine) => self.end(now, machine, effects),
            Moment::Seen(machine) => self.see(now, machine, effects),
            Moment::Wake => return self.wake.take_if(|at| *at <= now).is_some(),
        }
        true
    }

    fn tell(&mut self, now: Time, event: Event, effects: &mut Effects) {
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

    /// Rows of a request; those of one row are not kept.
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
            None => self.tell(now, Event::Returned { requests }, effects),
        }
    }

    fn withdraw(&mut self, now: Time, replica: ReplicaId, batch: BatchId, effects: &mut Effects) {
        let slots = &mut self.machines[replica.0 as usize].slots;
        // Whoever has started it has said so before.
        let Some(at) = slots.iter().position(|run| run.batch == batch && run.started.is_none()) else {
            return;
        };
        let Some(run) = slots.remove(at) else { return };
        let requests = run.requests.into_iter().map(|(request, _)| request).collect();
        self.tell(now, Event::Withdrawn { replica, batch, requests }, effects);
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
        self.tell(now, Event::Taken { replica: ReplicaId(machine as u32), batch }, effects);
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
        self.tell(now, finished, effects);
    }

    /// No request before `oldest` is here any more.
    pub(crate) fn forget_before(&mut self, oldest: u64) {
        while self.rows.front().is_some_and(|(id, _)| *id < oldest) {
            self.rows.pop_front();
        }
    }
}

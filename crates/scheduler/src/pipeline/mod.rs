//! Deadlines of steps: how the one objective of a pipeline becomes a time for each of its queues.
//!
//! Reads the graph of steps and what each step's scheduler estimates now, hands back times. Knows nothing of models,
//! tensors or of how a step is run. The server and the simulator ask the same functions.

mod graph;
mod policy;

use std::time::Duration;

use inferd_types::Time;

pub use graph::{Graph, GraphFault};
pub use policy::{Policy, UnknownPolicy};

/// The part of the objective that a newcomer's predicted completion may use up. Estimates know neither who comes next
/// nor in which order; without room for that, a lasting overload makes nearly everyone late by a little.
const DOOR_PART: f64 = 0.97;

/// What a step's scheduler expects now of a request that would enter it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepEstimate {
    /// How long a newcomer waits until its batch begins, on average.
    pub queueing: Duration,
    /// What the batch that a newcomer joins takes at most, with those who come until it begins.
    pub joined: Duration,
    /// What a batch as large as the recent ones takes at most (at the quantile of promises).
    pub high: Duration,
    /// The same on average.
    pub mean: Duration,
    /// Rows of the recent batches.
    pub rows: u32,
    /// Rows that wait now.
    pub waiting: u32,
    /// What each further row of a batch adds, on average.
    pub per_row: Duration,
    /// Most rows of a batch.
    pub rows_max: u32,
}

impl StepEstimate {
    /// What a batch of one row takes at most.
    fn high_alone(&self) -> Duration {
        self.high.saturating_sub(self.high_per_row().saturating_mul(self.rows.saturating_sub(1)))
    }

    /// What each further row adds at most.
    fn high_per_row(&self) -> Duration {
        let scale = if self.mean.is_zero() { 1.0 } else { self.high.as_secs_f64() / self.mean.as_secs_f64() };
        self.per_row.mul_f64(scale.max(1.0))
    }

    /// What a batch of `rows` takes, or one of the recent size if that is larger.
    fn high_with(&self, rows: u32) -> Duration {
        let more = rows.min(self.rows_max).saturating_sub(self.rows);
        self.high + self.high_per_row().saturating_mul(more)
    }
}

/// When each step of a pipeline should be done. One for each pipeline; holds nothing of single requests.
#[derive(Clone, Debug)]
pub struct Deadlines {
    policy: Policy,
    graph: Graph,
    objective: Duration,
    /// The part of the objective that is over when a step is done, by step: for the policies with shares.
    part: Vec<f64>,
}

impl Deadlines {
    /// Deadlines of a pipeline over `graph` with an end-to-end `objective`. `weights`: what each step takes at a
    /// realistic batch, in any unit; steps that are missing or not above zero count as equal shares of the mean.
    pub fn new(policy: Policy, graph: Graph, objective: Duration, weights: &[f64]) -> Deadlines {
        let known: Vec<f64> =
            weights.iter().copied().filter(|weight| *weight > 0.0 && weight.is_finite()).collect();
        let usual = if known.is_empty() { 1.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
        let weight = |step: usize| match (policy, weights.get(step)) {
            (Policy::EqualDivision, _) => 1.0,
            (_, Some(weight)) if *weight > 0.0 && weight.is_finite() => *weight,
            _ => usual,
        };
        let (before, after) = (graph.before(weight), graph.after(weight));
        let part = |step: usize| {
            let through = before[step] + weight(step) + after[step];
            // Nothing is forwarded where shares are equal: each step has its own part from when it is entered.
            let used = if policy == Policy::EqualDivision { 0.0 } else { before[step] };
            (used + weight(step)) / through
        };
        let part = (0..graph.len()).map(part).collect();
        Deadlines { policy, graph, objective, part }
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The end-to-end objective.
    pub fn objective(&self) -> Duration {
        self.objective
    }

    /// The time by which `step` should be done for a request that came to the pipeline at `arrived` and enters the
    /// step at `now`. `estimates`: of every step, as its scheduler sees it now.
    ///
    /// What steps before it did not use is in it: only the arrival and what is still to come count.
    pub fn due(&self, step: usize, arrived: Time, now: Time, estimates: &[StepEstimate]) -> Time {
        match self.policy {
            Policy::EqualDivision => now + self.objective.mul_f64(self.part[step]),
            Policy::StaticWeighted | Policy::Grandslam => arrived + self.objective.mul_f64(self.part[step]),
            Policy::TimetraderFixed(_) | Policy::TimetraderDynamic => arrived + self.objective,
            Policy::Slack => {
                let end = arrived + self.objective;
                end - self.rest(step, end.since(now), estimates)
            }
        }
    }

    /// What the steps after `step` take, from its end to that of the pipeline, if `left` remains for all.
    fn rest(&self, step: usize, left: Duration, estimates: &[StepEstimate]) -> Duration {
        let Some(here) = estimates.get(step).filter(|_| !self.graph.successors(step).is_empty()) else {
            return Duration::ZERO;
        };
        // Whoever waits here together goes on together: the next batches will be as large as the one here, whatever
        // the recent ones were. But no batch here is larger than one that is still in time at the end.
        let (mut rows, mut most) = (here.rows, here.rows_max.min(here.waiting + 1));
        while rows < most {
            let middle = rows + (most - rows).div_ceil(2);
            if here.high_with(middle) + self.after(step, middle, estimates) <= left {
                rows = middle;
            } else {
                most = middle - 1;
            }
        }
        self.after(step, rows, estimates)
    }

    /// The same for batches of `rows`, or of the recent size where that is larger.
    ///
    /// What waits at a later step now has mostly run until the request is there: of its queueing no more counts than
    /// one batch, which is what a busy replica makes a newcomer wait for.
    fn after(&self, step: usize, rows: u32, estimates: &[StepEstimate]) -> Duration {
        let takes = |step: usize| {
            estimates.get(step).map_or(0.0, |estimate| {
                (estimate.queueing.min(estimate.mean) + estimate.high_with(rows)).as_secs_f64()
            })
        };
        Duration::from_secs_f64(self.graph.after(takes)[step])
    }

    /// By how much a request that came at `arrived` is predicted to be late from end to end; `None` where it is in
    /// time, and where refusing it would help nobody: nothing waits, or the objective can't be met even alone. For
    /// refusing it at the door. Published systems have none.
    pub fn lateness(&self, arrived: Time, now: Time, estimates: &[StepEstimate]) -> Option<Duration> {
        let waits = estimates.iter().any(|estimate| !estimate.queueing.is_zero());
        if self.policy != Policy::Slack || !waits {
            return None;
        }
        let promised = self.objective.mul_f64(DOOR_PART);
        if self.through(|estimate, _| estimate.high_alone(), estimates) > promised {
            return None;
        }
        let late = (now + self.completion(estimates)).since(arrived + promised);
        (!late.is_zero()).then_some(late)
    }

    /// How long a request that comes now is predicted to take from end to end.
    ///
    /// What waits at a later step drains while the request is on its way there.
    pub fn completion(&self, estimates: &[StepEstimate]) -> Duration {
        let takes = |estimate: &StepEstimate, before: Duration| {
            let own = if before.is_zero() { estimate.joined } else { estimate.high };
            estimate.queueing.saturating_sub(before) + own
        };
        self.through(takes, estimates)
    }

    /// When the last step ends, if each takes what `takes` says of it and of the time at which it is entered.
    fn through(
        &self,
        takes: impl Fn(&StepEstimate, Duration) -> Duration,
        estimates: &[StepEstimate],
    ) -> Duration {
        let mut done = vec![Duration::ZERO; self.graph.len()];
        for step in self.graph.order() {
            let before = self.graph.predecessors(*step).iter().map(|before| done[*before]);
            let entered = before.max().unwrap_or_default();
            let estimate = estimates.get(*step).copied().unwrap_or_default();
            done[*step] = entered + takes(&estimate, entered);
        }
        done.into_iter().max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::graph::tests::diamond;
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(at: u64) -> Time {
        Time::ZERO + millis(at)
    }

    fn step(queueing: u64, high: u64) -> StepEstimate {
        StepEstimate {
            queueing: millis(queueing),
            joined: millis(high),
            high: millis(high),
            mean: millis(high),
            rows: 4,
            waiting: 0,
            per_row: millis(1),
            rows_max: 32,
        }
    }

    #[test]
    fn equal_division_gives_each_step_its_part_from_when_it_is_entered() {
        let deadlines = Deadlines::new(Policy::EqualDivision, Graph::chain(3), millis(300), &[1.0, 5.0, 3.0]);
        assert_eq!(deadlines.due(0, at(0), at(10), &[]), at(110));
        assert_eq!(deadlines.due(2, at(0), at(50), &[]), at(150));
        let deadlines = Deadlines::new(Policy::EqualDivision, diamond(), millis(400), &[]);
        assert_eq!(deadlines.due(4, at(0), at(0), &[]), at(100));
    }

    #[test]
    fn weights_share_the_objective_and_what_is_left_moves_on() {
        for policy in [Policy::StaticWeighted, Policy::Grandslam] {
            let deadlines = Deadlines::new(policy, Graph::chain(3), millis(900), &[1.0, 5.0, 3.0]);
            let due: Vec<_> = (0..3).map(|step| deadlines.due(step, at(7), at(500), &[])).collect();
            assert_eq!(due, [at(107), at(607), at(907)]);
        }
    }

    #[test]
    fn timetrader_gives_all_that_remains_to_the_step_at_hand() {
        let deadlines = Deadlines::new(Policy::TimetraderDynamic, Graph::chain(3), millis(900), &[]);
        assert_eq!(deadlines.due(0, at(5), at(6), &[]), at(905));
    }

    #[test]
    fn slack_leaves_the_longest_remaining_path_its_time_and_its_queueing() {
        let deadlines = Deadlines::new(Policy::Slack, diamond(), millis(400), &[]);
        let estimates = [step(0, 10), step(5, 10), step(0, 20), step(30, 40), step(0, 1)];
        assert_eq!(deadlines.due(0, at(0), at(0), &estimates), at(400 - 20 - 1 - 70));
        assert_eq!(deadlines.due(1, at(0), at(90), &estimates), at(330));
        assert_eq!(deadlines.due(3, at(0), at(90), &estimates), at(400));
    }

    #[test]
    fn what_waits_at_later_steps_drains_on_the_way_there() {
        let deadlines = Deadlines::new(Policy::Slack, diamond(), millis(100), &[]);
        let mut estimates = [step(5, 10), step(0, 10), step(0, 20), step(30, 40), step(0, 1)];
        assert_eq!(deadlines.completion(&estimates), millis(5 + 10 + 20 + 1 + 40));
        assert_eq!(deadlines.lateness(at(0), at(0), &estimates), None);
        estimates[3].queueing = millis(58);
        assert_eq!(deadlines.completion(&estimates), millis(58 + 40));
        assert_eq!(deadlines.lateness(at(0), at(0), &estimates), Some(millis(1)));
        assert_eq!(deadlines.lateness(at(0), at(4), &estimates), Some(millis(5)));
        // A small batch to join is sooner done than one of the recent size.
        estimates[0].joined = millis(3);
        estimates[3].queueing = Duration::ZERO;
        assert_eq!(deadlines.completion(&estimates), millis(5 + 3 + 20 + 1 + 40));
    }

    #[test]
    fn the_door_refuses_nobody_where_that_would_help_nobody() {
        let refuses = |policy, objective, estimates: &[StepEstimate]| {
            let deadlines = Deadlines::new(policy, Graph::chain(2), millis(objective), &[]);
            deadlines.lateness(at(0), at(0), estimates).is_some()
        };
        let busy = [step(100, 10), step(0, 20)];
        assert!(refuses(Policy::Slack, 100, &busy));
        assert!(!refuses(Policy::Grandslam, 100, &busy));
        // An objective that can't be met even alone: best effort.
        assert!(!refuses(Policy::Slack, 20, &busy));
        // Nothing waits: run it, to learn whether the estimates are still right.
        assert!(!refuses(Policy::Slack, 25, &[step(0, 10), step(0, 20)]));
    }

    #[test]
    fn those_who_wait_together_are_expected_together_at_the_next_step() {
        let deadlines = Deadlines::new(Policy::Slack, Graph::chain(2), millis(400), &[]);
        let mut estimates = [step(0, 10), step(0, 20)];
        estimates[0].waiting = 9;
        assert_eq!(deadlines.due(0, at(0), at(0), &estimates), at(400 - 20 - 6));
        estimates[0].waiting = 100;
        assert_eq!(deadlines.due(0, at(0), at(0), &estimates), at(400 - 20 - 28));
    }
}

//! Deadlines of steps: divides a pipeline's objective among its queues.
//!
//! Reads the graph of steps and the present estimates of each step's scheduler, hands on deadlines. Knows nothing
//! of models, tensors or of how a step runs. The server and the simulator call the same functions.

mod graph;
mod policy;

use std::time::Duration;

use inferd_types::Time;

pub use graph::{Graph, GraphFault};
pub use policy::{Policy, UnknownPolicy};

/// The fraction of the objective that a new request's predicted completion may take. Estimates know neither later
/// arrivals nor their order; without room for them, a lasting overload makes nearly every response a little late.
const ADMISSION_PART: f64 = 0.97;

/// What a step's scheduler expects of a request that enters it now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepEstimate {
    /// Mean time until its batch begins.
    pub queueing: Duration,
    /// Execution time of its batch at the judged quantile, including arrivals until it begins.
    pub joined: Duration,
    /// Execution time of a batch of the recent size at the judged quantile.
    pub high: Duration,
    /// Its mean execution time.
    pub mean: Duration,
    /// Rows of the recent batches.
    pub rows: u32,
    /// Queued rows.
    pub waiting: u32,
    /// Mean execution time of each additional row.
    pub per_row: Duration,
    /// Maximum rows per batch.
    pub rows_max: u32,
}

impl StepEstimate {
    /// Execution time of one row at the judged quantile.
    fn high_alone(&self) -> Duration {
        self.high.saturating_sub(self.high_per_row().saturating_mul(self.rows.saturating_sub(1)))
    }

    /// Execution time of each additional row at the judged quantile.
    fn high_per_row(&self) -> Duration {
        let scale = if self.mean.is_zero() { 1.0 } else { self.high.as_secs_f64() / self.mean.as_secs_f64() };
        self.per_row.mul_f64(scale.max(1.0))
    }

    /// Execution time of a batch of `rows`, or of the recent size if that is larger.
    fn high_with(&self, rows: u32) -> Duration {
        let more = rows.min(self.rows_max).saturating_sub(self.rows);
        self.high + self.high_per_row().saturating_mul(more)
    }
}

/// The deadlines of a pipeline's steps. One per pipeline; holds no state of requests.
#[derive(Clone, Debug)]
pub struct Deadlines {
    policy: Policy,
    graph: Graph,
    objective: Duration,
    /// The fraction of the objective that has passed when a step ends, by step: for policies with fixed shares.
    part: Vec<f64>,
}

impl Deadlines {
    /// Deadlines of a pipeline over `graph` with an end-to-end `objective`. `weights`: the execution time of each
    /// step at a realistic batch, in any unit; missing or non-positive ones count as the mean.
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
            // Equal shares forward no time: each step has its own part from when it is entered.
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

    /// The deadline of `step` for a request that arrived at the pipeline at `arrived` and enters the step at `now`.
    /// `estimates`: the present ones of every step.
    ///
    /// Time that earlier steps did not use is included: only the arrival and the remaining steps count.
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

    /// The time of the steps after `step`, from its end to that of the pipeline, if `left` remains for all.
    fn rest(&self, step: usize, left: Duration, estimates: &[StepEstimate]) -> Duration {
        let Some(here) = estimates.get(step).filter(|_| !self.graph.successors(step).is_empty()) else {
            return Duration::ZERO;
        };
        // Requests that wait together here continue together: the next batches will be as large as the one here,
        // whatever the recent ones were. But no batch here is larger than one that still ends in time.
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

    /// The same for batches of `rows`, or of the recent size if that is larger.
    ///
    /// The present queue of a later step has mostly run when the request gets there: its queueing counts as at most
    /// one batch, which is how long a busy replica delays a new request.
    fn after(&self, step: usize, rows: u32, estimates: &[StepEstimate]) -> Duration {
        let takes = |step: usize| {
            estimates.get(step).map_or(0.0, |estimate| {
                (estimate.queueing.min(estimate.mean) + estimate.high_with(rows)).as_secs_f64()
            })
        };
        Duration::from_secs_f64(self.graph.after(takes)[step])
    }

    /// The predicted end-to-end lateness of a request that arrived at `arrived`; `None` if it is in time, or if
    /// refusing it would help nothing: the queues are empty, or the objective can't be met even alone. For
    /// admission; published systems have none.
    pub fn lateness(&self, arrived: Time, now: Time, estimates: &[StepEstimate]) -> Option<Duration> {
        let waits = estimates.iter().any(|estimate| !estimate.queueing.is_zero());
        if self.policy != Policy::Slack || !waits {
            return None;
        }
        let promised = self.objective.mul_f64(ADMISSION_PART);
        if self.through(|estimate, _| estimate.high_alone(), estimates) > promised {
            return None;
        }
        let late = (now + self.completion(estimates)).since(arrived + promised);
        (!late.is_zero()).then_some(late)
    }

    /// The predicted end-to-end time of a request that arrives now.
    ///
    /// The queues of later steps drain while the request is on its way.
    pub fn completion(&self, estimates: &[StepEstimate]) -> Duration {
        let takes = |estimate: &StepEstimate, before: Duration| {
            let own = if before.is_zero() { estimate.joined } else { estimate.high };
            estimate.queueing.saturating_sub(before) + own
        };
        self.through(takes, estimates)
    }

    /// When the last step ends, if each takes `takes` of the step and the time at which it is entered.
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
    use super::graph::diamond;
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
        // A small batch to join ends sooner than one of the recent size.
        estimates[0].joined = millis(3);
        estimates[3].queueing = Duration::ZERO;
        assert_eq!(deadlines.completion(&estimates), millis(5 + 3 + 20 + 1 + 40));
    }

    #[test]
    fn admission_refuses_nothing_where_that_would_help_no_request() {
        let refuses = |policy, objective, estimates: &[StepEstimate]| {
            let deadlines = Deadlines::new(policy, Graph::chain(2), millis(objective), &[]);
            deadlines.lateness(at(0), at(0), estimates).is_some()
        };
        let busy = [step(100, 10), step(0, 20)];
        assert!(refuses(Policy::Slack, 100, &busy));
        assert!(!refuses(Policy::Grandslam, 100, &busy));
        // An objective that can't be met even alone: best effort.
        assert!(!refuses(Policy::Slack, 20, &busy));
        // The queues are empty: run it, to learn whether the estimates still hold.
        assert!(!refuses(Policy::Slack, 25, &[step(0, 10), step(0, 20)]));
    }

    #[test]
    fn requests_that_wait_together_are_expected_together_at_the_next_step() {
        let deadlines = Deadlines::new(Policy::Slack, Graph::chain(2), millis(400), &[]);
        let mut estimates = [step(0, 10), step(0, 20)];
        estimates[0].waiting = 9;
        assert_eq!(deadlines.due(0, at(0), at(0), &estimates), at(400 - 20 - 6));
        estimates[0].waiting = 100;
        assert_eq!(deadlines.due(0, at(0), at(0), &estimates), at(400 - 20 - 28));
    }
}

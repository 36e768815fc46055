//! Scenarios: models, pipelines over them, and arrivals.
//!
//! Reads a deserialized scenario, hands on what is wrong with it. Knows nothing of files and flags.

use std::time::Duration;

use inferd_scheduler::pipeline::{Graph, GraphFault, Policy};
use inferd_types::settings::MachineShare;
use inferd_types::{Error, ErrorKind, Result};
use serde::Deserialize;

/// The whole input of a simulation: equal scenarios give equal reports.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The models.
    pub models: Vec<Model>,
    /// The pipelines over them.
    #[serde(default)]
    pub pipelines: Vec<Pipeline>,
    /// The arrivals.
    pub arrivals: Vec<Source>,
    /// The scheduling policy: a name of [`Policy`].
    #[serde(default = "default_policy")]
    pub policy: String,
    /// The seed of all random numbers.
    #[serde(default)]
    pub seed: u64,
    /// When arrivals end, in seconds; admitted requests are still answered.
    pub duration_s: f64,
}

fn default_policy() -> String {
    Policy::Slack.to_string()
}

/// One model and its replicas.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Number of replicas.
    #[serde(default = "one")]
    pub replicas: u32,
    /// How they share the machine; by default each has its own cores.
    #[serde(default)]
    pub machine: MachineShare,
    /// Rows and the mean execution time of such a batch, in seconds; linear in between and beyond.
    pub curve: Vec<(u32, f64)>,
    /// Quantiles and ratios to the mean execution time; empty: every run takes the mean.
    #[serde(default)]
    pub spread: Vec<(f64, f64)>,
    /// Ratios of runs to the mean, in the order in which they were measured; replayed cyclically from a random
    /// place, instead of drawing from `spread`, so that slow periods last as long as they did.
    #[serde(default)]
    pub recent_ratios: Vec<f64>,
    /// Additional time to hand over a batch and its results, in seconds.
    #[serde(default)]
    pub overhead_batch_s: f64,
    /// Time from a run's end until the gateway sees it, as quantiles and seconds: a gateway that shares its cores
    /// waits for its turn. Requests wait as long before they are read. Empty: half of `overhead_batch_s`, and 0.
    #[serde(default)]
    pub unseen: Vec<(f64, f64)>,
    /// Pause of a replica between two runs although the next is staged, as quantiles and seconds, while the gateway
    /// uses its core. Empty: none.
    #[serde(default)]
    pub pauses: Vec<(f64, f64)>,
    /// CPU time of the gateway per request, in seconds: half to read it, half to answer it, sequentially for all
    /// requests.
    #[serde(default)]
    pub overhead_request_s: f64,
    /// Whether requests share a batch.
    #[serde(default = "yes")]
    pub batched: bool,
    /// Maximum rows per batch.
    #[serde(default = "usual_rows")]
    pub batch_rows_max: u32,
    /// Maximum rows in the queue.
    #[serde(default = "usual_queue")]
    pub queue_rows_max: usize,
    /// Whether small batches may linger for returning callers.
    #[serde(default = "yes")]
    pub linger: bool,
    /// Whether a replica that is far slower than the others is ejected for a while.
    #[serde(default = "yes")]
    pub ejection: bool,
    /// Maximum fraction of batches that are hedged.
    #[serde(default)]
    pub hedge_budget: f64,
    /// The objective of requests to this model itself.
    #[serde(default)]
    pub objective: Option<Objective>,
    /// Slowdown of each replica relative to the curve; 1 for replicas not in the list.
    #[serde(default)]
    pub slowness: Vec<f64>,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

fn usual_rows() -> u32 {
    32
}

fn usual_queue() -> usize {
    4096
}

/// A latency objective.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// From the first byte to the response, in seconds.
    pub latency_s: f64,
    /// The percentage of requests.
    #[serde(default = "usual_percentile")]
    pub percentile: f64,
}

fn usual_percentile() -> f64 {
    99.0
}

/// Steps over models, with one end-to-end objective.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// Its objective, from end to end.
    #[serde(default)]
    pub objective: Option<Objective>,
    /// Its steps.
    pub steps: Vec<Step>,
    /// Relative time of each step at a realistic batch, for the policies with shares; empty: the model's time at
    /// half of its largest batch.
    #[serde(default)]
    pub weights: Vec<f64>,
}

/// One step of a pipeline.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Names of models with their weights: one of them runs the step.
    pub models: Vec<(String, f64)>,
    /// Indices of the steps that it follows.
    #[serde(default)]
    pub after: Vec<usize>,
    /// The probability that it runs. A step whose predecessors were all skipped is skipped too.
    #[serde(default = "surely")]
    pub probability: f64,
}

fn surely() -> f64 {
    1.0
}

/// Requests to one model or pipeline.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The model or pipeline, by name.
    pub target: String,
    /// Their arrival times.
    pub process: Process,
    /// Rows per request.
    #[serde(default = "one")]
    pub rows: u32,
}

/// An arrival process.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Process {
    /// Poisson.
    Poisson {
        /// Rate in requests per second.
        rate: f64,
    },
    /// With gamma-distributed interarrival times.
    Gamma {
        /// Rate in requests per second.
        rate: f64,
        /// Coefficient of variation of the interarrival times; 1 is Poisson, above it are bursts.
        cv: f64,
    },
    /// A number of requests at the start.
    AtOnce {
        /// The number.
        count: u64,
    },
    /// At given times.
    Trace {
        /// (seconds, rows, tenant), in order of time.
        requests: Vec<(f64, u32, u32)>,
    },
}

impl Scenario {
    /// The policy by its name.
    pub(crate) fn policy(&self) -> Result<Policy> {
        self.policy.parse().map_err(|fault| wrong(format!("{fault}")))
    }

    /// Validates the scenario.
    pub(crate) fn check(&self) -> Result<()> {
        positive("duration_s", self.duration_s)?;
        if self.models.is_empty() || self.arrivals.is_empty() {
            return Err(wrong("nothing to simulate: name at least one model, and what comes to it"));
        }
        self.models.iter().try_for_each(Model::check)?;
        self.pipelines.iter().try_for_each(Pipeline::check)?;
        self.arrivals.iter().try_for_each(Source::check)
    }
}

impl Model {
    fn check(&self) -> Result<()> {
        let Model { name, .. } = self;
        let times = self.curve.iter().all(|(rows, time)| *rows > 0 && *time > 0.0 && time.is_finite());
        if self.curve.is_empty() || !times || !self.curve.is_sorted_by(|first, second| first.0 < second.0) {
            return Err(wrong(format!(
                "model '{name}' needs a curve: pairs of rows and seconds above 0, rows ascending"
            )));
        }
        if !self.recent_ratios.iter().all(|ratio| *ratio > 0.0 && ratio.is_finite()) {
            return Err(wrong(format!("recent_ratios of model '{name}' must be above 0")));
        }
        let ratios = self.spread.iter().all(|(_, ratio)| *ratio > 0.0 && ratio.is_finite());
        let ascending = self.spread.is_sorted_by(|first, second| first.0 < second.0 && first.1 <= second.1);
        if !ratios || !ascending {
            return Err(wrong(format!(
                "the spread of model '{name}' needs pairs of quantile and ratio, both ascending"
            )));
        }
        for (what, times) in [("unseen", &self.unseen), ("pauses", &self.pauses)] {
            let possible = times.iter().all(|(_, time)| *time >= 0.0 && time.is_finite());
            if !possible || !times.is_sorted_by(|first, second| first.0 < second.0 && first.1 <= second.1) {
                return Err(wrong(format!(
                    "{what} of model '{name}' needs pairs of quantile and seconds of at least 0, both ascending"
                )));
            }
        }
        if self.replicas == 0 || self.batch_rows_max == 0 {
            return Err(wrong(format!(
                "model '{name}' needs at least one replica and batches of at least 1 row"
            )));
        }
        if !(0.0..=1.0).contains(&self.hedge_budget) {
            return Err(wrong(format!(
                "hedge_budget of model '{name}' is {}; it is a share of all batches, from 0 to 1",
                self.hedge_budget
            )));
        }
        self.slowness.iter().try_for_each(|factor| positive("slowness", *factor))?;
        for (what, value) in
            [("overhead_batch_s", self.overhead_batch_s), ("overhead_request_s", self.overhead_request_s)]
        {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(wrong(format!("{what} of model '{name}' is {value}; it must be at least 0")));
            }
        }
        self.objective.map_or(Ok(()), Objective::check)
    }

    /// Mean time of a batch of `rows`.
    pub(crate) fn mean(&self, rows: u32) -> Duration {
        let rows = f64::from(rows);
        let (first, last) = (self.curve[0], self.curve[self.curve.len() - 1]);
        if self.curve.len() == 1 {
            return seconds(first.1 * rows / f64::from(first.0));
        }
        // The two points around it, or the nearest two.
        let right = self.curve.iter().position(|point| f64::from(point.0) >= rows);
        let right = right.unwrap_or(self.curve.len() - 1).max(1);
        let ((x0, y0), (x1, y1)) = (self.curve[right - 1], self.curve[right]);
        let line = y0 + (y1 - y0) * (rows - f64::from(x0)) / f64::from(x1 - x0);
        let least =
            if rows > f64::from(last.0) { last.1 } else { first.1 * rows / f64::from(first.0).max(rows) };
        seconds(line.max(least))
    }
}

impl Objective {
    fn check(self) -> Result<()> {
        positive("an objective's latency_s", self.latency_s)?;
        if !(1.0..100.0).contains(&self.percentile) {
            return Err(wrong(format!("percentile {} is not from 1 to below 100", self.percentile)));
        }
        Ok(())
    }
}

impl Pipeline {
    fn check(&self) -> Result<()> {
        let Pipeline { name, .. } = self;
        if self.steps.is_empty() || self.steps.len() > 64 {
            return Err(wrong(format!(
                "pipeline '{name}' has {} steps; 1 to 64 can be simulated",
                self.steps.len()
            )));
        }
        for step in &self.steps {
            let weights = step.models.iter().all(|(_, weight)| *weight >= 0.0 && weight.is_finite());
            if step.models.is_empty() || !weights || !(0.0..=1.0).contains(&step.probability) {
                return Err(wrong(format!(
                    "step '{}' of pipeline '{name}' needs models with weights of at least 0, and a probability \
                     from 0 to 1",
                    step.name
                )));
            }
        }
        self.graph()?;
        self.objective.map_or(Ok(()), Objective::check)
    }

    /// The graph of the steps.
    pub(crate) fn graph(&self) -> Result<Graph> {
        let before = self.steps.iter().map(|step| step.after.clone()).collect();
        Graph::new(before).map_err(|fault| match fault {
            GraphFault::Unknown { step, predecessor } => wrong(format!(
                "step '{}' of pipeline '{}' follows step number {predecessor}; there are {}, from 0",
                self.steps[step].name,
                self.name,
                self.steps.len()
            )),
            GraphFault::Cycle(steps) => {
                let names: Vec<_> = steps.iter().map(|step| self.steps[*step].name.as_str()).collect();
                wrong(format!("steps of pipeline '{}' wait for each other: {}", self.name, names.join(", ")))
            }
        })
    }
}

impl Source {
    fn check(&self) -> Result<()> {
        match &self.process {
            Process::Poisson { rate } => positive("rate", *rate),
            Process::Gamma { rate, cv } => positive("rate", *rate).and_then(|()| positive("cv", *cv)),
            Process::AtOnce { .. } => Ok(()),
            Process::Trace { requests } => {
                let times = requests.iter().all(|(time, ..)| *time >= 0.0 && time.is_finite());
                if !times || !requests.is_sorted_by(|first, second| first.0 <= second.0) {
                    return Err(wrong(format!(
                        "the trace of '{}' has times that are negative or not ascending",
                        self.target
                    )));
                }
                Ok(())
            }
        }
    }
}

/// An error of the scenario.
pub(crate) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message.into())
}

/// `seconds` as a duration, saturating.
pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}

fn positive(what: &str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(wrong(format!("{what} is {value}; it must be above 0")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(curve: &[(u32, f64)]) -> Model {
        Model {
            name: "m".into(),
            replicas: 1,
            machine: Default::default(),
            curve: curve.into(),
            spread: Vec::new(),
            recent_ratios: Vec::new(),
            overhead_batch_s: 0.0,
            unseen: Vec::new(),
            pauses: Vec::new(),
            overhead_request_s: 0.0,
            batched: true,
            batch_rows_max: 32,
            queue_rows_max: 100,
            linger: true,
            ejection: true,
            hedge_budget: 0.0,
            objective: None,
            slowness: Vec::new(),
        }
    }

    #[test]
    fn times_are_linear_between_points_and_beyond_them() {
        let model = model(&[(2, 0.010), (4, 0.014), (8, 0.030)]);
        for (rows, millis) in [(1, 8), (2, 10), (3, 12), (6, 22), (16, 62)] {
            assert_eq!(model.mean(rows).as_millis(), millis, "{rows} rows");
        }
        assert_eq!(super::tests::model(&[(4, 0.008)]).mean(1), Duration::from_millis(2));
    }

    #[test]
    fn an_invalid_curve_is_refused_with_a_remedy() {
        for curve in [vec![], vec![(0, 1.0)], vec![(2, 0.1), (1, 0.2)], vec![(1, f64::NAN)]] {
            let fault = model(&curve).check().expect_err("nonsense");
            assert!(fault.to_string().contains("rows ascending"), "{fault}");
        }
    }

    #[test]
    fn a_cycle_is_reported_by_the_names_of_its_steps() {
        let step = |name: &str, after: &[usize]| Step {
            name: name.into(),
            models: vec![("m".into(), 1.0)],
            after: after.into(),
            probability: 1.0,
        };
        let steps = vec![step("a", &[]), step("b", &[0, 2]), step("c", &[1])];
        let pipeline = Pipeline { name: "p".into(), objective: None, steps, weights: Vec::new() };
        let fault = pipeline.check().expect_err("a cycle").to_string();
        assert!(fault.contains("b, c") && !fault.contains("a, b"), "{fault}");
    }
}

//! The results of a simulation.
//!
//! Reads a station's counts, hands on values to print and plot. Does not know how they came about.

use serde::Serialize;

use crate::histogram::Histogram;
use crate::station::Station;

/// The results of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The scheduling policy.
    pub policy: String,
    /// The seed.
    pub seed: u64,
    /// When arrivals ended.
    pub duration_s: f64,
    /// When the last request was answered.
    pub ended_s: f64,
    /// Requests of all targets.
    pub requests: u64,
    /// Results by target of requests.
    pub targets: Vec<TargetReport>,
    /// Results by model.
    pub models: Vec<ModelReport>,
}

/// The results of one model or pipeline as a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetReport {
    /// Its name.
    pub name: String,
    /// The objective's latency; `None`: best effort.
    pub objective_s: Option<f64>,
    /// The objective's percentile.
    pub percentile: Option<f64>,
    /// Number of requests.
    pub requests: u64,
    /// Number answered within the objective.
    pub met: u64,
    /// Number answered later.
    pub late: u64,
    /// Number refused.
    pub refused: u64,
    /// The fraction of all requests that was answered within the objective; 1 without requests.
    pub attainment: f64,
    /// Whether that meets the objective's percentile.
    pub holds: Option<bool>,
    /// Latency of answered requests, from arrival to response.
    pub latency: Times,
    /// (seconds, fraction of the answered within them).
    pub distribution: Vec<(f64, f64)>,
    /// Its steps, for a pipeline.
    pub steps: Vec<StepReport>,
}

/// One step of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// Its name.
    pub name: String,
    /// Number of runs.
    pub runs: u64,
    /// Latency of the step.
    pub latency: Times,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelReport {
    /// Its name.
    pub name: String,
    /// Number of replicas.
    pub replicas: u32,
    /// Number of requests.
    pub requests: u64,
    /// Number of batches.
    pub batches: u64,
    /// Number of hedges among them.
    pub copies: u64,
    /// Number of ejections.
    pub ejections: u64,
    /// Mean rows per batch; 0 if none ran.
    pub rows_mean: f64,
    /// Number of batches by rows.
    pub rows: Vec<(u32, u64)>,
    /// The fraction of time that replicas were executing.
    pub utilisation: f64,
    /// Time from entering the model to the start of the run.
    pub wait: Times,
}

/// Durations in seconds; `None` if there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "percentiles are named by what they are")]
pub struct Times {
    pub mean_s: Option<f64>,
    pub p50_s: Option<f64>,
    pub p90_s: Option<f64>,
    pub p99_s: Option<f64>,
    pub p999_s: Option<f64>,
    pub max_s: Option<f64>,
}

impl From<&Histogram> for Times {
    fn from(times: &Histogram) -> Times {
        Times {
            mean_s: times.mean(),
            p50_s: times.quantile(0.5),
            p90_s: times.quantile(0.9),
            p99_s: times.quantile(0.99),
            p999_s: times.quantile(0.999),
            max_s: times.longest(),
        }
    }
}

impl ModelReport {
    pub(crate) fn new(station: &Station, wait: &Histogram, ended_s: f64) -> ModelReport {
        let counts = &station.counts;
        let sizes = counts.batches.iter().enumerate().filter(|(_, count)| **count > 0);
        let rows: Vec<(u32, u64)> = sizes.map(|(rows, count)| (rows as u32, *count)).collect();
        let batches: u64 = rows.iter().map(|(_, count)| count).sum();
        let all: u64 = rows.iter().map(|(rows, count)| u64::from(*rows) * count).sum();
        let replicas = station.model.replicas;
        let available_s = ended_s * f64::from(replicas);
        ModelReport {
            name: station.model.name.clone(),
            replicas,
            requests: counts.requests,
            batches,
            copies: counts.copies,
            ejections: station.ejections(),
            rows_mean: if batches > 0 { all as f64 / batches as f64 } else { 0.0 },
            rows,
            utilisation: if available_s > 0.0 { counts.busy.as_secs_f64() / available_s } else { 0.0 },
            wait: wait.into(),
        }
    }
}

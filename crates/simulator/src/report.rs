//! What came of a simulation, as values to be printed and drawn.
//!
//! Read by whoever asked for it. Knows nothing of how it came about.

use serde::Serialize;

use crate::histogram::Histogram;
use crate::station::Station;

/// What came of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// How deadlines were shared and batches formed.
    pub policy: String,
    /// What randomness was drawn from.
    pub seed: u64,
    /// Until when requests came.
    pub duration_s: f64,
    /// When the last one was answered.
    pub ended_s: f64,
    /// Requests of all targets.
    pub requests: u64,
    /// What requests were sent to.
    pub targets: Vec<TargetReport>,
    /// What ran.
    pub models: Vec<ModelReport>,
}

/// What came of the requests to one model or pipeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetReport {
    /// Its name.
    pub name: String,
    /// The objective's time; `None`: best effort.
    pub objective_s: Option<f64>,
    /// The objective's percentile.
    pub percentile: Option<f64>,
    /// Requests that came.
    pub requests: u64,
    /// Those answered within the objective.
    pub met: u64,
    /// Those answered later.
    pub late: u64,
    /// Those refused.
    pub refused: u64,
    /// The share that was answered within the objective, of all that came; 1 where none came.
    pub attainment: f64,
    /// Whether that is what the objective asks for.
    pub holds: Option<bool>,
    /// From arrival to answer, of what was answered.
    pub latency: Times,
    /// (seconds, share of the answered within them).
    pub distribution: Vec<(f64, f64)>,
    /// Its steps, for a pipeline.
    pub steps: Vec<StepReport>,
}

/// One step of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// Its name.
    pub name: String,
    /// How often it ran.
    pub runs: u64,
    /// From entering it to leaving it.
    pub latency: Times,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelReport {
    /// Its name.
    pub name: String,
    /// Its replicas.
    pub replicas: u32,
    /// Requests that came to it.
    pub requests: u64,
    /// Batches that ran.
    pub batches: u64,
    /// Of these, copies of batches that took too long elsewhere.
    pub copies: u64,
    /// How often a replica was left out for a while.
    pub ejections: u64,
    /// Rows of a batch on average; 0 where none ran.
    pub rows_mean: f64,
    /// Rows, and how many batches had so many.
    pub rows: Vec<(u32, u64)>,
    /// The share of the time that a replica was executing.
    pub utilisation: f64,
    /// From entering it to the start of the run.
    pub wait: Times,
}

/// Times in seconds; `None` where there were none.
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

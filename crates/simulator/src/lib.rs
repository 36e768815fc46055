//! Simulates a server under load: the real scheduler under a virtual clock.
//!
//! Reads a scenario (models with their measured curves, pipelines, arrivals), hands on attainments and latencies.
//! Knows nothing of files, processes or real time, and makes no decision of the scheduler.
#![forbid(unsafe_code)]

mod arrivals;
mod bound;
mod histogram;
mod plan;
mod random;
mod report;
mod scenario;
mod station;
mod world;

pub use bound::fewest_missed;
pub use report::{ModelReport, Report, StepReport, TargetReport, Times};
pub use scenario::{Model, Objective, Pipeline, Process, Scenario, Source, Step};
pub use world::simulate;

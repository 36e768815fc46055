//! What a load would do to a server, before it does: the scheduler that serves, under a virtual clock.
//!
//! Reads a scenario (models with their measured curves, pipelines, arrivals), hands back what would be promised and
//! kept. Knows nothing of files, processes or real time, and decides nothing that the scheduler decides.
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

//! The scheduler: state behind [`Scheduler::on_event`] and [`Scheduler::decide`].

use std::time::Duration;

use inferd_types::Time;

use crate::message::{Action, Config, Event, Snapshot};

/// Decides which requests run next, on which replica, in which batch. One for each model version.
#[derive(Debug)]
pub struct Scheduler {
    config: Config,
}

impl Scheduler {
    /// A scheduler with no replica yet: what arrives waits.
    pub fn new(config: Config) -> Self {
        Scheduler { config }
    }

    /// Takes in what happened at `now`; refusals and withdrawals are pushed to `actions`. Batches are formed by
    /// [`Scheduler::decide`] alone.
    pub fn on_event(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        let _ = (now, event, actions);
    }

    /// Forms batches. Call it when there are no more events for this instant, and when a wake-up is due.
    pub fn decide(&mut self, now: Time, actions: &mut Vec<Action>) {
        let _ = (now, actions);
    }

    /// `T(rows, quantile)`: within what time a batch of `rows` is executed; `None` while nothing is known.
    pub fn predict(&self, rows: u32, quantile: f64) -> Option<Duration> {
        let _ = (rows, quantile);
        None
    }

    /// The execution time past which a batch of `rows` counts as hung.
    pub fn hang_limit(&self, rows: u32) -> Duration {
        let _ = rows;
        self.config.execution_max
    }

    /// Learns from a run that was no batch of this scheduler's (warm-up, profiling).
    pub fn observe(&mut self, rows: u32, execution: Duration) {
        let _ = (rows, execution);
    }

    /// Lowers the most rows that run together (a larger batch was found to break the worker). Never raises it.
    pub fn limit_batch_rows(&mut self, rows: u32) {
        self.config.batch_rows_max = self.config.batch_rows_max.min(rows.max(1));
    }

    /// Whether nothing waits and nothing is handed out: the moment for profiling.
    pub fn is_idle(&self) -> bool {
        true
    }

    /// How things stand.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::default()
    }
}

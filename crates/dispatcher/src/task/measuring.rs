//! Measures the latency curve while nobody wants anything.
//!
//! Reads how long nothing has happened, hands batches that nobody sent to an idle replica.

use std::sync::Arc;
use std::time::Duration;

use inferd_scheduler::Event;
use inferd_types::Time;

use super::Task;
use super::ending::Phase;
use crate::profiler::Profiler;
use crate::replica::{Purpose, Replica, Role};
use crate::worker::Launcher;

impl<L: Launcher> Task<L> {
    pub(super) fn measuring_due(&self) -> Time {
        let next = self.profiler.as_ref().filter(|_| self.is_quiet()).and_then(Profiler::next);
        next.map_or(Time::MAX, |(_, quiet)| self.active + quiet)
    }

    /// Whether a measurement would hold up nobody.
    fn is_quiet(&self) -> bool {
        matches!(self.phase, Phase::Serving)
            && self.flights.is_empty()
            && self.quarantine.is_idle()
            && self.scheduler.is_idle()
            && self.replicas.iter().any(|replica| replica.role == Role::Serving && replica.batches.is_empty())
            && self.replicas.iter().all(|replica| replica.role != Role::Profiling)
    }

    pub(super) fn profile_if_idle(&mut self, now: Time) {
        let Some(profiler) = &self.profiler else { return };
        let Some((rows, quiet)) = profiler.next() else {
            self.profiler = None;
            return;
        };
        if now < self.active + quiet || !self.is_quiet() {
            return;
        }
        let idle = |replica: &Replica<L::Worker>| replica.role == Role::Serving && replica.batches.is_empty();
        let Some(place) = self.replicas.iter().position(idle) else { return };
        let id = self.replicas[place].id;
        self.event(Event::DrainReplica(id));
        self.replicas[place].role = Role::Profiling;
        if let Err(error) = self.stage_synthetic(place, Purpose::Profile, rows) {
            tracing::debug!(model = %self.shared.settings.name, rows, %error, "measuring ends here");
            self.profiler = None;
            self.serve(place);
        }
    }

    pub(super) fn profiled(&mut self, place: usize, rows: u32, execution: Duration, ok: bool) {
        if self.replicas[place].role == Role::Profiling {
            self.serve(place);
        }
        if !ok {
            self.profiler = None;
        } else if let Some(curve) = self.profiler.as_mut().and_then(|profiler| profiler.ran(execution)) {
            let seconds = curve.iter().map(|(rows, time)| (*rows, time.as_secs_f64())).collect();
            let median = curve.last().map_or(execution, |(_, median)| *median);
            self.shared.profile.store(Arc::new(seconds));
            self.scheduler.observe(rows, median);
        }
    }
}

//! Measures the latency curve while nothing waits.
//!
//! Reads how long nothing has happened, hands batches that nobody sent to an idle replica.
//! Knows nothing of which sizes are worth measuring.

use std::sync::Arc;
use std::time::Duration;

use inferd_scheduler::Event;
use inferd_types::{ReplicaId, Time};

use crate::replica::entry::{Purpose, ReplicaEntry, Role};
use crate::replica::kind::Launcher;
use crate::task::Task;
use crate::task::phase::Phase;
use crate::warmup::profiler::Profiler;

impl<L: Launcher> Task<L> {
    pub(super) fn measuring_due(&self) -> Time {
        let next = self.profiler.as_ref().filter(|_| self.is_quiet()).and_then(Profiler::next);
        next.map_or(Time::MAX, |(_, quiet)| self.active + quiet)
    }

    /// Whether a measurement would hold up nobody.
    fn is_quiet(&self) -> bool {
        matches!(self.phase, Phase::Serving)
            && self.in_flight.is_empty()
            && self.quarantine.is_idle()
            && self.scheduler.is_idle()
            && self.replicas.iter().any(ReplicaEntry::is_idle)
            && self.replicas.iter().all(|entry| entry.role != Role::Profiling)
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
        let Some(replica) = self.replicas.find(ReplicaEntry::is_idle) else { return };
        self.event(Event::DrainReplica(replica));
        self.replicas[replica].role = Role::Profiling;
        if let Err(error) = self.stage_synthetic(replica, Purpose::Profile, rows) {
            tracing::debug!(model = %self.published.settings.name, rows, %error, "measuring ends here");
            self.profiler = None;
            self.serve(replica);
        }
    }

    pub(super) fn profiled(&mut self, replica: ReplicaId, rows: u32, execution: Duration, ok: bool) {
        if self.replicas[replica].role == Role::Profiling {
            self.serve(replica);
        }
        if !ok {
            self.profiler = None;
        } else if let Some(curve) = self.profiler.as_mut().and_then(|profiler| profiler.ran(execution)) {
            let seconds = curve.iter().map(|(rows, time)| (*rows, time.as_secs_f64())).collect();
            let median = curve.last().map_or(execution, |(_, median)| *median);
            self.published.profile.store(Arc::new(seconds));
            self.scheduler.observe(rows, median);
        }
    }
}

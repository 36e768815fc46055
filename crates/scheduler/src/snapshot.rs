//! How things stand, as values for `explain` and metrics.
//!
//! Reads the scheduler's state and changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::message::{CurvePoint, Refusal, Snapshot};
use crate::scheduler::Scheduler;

impl Scheduler {
    /// How things stand.
    pub fn snapshot(&self) -> Snapshot {
        let mut recent = BTreeMap::new();
        for rows in &self.count.recent {
            *recent.entry(*rows).or_insert(0u64) += 1;
        }
        let counted = Refusal::ALL.into_iter().map(|reason| (reason, self.count.refusals[reason as usize]));
        let bound = self.config.objective.is_some() && !self.pace.unreachable;
        Snapshot {
            queue_requests: self.queue.requests(),
            queue_rows: self.queue.rows() as usize,
            queue_bytes: self.queue.bytes(),
            handed_out: self.table.len() - self.queue.requests(),
            replicas_ready: self.replicas.iter().filter(|replica| !replica.draining).count(),
            curve: self.curve(),
            recent_batches: recent.into_iter().collect(),
            refusals: counted.filter(|(_, count)| *count > 0).collect(),
            arrivals: self.count.arrivals,
            demoted: self.count.demoted,
            objective_missed: self.count.missed,
            rate_rows_per_s: self.pace.rate(),
            batch_rows_within_objective: if bound { self.pace.rows } else { self.config.batch_rows_max },
            objective_unreachable: self.pace.unreachable,
            returning_callers: self.returning.callers(),
        }
    }

    fn curve(&self) -> Vec<CurvePoint> {
        let largest = self.config.batch_rows_max;
        let powers = (0..u32::BITS).map(|power| 1u32 << power).take_while(|rows| *rows < largest);
        let point = |rows| {
            let mean = Duration::from_nanos(self.latency.mean(rows)? as u64);
            let high = self.latency.at(rows, self.quantile)?;
            Some(CurvePoint { rows, mean, high, samples: self.latency.samples(rows) })
        };
        powers.chain([largest]).filter_map(point).collect()
    }
}

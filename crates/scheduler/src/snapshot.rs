//! The scheduler's state as values, for `explain` and metrics.
//!
//! Reads the state, hands on a [`Snapshot`]. Changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::latency::Latency;
use crate::message::{CurvePoint, Refusal, SizeCurve, Snapshot};
use crate::scheduler::Scheduler;

/// The reported quantiles of the spread.
const QUANTILES: [f64; 10] = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999];

impl Scheduler {
    /// The present state.
    pub fn snapshot(&self) -> Snapshot {
        let mut recent = BTreeMap::new();
        for rows in &self.count.recent {
            *recent.entry(*rows).or_insert(0u64) += 1;
        }
        let counted = Refusal::ALL.into_iter().map(|reason| (reason, self.count.refusals[reason as usize]));
        let usual = self.sizes.usual();
        let bound = self.config.objective.is_some() && !usual.plan.unreachable;
        Snapshot {
            queue_requests: self.queue.requests(),
            queue_rows: self.queue.rows() as usize,
            queue_bytes: self.queue.bytes(),
            handed_out: self.table.len() - self.queue.requests(),
            replicas_ready: self.replicas.iter().filter(|replica| !replica.draining).count(),
            replicas_ejected: self.replicas.iter().filter(|replica| replica.health.is_ejected()).count(),
            ejections: self.count.ejections,
            hedges: self.count.hedges,
            curve: self.curve(&usual.latency),
            measured: self.measured(&usual.latency),
            buckets: self.buckets(),
            spread: QUANTILES.map(|quantile| (quantile, usual.latency.ratio(quantile))).into(),
            recent_ratios: usual.latency.recent().collect(),
            recent_batches: recent.into_iter().collect(),
            refusals: counted.filter(|(_, count)| *count > 0).collect(),
            arrivals: self.count.arrivals,
            demoted: self.count.demoted,
            objective_missed: self.count.missed,
            rate_rows_per_s: usual.plan.rate(),
            batch_rows_within_objective: if bound { usual.plan.rows } else { self.config.batch_rows_max },
            objective_unreachable: usual.plan.unreachable,
            returning_callers: self.returning.callers(),
            lingers: self.count.lingers,
        }
    }

    fn buckets(&self) -> Vec<SizeCurve> {
        let came = self.sizes.iter().filter(|size| size.came);
        let mut buckets: Vec<_> =
            came.map(|size| SizeCurve { size: size.size, curve: self.curve(&size.latency) }).collect();
        buckets.sort_unstable_by_key(|bucket| bucket.size);
        buckets
    }

    fn curve(&self, latency: &Latency) -> Vec<CurvePoint> {
        let largest = self.config.batch_rows_max;
        let powers = (0..u32::BITS).map(|power| 1u32 << power).take_while(|rows| *rows < largest);
        powers.chain([largest]).filter_map(|rows| self.point(latency, rows)).collect()
    }

    fn measured(&self, latency: &Latency) -> Vec<CurvePoint> {
        let run = (1..=self.config.batch_rows_max).filter(|rows| latency.samples(*rows) > 0);
        run.filter_map(|rows| self.point(latency, rows)).collect()
    }

    fn point(&self, latency: &Latency, rows: u32) -> Option<CurvePoint> {
        let mean = Duration::from_nanos(latency.mean(rows)? as u64);
        let high = latency.at(rows, self.quantile)?;
        Some(CurvePoint { rows, mean, high, samples: latency.samples(rows) })
    }
}

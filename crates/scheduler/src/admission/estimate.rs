//! The expected queueing and execution time of a new request.
//!
//! Reads the queue, the replicas and recent batch sizes, hands on estimates. Does not know the request's class or
//! deadline.

use std::time::Duration;

use inferd_types::Time;

use crate::pipeline::StepEstimate;
use crate::replicas::Replica;
use crate::scheduler::Scheduler;

/// All replicas, while each of them runs something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupied {
    /// Number of replicas.
    pub replicas: usize,
    /// Expected end of the first run.
    pub ends: Time,
    /// Expected duration of the shortest run.
    pub shortest: Duration,
}

impl Scheduler {
    /// What a new request should expect now; zero while nothing is known. Costs a few steps per replica.
    pub fn estimate(&self, now: Time) -> StepEstimate {
        let open: u64 =
            self.servers().filter_map(Replica::open_batch).map(|batch| u64::from(batch.rows)).sum();
        let waiting = self.queue.undemoted_rows() + open;
        let rows = self.expected_rows(waiting);
        let latency = &self.sizes.usual().latency;
        let mean = latency.mean(rows).unwrap_or(0.0);
        // With one size, the backlog runs in such batches; with several, as planned for each.
        let mixed = (!self.sizes.is_one()).then(|| self.sizes.per_row(self.queue.by_size())).flatten();
        let work = match mixed {
            Some(each) => waiting as f64 * each,
            None => {
                (waiting as f64 / f64::from(rows)).floor() * (mean + self.sizes.pause().as_nanos() as f64)
            }
        };
        let queueing = Duration::from_nanos(self.level(now, work) as u64);
        // The new request runs with the remainder of the whole batches and with requests that arrive while it
        // waits.
        let others = waiting % u64::from(rows) + self.arrival_rate.within(queueing);
        let joined = rows.min(u32::try_from(others + 1).unwrap_or(u32::MAX));
        StepEstimate {
            queueing,
            joined: Duration::from_nanos(latency.high(joined)),
            high: Duration::from_nanos(latency.high(rows)),
            mean: Duration::from_nanos(mean as u64),
            rows,
            waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
            per_row: Duration::from_nanos(latency.per_row() as u64),
            rows_max: self.config.batch_rows_max,
        }
    }

    /// The runs in progress while no replica could start another; `None` if one could, or if a run's duration is
    /// unknown.
    pub fn occupied(&self) -> Option<Occupied> {
        let none = Occupied { replicas: 0, ends: Time::MAX, shortest: Duration::MAX };
        let all = self.servers().try_fold(none, |so_far, replica| {
            let (started, run) = replica.running(&self.sizes)?;
            Some(Occupied {
                replicas: so_far.replicas + 1,
                ends: so_far.ends.min(started + run),
                shortest: so_far.shortest.min(run),
            })
        });
        all.filter(|occupied| occupied.replicas > 0)
    }

    /// The size of the new request's batch: the recent size, or more if more rows are queued already.
    fn expected_rows(&self, waiting: u64) -> u32 {
        let planned = u64::from(self.sizes.usual().plan.rows).min(waiting + 1) as u32;
        (self.count.rows().round() as u32).max(planned).clamp(1, self.config.batch_rows_max)
    }

    /// How long after `now` the replicas have finished what they run and another `work` nanoseconds, distributed so
    /// that all finish together.
    fn level(&self, now: Time, work: f64) -> f64 {
        let free = || {
            self.servers().map(|replica| {
                let ends = if replica.open_batch().is_some() {
                    replica.next_starts(now, &self.sizes)
                } else {
                    replica.free_at(now, &self.sizes)
                };
                ends.since(now).as_nanos() as f64
            })
        };
        // Replicas that are free only after the level take no part; without them it falls. Repeat.
        let mut level = f64::INFINITY;
        loop {
            let (sum, count) = free()
                .filter(|free| *free <= level)
                .fold((work, 0u32), |(sum, count), free| (sum + free, count + 1));
            let next = if count > 0 { sum / f64::from(count) } else { return work };
            if next >= level {
                return level;
            }
            level = next;
        }
    }
}

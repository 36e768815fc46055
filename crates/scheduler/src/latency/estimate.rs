//! What a newcomer has to expect: the wait, and then the batch that it runs in.
//!
//! Reads the queue, the replicas and the batch sizes of late. Knows nothing of the newcomer: its class, its deadline.

use std::time::Duration;

use inferd_types::Time;

use crate::pipeline::StepEstimate;
use crate::replica::held::Replica;
use crate::state::scheduler::Scheduler;

/// Replicas all of which run something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupied {
    /// How many.
    pub replicas: usize,
    /// When the first of the runs is expected to end.
    pub ends: Time,
    /// How long the shortest of them is expected to take.
    pub shortest: Duration,
}

impl Scheduler {
    /// What a newcomer has to expect now; zero while nothing is known. Costs a few steps for each replica.
    pub fn estimate(&self, now: Time) -> StepEstimate {
        let open: u64 =
            self.servers().filter_map(Replica::open_batch).map(|batch| u64::from(batch.rows)).sum();
        let waiting = self.queue.prompt_rows() + open;
        let rows = self.expected_rows(waiting);
        let latency = &self.sizes.usual().latency;
        let mean = latency.mean(rows).unwrap_or(0.0);
        // Of one size, a backlog is worked off in such batches; of several, as planned for each.
        let mixed = (!self.sizes.is_one()).then(|| self.sizes.per_row(self.queue.by_size())).flatten();
        let work = match mixed {
            Some(each) => waiting as f64 * each,
            None => {
                (waiting as f64 / f64::from(rows)).floor() * (mean + self.sizes.pause().as_nanos() as f64)
            }
        };
        let queueing = Duration::from_nanos(self.level(now, work) as u64);
        // Beside a newcomer run those that are left over from whole batches, and those that come while it waits.
        let beside = waiting % u64::from(rows) + self.inflow.within(queueing);
        let joined = rows.min(u32::try_from(beside + 1).unwrap_or(u32::MAX));
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

    /// What is known of the runs under way while no replica could begin another; `None` while one could, or the length
    /// of a run is not known.
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

    /// The size of the batch that a newcomer will be in: as lately, or more where more wait already.
    fn expected_rows(&self, waiting: u64) -> u32 {
        let planned = u64::from(self.sizes.usual().pace.rows).min(waiting + 1) as u32;
        (self.count.rows().round() as u32).max(planned).clamp(1, self.config.batch_rows_max)
    }

    /// How long after `now` the replicas are done with what they run and `work` nanoseconds more, shared so that all
    /// end together.
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
        // Those that are free only after the level take no part in it; without them it falls, and again.
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

//! Size buckets of requests, each with its own latency curve and plan.
//!
//! Reads sizes of arrivals and runs, hands on curves by a small dense index. Knows nothing of requests.
//!
//! A new bucket begins with the curve of the nearest known one; its first runs set the level of that curve
//! (`latency`), so that a sequence four times as long is planned for as such after one batch.

use std::time::Duration;

use super::Latency;
use super::plan::Plan;
use crate::message::{Config, SizeBucket};

/// Weight of one pause in the moving mean.
const PAUSE_STEP: f64 = 1.0 / 16.0;

/// One bucket.
#[derive(Debug)]
pub(crate) struct Size {
    pub(crate) size: SizeBucket,
    pub(crate) latency: Latency,
    pub(crate) plan: Plan,
    /// Whether a request of it ever arrived.
    pub(crate) came: bool,
}

impl Size {
    fn new(size: SizeBucket, latency: Latency, config: &Config, horizon: Duration, pause: f64) -> Size {
        let plan = Plan::new(&latency, config.batch_rows_max, config.objective, horizon, pause);
        let mut new = Size { size, latency, plan, came: false };
        new.latency.judge_at(plan.judged);
        new
    }

    fn plan(&mut self, config: &Config, horizon: Duration, pause: f64) {
        self.plan = Plan::new(&self.latency, config.batch_rows_max, config.objective, horizon, pause);
        self.latency.judge_at(self.plan.judged);
    }
}

/// See the module. Bucket 0, that of the profile, always exists.
#[derive(Debug)]
pub(crate) struct Sizes {
    all: Vec<Size>,
    /// Maximum rows per batch, for which the curves have room.
    rows_max: u32,
    quantile: f64,
    /// The bucket of the last finished batch.
    usual: u8,
    /// Mean pause of replicas between two runs, in nanoseconds.
    pause: f64,
}

impl Sizes {
    pub(crate) fn new(config: &Config, quantile: f64, horizon: Duration) -> Self {
        let latency = Latency::new(config.batch_rows_max, quantile, &config.profile);
        let first = Size::new(SizeBucket::default(), latency, config, horizon, 0.0);
        Sizes { all: vec![first], rows_max: config.batch_rows_max, quantile, usual: 0, pause: 0.0 }
    }

    /// The bucket at an index.
    pub(crate) fn of(&self, at: u8) -> &Size {
        &self.all[usize::from(at)]
    }

    /// The bucket that ran last.
    pub(crate) fn usual(&self) -> &Size {
        self.of(self.usual)
    }

    /// All buckets, in the order in which they were first seen.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Size> {
        self.all.iter()
    }

    /// Whether there is only one.
    pub(crate) fn is_one(&self) -> bool {
        self.all.len() == 1
    }

    /// The index of the bucket `size`, created if it is new.
    pub(crate) fn index(&mut self, size: SizeBucket, config: &Config, horizon: Duration) -> u8 {
        if let Some(at) = self.all.iter().position(|known| known.size == size) {
            return at as u8;
        }
        let known = self.all.iter().filter(|other| other.latency.known());
        // Of two equally near, the larger: too long a plan is safer than too short a one.
        let nearest = known.min_by_key(|other| (other.size.0.abs_diff(size.0), u8::MAX - other.size.0));
        let latency = match nearest {
            Some(nearest) => Latency::like(&nearest.latency),
            None => Latency::new(self.rows_max, self.quantile, &config.profile),
        };
        self.all.push(Size::new(size, latency, config, horizon, self.pause));
        // There are at most 256 sizes.
        (self.all.len() - 1) as u8
    }

    /// Records that a request of this bucket arrived.
    pub(crate) fn arrived(&mut self, at: u8) {
        self.all[usize::from(at)].came = true;
    }

    /// Learns from a run; `true` if the bucket's plan may have changed.
    pub(crate) fn observe(&mut self, at: u8, rows: u32, execution: Duration) -> bool {
        self.usual = at;
        self.all[usize::from(at)].latency.observe(rows, execution)
    }

    /// Records that a replica paused for `time` nanoseconds before a staged run of `execution`; negative if the end
    /// of the previous run was seen late.
    pub(crate) fn paused(&mut self, time: f64, execution: Duration) {
        let longest = execution.as_nanos() as f64;
        self.pause += PAUSE_STEP * (time.clamp(-longest, longest) - self.pause);
    }

    /// Mean pause between two runs.
    pub(crate) fn pause(&self) -> Duration {
        Duration::from_nanos(self.pause.max(0.0) as u64)
    }

    /// Replans one bucket, or all.
    pub(crate) fn plan(&mut self, only: Option<u8>, config: &Config, horizon: Duration) {
        for (at, size) in self.all.iter_mut().enumerate() {
            if only.is_none_or(|only| usize::from(only) == at) {
                size.plan(config, horizon, self.pause);
            }
        }
    }

    /// Shortest execution time of any request, in nanoseconds.
    pub(crate) fn shortest(&self) -> u64 {
        self.all.iter().map(|size| size.latency.needed(1)).min().unwrap_or(0)
    }

    /// Time per row of a backlog at the planned batch sizes, in nanoseconds; `rows` is the backlog by bucket.
    pub(crate) fn per_row(&self, rows: &[u64]) -> Option<f64> {
        let (mut sum, mut nanos) = (0.0, 0.0);
        for (size, rows) in self.all.iter().zip(rows).filter(|(_, rows)| **rows > 0) {
            sum += *rows as f64;
            nanos += *rows as f64 * size.plan.row_nanos()?;
        }
        if sum > 0.0 { Some(nanos / sum) } else { self.usual().plan.row_nanos() }
    }

    /// The longest usual execution time of `rows` of any size; `None` while a size that arrived was never run.
    pub(crate) fn longest(&self, rows: u32) -> Option<Duration> {
        let used = || self.all.iter().filter(|size| size.came || size.latency.known());
        if used().any(|size| !size.latency.is_measured()) {
            return None;
        }
        used().filter_map(|size| size.latency.at(rows, 0.99)).max()
    }
}

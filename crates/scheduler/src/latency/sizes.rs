//! The buckets of sizes that requests come in: for each its own latency curve and its own plan.
//!
//! Reads sizes as they come and runs as they end, hands back curves by a small dense index. Knows nothing of requests.
//!
//! A bucket that is new begins with the curve of the nearest one that is known; its first runs set the level of that
//! curve (`latency`), so that a sequence four times as long is planned for as such after one batch.

use std::time::Duration;

use crate::latency::curve::Latency;
use crate::latency::pace::Pace;
use crate::message::{Config, SizeBucket};

/// How much one pause moves the mean.
const PAUSE_STEP: f64 = 1.0 / 16.0;

/// One bucket.
#[derive(Debug)]
pub(crate) struct Size {
    pub(crate) size: SizeBucket,
    pub(crate) latency: Latency,
    pub(crate) pace: Pace,
    /// Whether a request of it ever came.
    pub(crate) came: bool,
}

impl Size {
    fn new(size: SizeBucket, latency: Latency, config: &Config, horizon: Duration, pause: f64) -> Size {
        let pace = Pace::new(&latency, config.batch_rows_max, config.objective, horizon, pause);
        let mut new = Size { size, latency, pace, came: false };
        new.latency.judge_at(pace.judged);
        new
    }

    fn plan(&mut self, config: &Config, horizon: Duration, pause: f64) {
        self.pace = Pace::new(&self.latency, config.batch_rows_max, config.objective, horizon, pause);
        self.latency.judge_at(self.pace.judged);
    }
}

/// See the module. There is always the bucket 0, which the profile is of.
#[derive(Debug)]
pub(crate) struct Sizes {
    all: Vec<Size>,
    /// Most rows that may ever run together: the curves have room for as many.
    rows_max: u32,
    quantile: f64,
    /// The bucket of the batch that finished last.
    usual: u8,
    /// What replicas pause between two runs on average, in nanoseconds.
    pause: f64,
}

impl Sizes {
    pub(crate) fn new(config: &Config, quantile: f64, horizon: Duration) -> Self {
        let latency = Latency::new(config.batch_rows_max, quantile, &config.profile);
        let first = Size::new(SizeBucket::default(), latency, config, horizon, 0.0);
        Sizes { all: vec![first], rows_max: config.batch_rows_max, quantile, usual: 0, pause: 0.0 }
    }

    /// By index.
    pub(crate) fn of(&self, at: u8) -> &Size {
        &self.all[usize::from(at)]
    }

    /// The bucket that was run last.
    pub(crate) fn usual(&self) -> &Size {
        self.of(self.usual)
    }

    /// All of them, in the order in which they were first seen.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Size> {
        self.all.iter()
    }

    /// Whether there is one only.
    pub(crate) fn is_one(&self) -> bool {
        self.all.len() == 1
    }

    /// The index of the bucket `size`, which is made if it is new.
    pub(crate) fn index(&mut self, size: SizeBucket, config: &Config, horizon: Duration) -> u8 {
        if let Some(at) = self.all.iter().position(|known| known.size == size) {
            return at as u8;
        }
        let known = self.all.iter().filter(|other| other.latency.known());
        // Of two that are as near, the larger: better to plan for too long than for too short.
        let nearest = known.min_by_key(|other| (other.size.0.abs_diff(size.0), u8::MAX - other.size.0));
        let latency = match nearest {
            Some(nearest) => Latency::like(&nearest.latency),
            None => Latency::new(self.rows_max, self.quantile, &config.profile),
        };
        self.all.push(Size::new(size, latency, config, horizon, self.pause));
        // There are no more than 256 sizes.
        (self.all.len() - 1) as u8
    }

    /// Takes note that a request of this bucket came.
    pub(crate) fn arrived(&mut self, at: u8) {
        self.all[usize::from(at)].came = true;
    }

    /// Learns from a run; `true` where the bucket's plan may have changed.
    pub(crate) fn observe(&mut self, at: u8, rows: u32, execution: Duration) -> bool {
        self.usual = at;
        self.all[usize::from(at)].latency.observe(rows, execution)
    }

    /// A replica paused for `time` before a run of `execution` although that was staged; less than nothing where the end of
    /// the run before it was seen late.
    pub(crate) fn paused(&mut self, time: f64, execution: Duration) {
        let longest = execution.as_nanos() as f64;
        self.pause += PAUSE_STEP * (time.clamp(-longest, longest) - self.pause);
    }

    /// What replicas pause between two runs.
    pub(crate) fn pause(&self) -> Duration {
        Duration::from_nanos(self.pause.max(0.0) as u64)
    }

    /// Plans anew for one bucket, or for all.
    pub(crate) fn plan(&mut self, only: Option<u8>, config: &Config, horizon: Duration) {
        for (at, size) in self.all.iter_mut().enumerate() {
            if only.is_none_or(|only| usize::from(only) == at) {
                size.plan(config, horizon, self.pause);
            }
        }
    }

    /// The least that any request takes, in nanoseconds.
    pub(crate) fn shortest(&self) -> u64 {
        self.all.iter().map(|size| size.latency.high(1)).min().unwrap_or(0)
    }

    /// What a row of a backlog takes at the planned batch sizes, in nanoseconds; `rows` is the backlog by bucket.
    pub(crate) fn per_row(&self, rows: &[u64]) -> Option<f64> {
        let (mut sum, mut nanos) = (0.0, 0.0);
        for (size, rows) in self.all.iter().zip(rows).filter(|(_, rows)| **rows > 0) {
            sum += *rows as f64;
            nanos += *rows as f64 * size.pace.row_nanos()?;
        }
        if sum > 0.0 { Some(nanos / sum) } else { self.usual().pace.row_nanos() }
    }

    /// The longest that a run of `rows` usually takes, whatever their size; `None` while some size that came has
    /// never been run.
    pub(crate) fn longest(&self, rows: u32) -> Option<Duration> {
        let used = || self.all.iter().filter(|size| size.came || size.latency.known());
        if used().any(|size| !size.latency.is_measured()) {
            return None;
        }
        used().filter_map(|size| size.latency.at(rows, 0.99)).max()
    }
}

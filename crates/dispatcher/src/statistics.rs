//! What a model version has done since it was loaded, in the terms of the statistics extension.
//!
//! Reads one record per batch from the model's task, hands out snapshots.
//! Knows nothing of JSON or protobuf.

use std::collections::BTreeMap;
use std::time::Duration;

/// How often something happened and how long it took together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DurationStatistics {
    /// How often.
    pub count: u64,
    /// Nanoseconds, summed.
    pub ns: u64,
}

impl DurationStatistics {
    pub(crate) fn add(&mut self, times: u64, each: Duration) {
        self.count += times;
        self.ns += times * u64::try_from(each.as_nanos()).unwrap_or(u64::MAX / 4 / times.max(1));
    }
}

/// What batches of one size have taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchStatistics {
    /// From the choice of the batch until the worker ran it, once per batch.
    pub compute_input: DurationStatistics,
    /// The run itself, once per batch.
    pub compute_infer: DurationStatistics,
    /// From the end of the run until the answers were handed on, once per batch.
    pub compute_output: DurationStatistics,
}

/// Counters since the model was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelStatistics {
    /// When the latest inference ended: milliseconds since the dispatcher's clock started. 0: never.
    pub last_inference_ms: u64,
    /// Rows that were inferred with success.
    pub inference_count: u64,
    /// Batches that were run with success.
    pub execution_count: u64,
    /// Answered requests: from arrival to answer.
    pub success: DurationStatistics,
    /// Requests that ended in an error: from arrival to answer.
    pub fail: DurationStatistics,
    /// Answered requests: from arrival until their batch was handed over.
    pub queue: DurationStatistics,
    /// Answered requests: from the hand-over until the worker ran them.
    pub compute_input: DurationStatistics,
    /// Answered requests: the run itself.
    pub compute_infer: DurationStatistics,
    /// Answered requests: from the end of the run to the answer.
    pub compute_output: DurationStatistics,
    /// The same by rows of the batch.
    pub batches: BTreeMap<u32, BatchStatistics>,
}

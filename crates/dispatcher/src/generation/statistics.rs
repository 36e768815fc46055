//! What a model version has done since it was loaded, in the terms of the statistics extension.
//!
//! Reads one record per batch from the model's task, hands out snapshots.
//! Knows nothing of JSON or protobuf.

use std::collections::BTreeMap;
use std::time::Duration;

use inferd_types::{Time, Timing};

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
        // Five centuries fit; past them the counter starts again.
        self.ns = self.ns.wrapping_add(times.wrapping_mul(each.as_nanos() as u64));
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
    /// Requests answered from the cache: from the lookup to the answer, waiting for an equal request included.
    pub cache_hit: DurationStatistics,
    /// Requests that the cache had no answer to: the lookup.
    pub cache_miss: DurationStatistics,
    /// The same by rows of the batch.
    pub batches: BTreeMap<u32, BatchStatistics>,
}

impl ModelStatistics {
    /// Counts one batch that ran with success.
    pub(crate) fn executed(&mut self, timing: &Timing) {
        self.execution_count += 1;
        self.last_inference_ms = millis(timing.finished);
        let batch = self.batches.entry(timing.batch_rows).or_default();
        let parts = Parts::of(timing);
        batch.compute_input.add(1, parts.input);
        batch.compute_infer.add(1, parts.infer);
        batch.compute_output.add(1, parts.output);
    }

    /// Counts one answered request of `rows` rows.
    pub(crate) fn answered(&mut self, arrived: Time, rows: u32, timing: &Timing) {
        let parts = Parts::of(timing);
        self.inference_count += u64::from(rows);
        self.success.add(1, timing.finished.since(arrived));
        self.queue.add(1, timing.staged.since(arrived));
        self.compute_input.add(1, parts.input);
        self.compute_infer.add(1, parts.infer);
        self.compute_output.add(1, parts.output);
    }

    /// Counts one request that was answered without a run. Its rows were not inferred, and are not counted.
    pub(crate) fn cache_hit(&mut self, arrived: Time, asked: Time, now: Time) {
        self.last_inference_ms = millis(now);
        self.success.add(1, now.since(arrived));
        self.queue.add(1, asked.since(arrived));
        self.cache_hit.add(1, now.since(asked));
    }

    /// Counts one request that the cache had no answer to.
    pub(crate) fn cache_missed(&mut self, lookup: Duration) {
        self.cache_miss.add(1, lookup);
    }

    /// Counts one request that ended in an error.
    pub(crate) fn failed(&mut self, took: Duration) {
        self.fail.add(1, took);
    }
}

/// Where the time of a batch went between its hand-over and its answers.
struct Parts {
    input: Duration,
    infer: Duration,
    output: Duration,
}

impl Parts {
    fn of(timing: &Timing) -> Parts {
        let ran = timing.finished.since(timing.started);
        let infer = timing.execution.min(ran);
        Parts { input: timing.started.since(timing.staged), infer, output: ran - infer }
    }
}

fn millis(time: Time) -> u64 {
    time.as_nanos() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_request_is_divided_without_remainder() {
        let at = |ms: u64| Time::from_nanos(ms * 1_000_000);
        let timing = Timing {
            staged: at(15),
            started: at(18),
            finished: at(30),
            execution: Duration::from_millis(10),
            batch_rows: 4,
        };
        let mut statistics = ModelStatistics::default();
        statistics.executed(&timing);
        statistics.answered(at(10), 3, &timing);
        statistics.answered(at(11), 1, &timing);
        statistics.failed(Duration::from_millis(2));
        assert_eq!((statistics.inference_count, statistics.execution_count), (4, 1));
        assert_eq!(statistics.last_inference_ms, 30);
        let sum = statistics.queue.ns
            + statistics.compute_input.ns
            + statistics.compute_infer.ns
            + statistics.compute_output.ns;
        assert_eq!(sum, statistics.success.ns);
        assert_eq!(statistics.compute_infer, DurationStatistics { count: 2, ns: 20_000_000 });
        assert_eq!(statistics.batches[&4].compute_infer, DurationStatistics { count: 1, ns: 10_000_000 });
        assert_eq!(statistics.fail, DurationStatistics { count: 1, ns: 2_000_000 });
    }
}

//! The names of the metrics that Prometheus reads, each once. Units are in the names.

/// Requests by model, version and outcome (`ok` or a [`crate::ErrorKind::label`]).
pub const REQUESTS_TOTAL: &str = "inferd_requests_total";
/// From the first byte of a request to the last byte of its answer handed to the socket.
pub const REQUEST_DURATION_SECONDS: &str = "inferd_request_duration_seconds";
/// From admission until a replica took the batch.
pub const QUEUE_WAIT_SECONDS: &str = "inferd_queue_wait_seconds";
/// One run of a batch, as the worker measured it.
pub const EXECUTION_DURATION_SECONDS: &str = "inferd_execution_duration_seconds";
/// Rows that ran together.
pub const BATCH_ROWS: &str = "inferd_batch_rows";
/// Rows that wait.
pub const QUEUE_ROWS: &str = "inferd_queue_rows";
/// Replicas by state (`starting`, `ready`, `quarantine`, `backoff`).
pub const REPLICAS: &str = "inferd_replicas";
/// Requests refused at the door, by reason.
pub const REFUSALS_TOTAL: &str = "inferd_refusals_total";
/// Requests that were answered later than the model's objective.
pub const OBJECTIVE_MISSED_TOTAL: &str = "inferd_objective_missed_total";
/// Requests of tenants that the settings name, by outcome.
pub const TENANT_REQUESTS_TOTAL: &str = "inferd_tenant_requests_total";
/// Workers that ended without being asked to, by reason (`exit`, `signal`, `hang`).
pub const WORKER_LOSSES_TOTAL: &str = "inferd_worker_losses_total";
/// 1 for whether requests share runs at the moment (`shared`, `alone`), by who decided.
pub const BATCHING_VERDICT: &str = "inferd_batching_verdict";
/// Rows that came and were compared, alone and in company.
pub const BATCHING_ROWS_COMPARED_TOTAL: &str = "inferd_batching_rows_compared_total";
/// Requests among them whose answers company changed.
pub const BATCHING_DIFFERENCES_TOTAL: &str = "inferd_batching_differences_total";
/// Requests to a model with a cache that were answered without a run of their own.
pub const CACHE_HITS_TOTAL: &str = "inferd_cache_hits_total";
/// Requests to a model with a cache that had to be run.
pub const CACHE_MISSES_TOTAL: &str = "inferd_cache_misses_total";
/// What the answers in a model's cache take.
pub const CACHE_BYTES: &str = "inferd_cache_bytes";
/// Bytes of requests that are being read, queued or run.
pub const INFLIGHT_BYTES: &str = "inferd_inflight_bytes";
/// Lines of the log that were dropped, by reason (`blocked`, `rate`, `failed`).
pub const LOG_LINES_DROPPED_TOTAL: &str = "inferd_log_lines_dropped_total";

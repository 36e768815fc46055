//! The names of the Prometheus metrics, each declared once. Units are in the names.

/// Requests by model, version and outcome (`ok` or a [`crate::ErrorKind::label`]).
pub const REQUESTS_TOTAL: &str = "inferd_requests_total";
/// From the first byte of a request to the last byte of its response handed to the socket.
pub const REQUEST_DURATION_SECONDS: &str = "inferd_request_duration_seconds";
/// From admission until a replica takes the batch.
pub const QUEUE_WAIT_SECONDS: &str = "inferd_queue_wait_seconds";
/// One run of a batch, as measured by the worker.
pub const EXECUTION_DURATION_SECONDS: &str = "inferd_execution_duration_seconds";
/// Rows per batch.
pub const BATCH_ROWS: &str = "inferd_batch_rows";
/// Rows in the queue.
pub const QUEUE_ROWS: &str = "inferd_queue_rows";
/// Replicas by state (`starting`, `ready`, `quarantine`, `backoff`).
pub const REPLICAS: &str = "inferd_replicas";
/// Requests refused at admission, by reason.
pub const REFUSALS_TOTAL: &str = "inferd_refusals_total";
/// Responses later than the model's objective.
pub const OBJECTIVE_MISSED_TOTAL: &str = "inferd_objective_missed_total";
/// Requests of tenants that the settings name, by outcome.
pub const TENANT_REQUESTS_TOTAL: &str = "inferd_tenant_requests_total";
/// Unexpected worker exits, by reason (`exit`, `signal`, `hang`).
pub const WORKER_LOSSES_TOTAL: &str = "inferd_worker_losses_total";
/// 1 for the present batching verdict (`shared`, `alone`), by what decided it.
pub const BATCHING_VERDICT: &str = "inferd_batching_verdict";
/// Rows of requests that ran both alone and in a batch and were compared.
pub const BATCHING_ROWS_COMPARED_TOTAL: &str = "inferd_batching_rows_compared_total";
/// Compared requests whose outputs differed.
pub const BATCHING_DIFFERENCES_TOTAL: &str = "inferd_batching_differences_total";
/// Requests answered from the cache, or by the run of an equal request.
pub const CACHE_HITS_TOTAL: &str = "inferd_cache_hits_total";
/// Requests to a model with a cache that were run.
pub const CACHE_MISSES_TOTAL: &str = "inferd_cache_misses_total";
/// Size of the cached responses.
pub const CACHE_BYTES: &str = "inferd_cache_bytes";
/// Bytes of requests that are read, queued or run.
pub const INFLIGHT_BYTES: &str = "inferd_inflight_bytes";
/// Log lines dropped, by reason (`blocked`, `rate`, `failed`).
pub const LOG_LINES_DROPPED_TOTAL: &str = "inferd_log_lines_dropped_total";

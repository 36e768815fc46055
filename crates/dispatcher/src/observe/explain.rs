//! Why a model is served as it is, for people.
//!
//! Reads the scheduler's snapshot, hands back JSON. A function of values.
//! Knows nothing of the caller.

use std::time::Duration;

use inferd_scheduler::{CurvePoint, Scheduler};
use inferd_types::settings::ModelSettings;
use serde_json::{Map, Value, json};

use crate::batching::cross_request::CrossRequestBatching;
use crate::observe::recent::RecentDurations;

/// Quantiles at which the spread is shown.
const SPREAD: [f64; 11] = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999];

/// What requests take besides their runs.
pub(crate) struct Overhead<'a> {
    /// What a batch takes from its hand-over to its answer beyond the execution.
    pub(crate) batch: Duration,
    /// How long runs had ended before that was seen.
    pub(crate) unseen: &'a RecentDurations,
    /// How long a replica paused between two runs although the next was staged.
    pub(crate) pauses: &'a RecentDurations,
    /// How long one request keeps the gateway.
    pub(crate) request: Option<Duration>,
}

/// The learned curve, recent batches and refusals, with units in the names.
pub(crate) fn explain(
    scheduler: &Scheduler,
    settings: &ModelSettings,
    batching: &CrossRequestBatching,
    overhead: &Overhead<'_>,
) -> Value {
    let snapshot = scheduler.snapshot();
    let buckets = snapshot.buckets.iter();
    let buckets: Vec<Value> =
        buckets.map(|bucket| json!({ "size": bucket.size.0, "curve": curve(&bucket.curve) })).collect();
    // Relative to the mean, the same for all sizes.
    let ratio = |quantile: f64| {
        Some(scheduler.predict(1, quantile)?.as_secs_f64() / snapshot.curve.first()?.mean.as_secs_f64())
    };
    let spread: Vec<(f64, f64)> =
        SPREAD.iter().filter_map(|quantile| Some((*quantile, ratio(*quantile)?))).collect();
    let ratios: Vec<f64> = snapshot.recent_ratios.iter().map(|ratio| (ratio * 1e3).round() / 1e3).collect();
    let times = |recent: &RecentDurations| -> Vec<(f64, f64)> {
        let at = |quantile: &f64| Some((*quantile, seconds(recent.quantile(*quantile)?)));
        SPREAD.iter().filter_map(at).collect()
    };
    let refusals: Map<String, Value> =
        snapshot.refusals.iter().map(|(reason, count)| (reason.label().to_owned(), json!(count))).collect();
    json!({
        "objective": settings.slo.map(|slo| json!({
            "latency_s": seconds(slo.latency_s.0),
            "percentile": slo.percentile,
            "unreachable": snapshot.objective_unreachable,
            "missed": snapshot.objective_missed,
            "batch_rows": snapshot.batch_rows_within_objective,
        })),
        "batching": batching.status(),
        "queue": {
            "requests": snapshot.queue_requests,
            "rows": snapshot.queue_rows,
            "bytes": snapshot.queue_bytes,
            "handed_out": snapshot.handed_out,
        },
        "replicas_ready": snapshot.replicas_ready,
        "replicas_ejected": snapshot.replicas_ejected,
        "ejections": snapshot.ejections,
        "hedges": snapshot.hedges,
        "curve": curve(&snapshot.curve),
        "measured": curve(&snapshot.measured),
        "buckets": buckets,
        "spread": spread,
        "recent_ratios": ratios,
        "overhead_s": {
            "batch": seconds(overhead.batch),
            "unseen": times(overhead.unseen),
            "pauses": times(overhead.pauses),
            "request": overhead.request.map(seconds),
        },
        "recent_batches": snapshot.recent_batches,
        "arrivals": snapshot.arrivals,
        "refusals": refusals,
        "demoted": snapshot.demoted,
        "rate_rows_per_s": snapshot.rate_rows_per_s,
        "returning_callers": snapshot.returning_callers,
        "lingers": snapshot.lingers,
    })
}

fn curve(points: &[CurvePoint]) -> Vec<Value> {
    let point = |point: &CurvePoint| {
        json!({
            "rows": point.rows,
            "mean_s": seconds(point.mean),
            "high_s": seconds(point.high),
            "samples": point.samples,
        })
    };
    points.iter().map(point).collect()
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

//! The scheduler's interface: configuration, events, actions and snapshots.
//!
//! Used by `dispatcher`, which reports [`Event`]s and carries out [`Action`]s. Knows nothing of how decisions are
//! made.

use std::time::Duration;

use inferd_types::settings::ModelSettings;
use inferd_types::{BatchId, Due, Error, Priority, ReplicaId, RequestId, Tenant, Time};

/// Only requests with equal keys share a batch. The dispatcher derives it from the shapes of a request's inputs
/// without the batch dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShapeKey(pub u64);

/// The size of a request's rows, as a power of two: each bucket has its own latency curve, and a batch holds
/// requests of one bucket only, so that padding at most doubles them. 0 if all rows are alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SizeBucket(pub u8);

/// How many requests form a batch. The rules of published systems are for comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchRule {
    /// The largest batch that meets every deadline in it, including queueing; lingers for returning callers;
    /// demotes heads that can't be met. The default.
    #[default]
    Slack,
    /// One request.
    One,
    /// This many requests, or all that are queued.
    Fixed(u32),
    /// The largest batch whose mean time fits the time that its head had on arrival, at least one request.
    LargestThatFits,
}

/// A second run of a slow batch on an idle replica.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hedging {
    /// A batch that runs longer than this quantile of its size's time is hedged (0.95).
    pub quantile: f64,
    /// Maximum fraction of batches that are hedged (0.05), so that hedges can't storm.
    pub budget: f64,
}

/// A latency objective. Soft: it steers order, batching and admission; late responses are still delivered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// From admission to response.
    pub latency: Duration,
    /// The fraction of requests that should meet it, between 0 and 1 (0.99).
    pub quantile: f64,
}

/// A scheduler's view of its model. Immutable, but for [`crate::Scheduler::limit_batch_rows`] and
/// [`crate::Scheduler::set_batching`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether requests may share a batch.
    pub batched: bool,
    /// Maximum rows per batch; a larger request runs alone, unsplit. At least 1.
    pub batch_rows_max: u32,
    /// Maximum input bytes per batch (the size of an arena slot); a larger request runs alone.
    pub batch_max_bytes: usize,
    /// Maximum queued rows; beyond it arrivals are refused, because a longer queue only makes responses late.
    pub queue_rows_max: usize,
    /// Maximum queued bytes; beyond it arrivals are refused, to bound memory.
    pub queue_max_bytes: usize,
    /// The objective; `None`: best effort.
    pub objective: Option<Objective>,
    /// Whether a batch smaller than recent ones may wait for returning callers.
    pub linger: bool,
    /// A latency curve measured before: rows and execution time. Empty: unknown.
    pub profile: Vec<(u32, Duration)>,
    /// How long a request that can no longer meet its objective waits before it is refused, in multiples of the
    /// objective. At least 1.
    pub late_wait: f64,
    /// How batches are formed.
    pub batch_rule: BatchRule,
    /// Hedging of slow batches; `None`: off.
    pub hedging: Option<Hedging>,
    /// Whether a replica that fails or is much slower than the others is ejected for a while.
    pub ejection: bool,
    /// Maximum number of replicas that execute at once, at least 1. Replicas that share cores take turns: running
    /// at the same time, each would take longer than both in sequence, since they evict each other's data from the
    /// caches.
    pub running_max: u32,
    /// Seed of random choices: equal seeds and events give equal decisions.
    pub seed: u64,
}

impl Default for Config {
    /// A batched model with the default limits and neither objective nor profile.
    fn default() -> Self {
        Config {
            batched: true,
            batch_rows_max: 32,
            batch_max_bytes: usize::MAX,
            queue_rows_max: 4096,
            queue_max_bytes: 256 << 20,
            objective: None,
            linger: true,
            profile: Vec::new(),
            late_wait: 4.0,
            batch_rule: BatchRule::Slack,
            hedging: None,
            ejection: true,
            running_max: u32::MAX,
            seed: 0,
        }
    }
}

impl Config {
    /// The scheduling part of the settings of a model with `replicas`; `batched` comes from its signature.
    pub fn from_settings(settings: &ModelSettings, replicas: u32, batched: bool) -> Config {
        Config {
            batched,
            batch_rows_max: settings.batch_rows_max.max(1),
            // Two slots share the arena, each with inputs and outputs; the transport refuses what still does not
            // fit.
            batch_max_bytes: settings.arena_max_bytes / 2,
            queue_rows_max: settings.queue_rows_max,
            queue_max_bytes: settings.queue_max_bytes,
            objective: settings
                .slo
                .map(|slo| Objective { latency: slo.latency_s.0, quantile: slo.percentile / 100.0 }),
            linger: settings.linger,
            profile: settings
                .profile
                .iter()
                .filter_map(|(rows, seconds)| Some((*rows, Duration::try_from_secs_f64(*seconds).ok()?)))
                .collect(),
            late_wait: settings.late_wait_objectives.max(1.0),
            running_max: settings.machine.running_max(replicas).unwrap_or(u32::MAX).max(1),
            // What must not run twice is not hedged either.
            hedging: (settings.hedge_budget > 0.0 && settings.retry_on_worker_loss)
                .then_some(Hedging { quantile: 0.95, budget: settings.hedge_budget }),
            ejection: settings.ejection,
            ..Config::default()
        }
    }
}

/// One request at admission.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its id.
    pub request: RequestId,
    /// Its rows; a request of none counts as one.
    pub rows: u32,
    /// Memory that it holds while queued.
    pub bytes: usize,
    /// Which requests it may share a batch with.
    pub shape: ShapeKey,
    /// The size of its rows. Requests of one shape have one size.
    pub size: SizeBucket,
    /// Its priority class.
    pub priority: Priority,
    /// Its tenant.
    pub tenant: Tenant,
    /// Its soft deadline besides the timeout.
    pub due: Due,
    /// The caller's hard deadline. `None`: no deadline.
    pub timeout: Option<Time>,
}

/// Capacity of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Batches, including the running one; at most two are used.
    pub batches: u8,
    /// Whether requests can be appended to a batch that has not begun.
    pub appends: bool,
}

impl Default for Room {
    /// The capacity of a worker process.
    fn default() -> Self {
        Room { batches: 2, appends: true }
    }
}

/// An event.
///
/// A request is *held* from `Arrived` until its batch has `Finished`, or it was `Cancelled`, `Removed` or answered
/// by [`Action::Answer`]. Events about requests, batches or replicas that are not held (any more) have no effect.
#[derive(Clone, Debug)]
pub enum Event {
    /// A request arrived. It may be refused at once by [`Action::Answer`].
    Arrived(Arrival),
    /// A request larger than a batch arrived, split into parts that are held separately. They are admitted or
    /// refused as one: a refusal of the first part is of all.
    ArrivedInParts(Vec<Arrival>),
    /// The caller cancelled. Queued: removed, without an answer. Staged: [`Action::Withdraw`] follows. Running: no
    /// effect.
    Cancelled(RequestId),
    /// A replica is warm and idle, with this capacity. Also ends a [`Event::DrainReplica`].
    ReplicaReady(ReplicaId, Room),
    /// The replica took its open batch: it executes now, nothing more can be appended. Also the response to an
    /// [`Action::Withdraw`] that came too late.
    Taken {
        /// The replica.
        replica: ReplicaId,
        /// The batch.
        batch: BatchId,
    },
    /// The replica finished a batch; its slot is free again. Implies a missed `Taken`.
    Finished {
        /// The replica.
        replica: ReplicaId,
        /// The batch.
        batch: BatchId,
        /// Execution time, as measured by the worker.
        execution: Duration,
        /// Whether the model gave a result; the time of a failed run is not learned from.
        ok: bool,
    },
    /// Staged requests return to the queue, with their deadline and place: an [`Action::Append`] that failed (its
    /// batch is never appended to again), the innocent requests of a lost replica, suspects that may run again.
    Returned {
        /// Those that were not cancelled, in any order.
        requests: Vec<RequestId>,
    },
    /// An open batch has left its slot whole: [`Action::Withdraw`] was in time, or [`Action::Stage`] failed. In the
    /// second case the requests run alone from then on, so that a batch that doesn't fit is not formed again; a
    /// *single* request that can't be staged must be answered and `Removed` by the dispatcher.
    Withdrawn {
        /// The replica with the free slot.
        replica: ReplicaId,
        /// The batch.
        batch: BatchId,
        /// Those that were not cancelled, in any order.
        requests: Vec<RequestId>,
    },
    /// The replica has ended. Its batches are dropped; each of their requests must be `Returned`, `Removed` or
    /// `Cancelled`.
    ReplicaLost(ReplicaId),
    /// The dispatcher removed a request (condemned, run in quarantine, answered).
    Removed(RequestId),
    /// No new batch goes to this replica, and what it has not taken is withdrawn by [`Action::Withdraw`].
    DrainReplica(ReplicaId),
}

/// What the dispatcher must do, in the order given.
#[derive(Clone, Debug)]
pub enum Action {
    /// Open a batch on a free slot of the replica.
    Stage {
        /// The replica.
        replica: ReplicaId,
        /// The new batch's id.
        batch: BatchId,
        /// Its requests, most urgent first.
        requests: Vec<RequestId>,
        /// The earliest deadline among them, if any.
        deadline_hint: Option<Time>,
    },
    /// Run a copy of a slow batch. The requests are answered by the first `Finished` that is `ok`, or by the last;
    /// the other is still reported, for its slot and its time. If the replica of one is lost, the requests belong
    /// to the other alone: they are neither `Returned` nor `Removed` for it. A copy that can't be staged is
    /// `Withdrawn` with no requests.
    Hedge {
        /// The replica.
        replica: ReplicaId,
        /// The copy's id.
        batch: BatchId,
        /// The replica and the id of the slow batch.
        of: (ReplicaId, BatchId),
        /// Its requests.
        requests: Vec<RequestId>,
    },
    /// Append to an open batch. If that fails (already taken, no room): [`Event::Returned`].
    Append {
        /// The replica.
        replica: ReplicaId,
        /// The batch.
        batch: BatchId,
        /// The new requests, most urgent first.
        requests: Vec<RequestId>,
    },
    /// Take an open batch back whole. In time: [`Event::Withdrawn`] with the requests that are still held. Too
    /// late: [`Event::Taken`], unless it was already sent.
    Withdraw {
        /// The replica.
        replica: ReplicaId,
        /// The batch.
        batch: BatchId,
    },
    /// Answer a request with an error; it is no longer held.
    Answer {
        /// The request.
        request: RequestId,
        /// The reason, for metrics and logs.
        reason: Refusal,
        /// The error for the caller.
        error: Error,
    },
    /// Call [`crate::Scheduler::decide`] at this time, if no event comes before. Replaces earlier ones; a `decide`
    /// without one means that none is needed.
    WakeAt(Time),
}

/// Why a request was answered without a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The queue has no room for its rows.
    QueueRows,
    /// The queue has no room for its bytes.
    QueueBytes,
    /// The backlog ahead of it delays its completion past its deadline.
    PredictedLate,
    /// Its timeout is shorter than its execution time, or had passed on arrival.
    TimeoutTooShort,
    /// It was admitted, but its timeout passed or can no longer be met.
    TimedOut,
    /// It was admitted, can no longer meet its objective, and waited a multiple of that.
    WaitedTooLong,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Refusal; 6] = [
        Refusal::QueueRows,
        Refusal::QueueBytes,
        Refusal::PredictedLate,
        Refusal::TimeoutTooShort,
        Refusal::TimedOut,
        Refusal::WaitedTooLong,
    ];

    /// The value of the metric and log label.
    pub const fn label(self) -> &'static str {
        match self {
            Refusal::QueueRows => "queue_rows",
            Refusal::QueueBytes => "queue_bytes",
            Refusal::PredictedLate => "predicted_late",
            Refusal::TimeoutTooShort => "timeout_too_short",
            Refusal::TimedOut => "timed_out",
            Refusal::WaitedTooLong => "waited_too_long",
        }
    }
}

/// One point of the learned latency curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePoint {
    /// Rows of the batch.
    pub rows: u32,
    /// Mean execution time.
    pub mean: Duration,
    /// Execution time at the objective's quantile (0.99 without one).
    pub high: Duration,
    /// Number of measured runs of this size; 0 for a point that is inferred or from a profile.
    pub samples: u64,
}

/// The learned latency of requests of one size.
#[derive(Clone, Debug, PartialEq)]
pub struct SizeCurve {
    /// The size.
    pub size: SizeBucket,
    /// Its curve.
    pub curve: Vec<CurvePoint>,
}

/// The scheduler's state, for `explain` and metrics.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Queued requests.
    pub queue_requests: usize,
    /// Queued rows.
    pub queue_rows: usize,
    /// Queued bytes.
    pub queue_bytes: usize,
    /// Requests that are staged, executing or with the dispatcher after a loss.
    pub handed_out: usize,
    /// Replicas that take batches, including ejected ones.
    pub replicas_ready: usize,
    /// Replicas that are ejected now.
    pub replicas_ejected: usize,
    /// Number of ejections.
    pub ejections: u64,
    /// Number of hedged batches.
    pub hedges: u64,
    /// The latency curve at 1, 2, 4 … rows and at the largest batch, of the size that ran last; empty while nothing
    /// is known.
    pub curve: Vec<CurvePoint>,
    /// The same at every batch size that was run.
    pub measured: Vec<CurvePoint>,
    /// The curve of each size that arrived, smallest first.
    pub buckets: Vec<SizeCurve>,
    /// The spread of execution times: quantiles, ascending, and the ratio to the mean at each.
    pub spread: Vec<(f64, f64)>,
    /// Ratios of the last runs (about 2,000) to the curve, oldest first: they show slow periods, which quantiles
    /// don't.
    pub recent_ratios: Vec<f64>,
    /// Sizes of the last 256 batches in rows and the number of each, ascending.
    pub recent_batches: Vec<(u32, u64)>,
    /// Requests answered without a run, by reason; reasons that did not occur are omitted.
    pub refusals: Vec<(Refusal, u64)>,
    /// Number of arrivals, including refused ones.
    pub arrivals: u64,
    /// Requests that were demoted because they could no longer meet the objective.
    pub demoted: u64,
    /// Requests whose batch finished after the objective.
    pub objective_missed: u64,
    /// Rows per second that one replica sustains within the objective (at full batches without one).
    pub rate_rows_per_s: Option<f64>,
    /// The largest batch that the objective allows; the configured limit without one.
    pub batch_rows_within_objective: u32,
    /// Whether the objective is shorter than the execution time of one row: it can't be met and is not enforced.
    pub objective_unreachable: bool,
    /// Estimated number of returning callers; above 1, small batches linger.
    pub returning_callers: f64,
    /// Number of batches that lingered.
    pub lingers: u64,
}

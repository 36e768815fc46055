//! What the scheduler is told and what it asks for: every type that crosses its border.
//!
//! Read by `dispatcher`, which turns what happens into [`Event`]s and carries out [`Action`]s.
//! Knows nothing of how a decision is made.

use std::time::Duration;

use inferd_types::settings::ModelSettings;
use inferd_types::{BatchId, Due, Error, Priority, ReplicaId, RequestId, Tenant, Time};

/// What may share a batch: equal keys may, different keys never do. The dispatcher makes it from the shapes of a
/// request's inputs, the batch dimension left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShapeKey(pub u64);

/// How large a request's rows are, as a power of two: the latency of each bucket is learned apart, and a batch holds
/// requests of one bucket only, so that padding them to the longest at most doubles them. 0 where all rows are alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SizeBucket(pub u8);

/// How many requests a replica is given at once. Those of published systems are there to be compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchRule {
    /// The largest that meets every deadline in it, queueing counted in; held back for callers that are about to
    /// return; heads that are past help are passed over. The product's own.
    #[default]
    Slack,
    /// One request.
    One,
    /// This many requests, or all that wait.
    Fixed(u32),
    /// The largest whose mean time fits what the first in line was given when it came, at least one.
    LargestThatFits,
}

/// A second copy of what runs too long on one replica, on another that is idle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hedging {
    /// A batch that runs longer than this quantile of its size's time is copied (0.95).
    pub quantile: f64,
    /// Most copies, as a share of all batches (0.05): copies can never storm.
    pub budget: f64,
}

/// A latency objective. Soft: it steers order, batching and admission, an answer later than it is still given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// From admission to answer.
    pub latency: Duration,
    /// The share of requests that it holds for, between 0 and 1 (0.99).
    pub quantile: f64,
}

/// What one scheduler needs to know about its model. Fixed for its life, but for
/// [`crate::Scheduler::limit_batch_rows`] and [`crate::Scheduler::set_batching`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether requests may share a run. Off: every batch is one request.
    pub batched: bool,
    /// Most rows that run together; a request of more rows runs alone, as it came. At least 1.
    pub batch_rows_max: u32,
    /// Most bytes of inputs that run together (what a slot of the arena can hold); a larger request runs alone.
    pub batch_max_bytes: usize,
    /// Most rows that wait; past it arrivals are refused, because a longer queue only makes late answers.
    pub queue_rows_max: usize,
    /// Most bytes that wait; past it arrivals are refused, because memory is what they hold while they wait.
    pub queue_max_bytes: usize,
    /// The objective; `None`: best effort.
    pub objective: Option<Objective>,
    /// Whether a batch smaller than the recent load may wait a moment for callers that are about to return.
    pub linger: bool,
    /// A latency curve measured before: rows and execution time. Empty: nothing is known yet.
    pub profile: Vec<(u32, Duration)>,
    /// How many times its objective a request waits that can no longer meet it, before it is refused. At least 1.
    pub late_wait: f64,
    /// How batches are formed.
    pub batch_rule: BatchRule,
    /// Copies of slow batches; `None`: none.
    pub hedging: Option<Hedging>,
    /// Whether a replica that fails or is much slower than the others is left out for a while.
    pub ejection: bool,
    /// Most replicas that execute at once, at least 1. Replicas that share cores and compute take turns: at the same
    /// time each would take longer than both one after the other, since they drive each other's data from the caches.
    pub running_max: u32,
    /// What random choices are drawn from: equal seeds and events make equal decisions.
    pub seed: u64,
}

impl Default for Config {
    /// A batched model with the product's usual limits and neither objective nor profile.
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
    /// The scheduling part of the settings of a model with `replicas`; `batched` is what its signature says.
    pub fn from_settings(settings: &ModelSettings, replicas: u32, batched: bool) -> Config {
        Config {
            batched,
            batch_rows_max: settings.batch_rows_max.max(1),
            // Two slots share the arena, each with inputs and outputs; the rest is the transport's to refuse.
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
            // Whatever must not run twice is not copied either.
            hedging: (settings.hedge_budget > 0.0 && settings.retry_on_worker_loss)
                .then_some(Hedging { quantile: 0.95, budget: settings.hedge_budget }),
            ejection: settings.ejection,
            ..Config::default()
        }
    }
}

/// One request at the door.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its name until it is answered.
    pub request: RequestId,
    /// Rows that it brings; a request of none counts as one.
    pub rows: u32,
    /// Bytes that it holds while it waits.
    pub bytes: usize,
    /// What it may share a batch with.
    pub shape: ShapeKey,
    /// How large its rows are. Requests of one shape are of one size.
    pub size: SizeBucket,
    /// Its class.
    pub priority: Priority,
    /// On whose behalf it comes.
    pub tenant: Tenant,
    /// What it is held to beside the timeout.
    pub due: Due,
    /// The caller's hard limit, absolute. `None`: the caller waits.
    pub timeout: Option<Time>,
}

/// What a replica can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Batches, the one that runs included; more than two are not used.
    pub batches: u8,
    /// Whether requests may be added to a batch that it has not begun.
    pub appends: bool,
}

impl Default for Room {
    /// That of a worker process.
    fn default() -> Self {
        Room { batches: 2, appends: true }
    }
}

/// What happened.
///
/// A request is *held* from `Arrived` until its batch has `Finished`, or it was `Cancelled`, `Removed` or answered
/// by [`Action::Answer`]. Events about requests, batches or replicas that are not held (any more) change nothing.
#[derive(Clone, Debug)]
pub enum Event {
    /// A request came. It may be refused at once by [`Action::Answer`].
    Arrived(Arrival),
    /// A request of more rows than run together came, cut into parts that are held one by one from now on. They are
    /// admitted or refused as one: a refusal names the first part and means all.
    ArrivedInParts(Vec<Arrival>),
    /// The caller has gone. Queued: forgotten, without an answer. Staged: [`Action::Withdraw`] follows. Running:
    /// nothing can be saved.
    Cancelled(RequestId),
    /// A replica is warm and idle, and has so much room. Also ends a [`Event::DrainReplica`].
    ReplicaReady(ReplicaId, Room),
    /// The replica took its open batch: it executes now, nothing more can be appended. Answers a
    /// [`Action::Withdraw`] that came too late.
    Taken {
        /// Who took it.
        replica: ReplicaId,
        /// What it took.
        batch: BatchId,
    },
    /// The replica is done with a batch; its slot is free again. A `Taken` that was not seen is implied.
    Finished {
        /// Who ran it.
        replica: ReplicaId,
        /// What it ran.
        batch: BatchId,
        /// What the run took, as the worker measured it.
        execution: Duration,
        /// Whether the model gave a result; the time of a failed run is not learned from.
        ok: bool,
    },
    /// Requests that were handed out go back to the queue, with the deadline and the place that they had: an
    /// [`Action::Append`] that was not carried out (its batch is never appended to again), the innocent ones of a
    /// lost replica, suspects that may run again.
    Returned {
        /// Those whose callers still wait, in any order.
        requests: Vec<RequestId>,
    },
    /// An open batch has left its slot whole: [`Action::Withdraw`] was in time, or [`Action::Stage`] could not be
    /// carried out. In the second case the requests run alone from then on, so that a batch that doesn't fit is not
    /// formed again; a *lone* request that can't be staged must be answered and `Removed` by the dispatcher.
    Withdrawn {
        /// Whose slot is free now.
        replica: ReplicaId,
        /// What is gone.
        batch: BatchId,
        /// Those whose callers still wait, in any order.
        requests: Vec<RequestId>,
    },
    /// The replica has ended. Its batches are forgotten; each of their requests must come back by `Returned`, or
    /// leave by `Removed` or `Cancelled`.
    ReplicaLost(ReplicaId),
    /// The dispatcher took a request out of the scheduler's hands (condemned, run in quarantine, answered).
    Removed(RequestId),
    /// No new batch goes to this replica. What it has not begun is taken back by [`Action::Withdraw`].
    DrainReplica(ReplicaId),
}

/// What the dispatcher must do, in the order given.
#[derive(Clone, Debug)]
pub enum Action {
    /// Open a batch on a free slot of the replica.
    Stage {
        /// Where.
        replica: ReplicaId,
        /// Its name from now on.
        batch: BatchId,
        /// Its requests, most urgent first.
        requests: Vec<RequestId>,
        /// The earliest time at which one of them is late, where there is one.
        deadline_hint: Option<Time>,
    },
    /// Run a copy of a batch that takes too long elsewhere. The requests are answered by whichever `Finished`
    /// comes first and is `ok`, or by the last; the other is still reported, for its slot and its time. Where the
    /// replica of one is lost, the requests are the other's alone: they are neither `Returned` nor `Removed` for it.
    /// A copy that can't be staged is `Withdrawn` with nobody in it.
    Hedge {
        /// Where.
        replica: ReplicaId,
        /// The copy's name.
        batch: BatchId,
        /// The batch that runs too long.
        of: (ReplicaId, BatchId),
        /// What it copies.
        requests: Vec<RequestId>,
    },
    /// Add to a batch that is still open. Where that fails (taken already, no room): [`Event::Returned`].
    Append {
        /// Where.
        replica: ReplicaId,
        /// To what.
        batch: BatchId,
        /// What is new, most urgent first.
        requests: Vec<RequestId>,
    },
    /// Take an open batch back whole. In time: [`Event::Withdrawn`] with the requests that are still held. Too
    /// late: [`Event::Taken`], where it was not sent before.
    Withdraw {
        /// From where.
        replica: ReplicaId,
        /// What.
        batch: BatchId,
    },
    /// Answer a request with an error; it is no longer held.
    Answer {
        /// Who.
        request: RequestId,
        /// Why, for metrics and logs.
        reason: Refusal,
        /// What the caller is told.
        error: Error,
    },
    /// Call [`crate::Scheduler::decide`] at this time, if no event comes before. The latest one counts; a
    /// `decide` that gives none means that none is needed.
    WakeAt(Time),
}

/// Why a request was answered without being run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The queue has no room for its rows.
    QueueRows,
    /// The queue has no room for its bytes.
    QueueBytes,
    /// The backlog ahead of it puts its completion after its deadline.
    PredictedLate,
    /// Its timeout is shorter than the model ever takes, or has passed on arrival.
    TimeoutTooShort,
    /// It was admitted, but its timeout passed, or can't be met any more.
    TimedOut,
    /// It was admitted, could no longer meet its objective, and waited several times that for its turn.
    WaitedTooLong,
}

impl Refusal {
    /// Every reason there is.
    pub const ALL: [Refusal; 6] = [
        Refusal::QueueRows,
        Refusal::QueueBytes,
        Refusal::PredictedLate,
        Refusal::TimeoutTooShort,
        Refusal::TimedOut,
        Refusal::WaitedTooLong,
    ];

    /// The value of metric and log labels.
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
    /// Execution time at the quantile of the objective (0.99 where there is none).
    pub high: Duration,
    /// Runs of this many rows that were measured; 0 for a point that is inferred or from a profile.
    pub samples: u64,
}

/// The learned latency of requests of one size.
#[derive(Clone, Debug, PartialEq)]
pub struct SizeCurve {
    /// Which.
    pub size: SizeBucket,
    /// Its curve.
    pub curve: Vec<CurvePoint>,
}

/// How things stand, for `explain` and for metrics.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Requests that wait.
    pub queue_requests: usize,
    /// Rows that wait.
    pub queue_rows: usize,
    /// Bytes that wait.
    pub queue_bytes: usize,
    /// Requests that are staged, executing or with the dispatcher after a loss.
    pub handed_out: usize,
    /// Replicas that take batches, those that are left out for a while included.
    pub replicas_ready: usize,
    /// Replicas that are left out for a while, because they failed or were far slower than the others.
    pub replicas_ejected: usize,
    /// How often one was left out.
    pub ejections: u64,
    /// Batches of which a copy was run.
    pub hedges: u64,
    /// The latency curve at 1, 2, 4 … rows and at the largest batch, of the size that ran last; empty while nothing is
    /// known.
    pub curve: Vec<CurvePoint>,
    /// The same at every number of rows that was run, for those who compute with it: the curve is no line.
    pub measured: Vec<CurvePoint>,
    /// The curve for each size that came, smallest first.
    pub buckets: Vec<SizeCurve>,
    /// How far runs stray: quantiles, ascending, and the ratio to the mean at each.
    pub spread: Vec<(f64, f64)>,
    /// What the last runs (some 2,000) took relative to the curve, oldest first: a machine is slow for a while, which no
    /// quantile tells.
    pub recent_ratios: Vec<f64>,
    /// Rows of recent batches and how many there were of each (the last few hundred), ascending.
    pub recent_batches: Vec<(u32, u64)>,
    /// Requests answered without being run, by reason; reasons that did not occur are left out.
    pub refusals: Vec<(Refusal, u64)>,
    /// Requests that came, refused ones included.
    pub arrivals: u64,
    /// Requests that were demoted because they could no longer make the objective.
    pub demoted: u64,
    /// Requests whose batch finished after the objective.
    pub objective_missed: u64,
    /// Rows a second that one replica sustains within the objective (at full batches where there is none).
    pub rate_rows_per_s: Option<f64>,
    /// The largest batch that the objective allows; the configured limit where there is none.
    pub batch_rows_within_objective: u32,
    /// True where the objective is shorter than one row takes: it can't be met and is not enforced.
    pub objective_unreachable: bool,
    /// How many returning callers the scheduler sees; more than 1 makes small batches linger.
    pub returning_callers: f64,
    /// Batches that were held for them.
    pub lingers: u64,
}

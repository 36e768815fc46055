//! A seed's scenario: a model, its limits, its load and its faults.
//!
//! Reads a seed, hands on a scenario. Runs nothing.

use std::time::Duration;

use inferd_scheduler::{Arrival, BatchRule, Config, Hedging, Objective, ShapeKey, SizeBucket};
use inferd_testkit::Random;
use inferd_types::{Due, Priority, RequestId, Tenant, Time};

/// Requests per run: enough to learn and for a long overload, few enough that many different runs fit a test.
pub(crate) const REQUESTS: u64 = 20_000;

/// See the module.
pub(crate) struct Scenario {
    pub(crate) config: Config,
    pub(crate) replicas: u32,
    /// Execution time: a fixed part and one per row.
    pub(crate) fixed: Duration,
    pub(crate) each: Duration,
    /// Open-loop arrivals: the mean time between them, and the probability of a burst.
    pub(crate) between: Duration,
    pub(crate) crowds: f64,
    /// Closed-loop callers.
    pub(crate) callers: u64,
    pub(crate) faults: Faults,
    kinds: Kinds,
    pub(crate) random: Random,
}

/// Faults. Times are means between two, none if zero; the rest are fractions.
pub(crate) struct Faults {
    pub(crate) losses: Duration,
    pub(crate) cancellations: Duration,
    pub(crate) drains: Duration,
    /// Batching of several requests is turned off or on.
    pub(crate) batching_changes: Duration,
    pub(crate) jumps: Duration,
    /// A replica becomes slow, or as fast as before.
    pub(crate) speed_changes: Duration,
    pub(crate) append_fails: f64,
    pub(crate) stage_fails: f64,
    pub(crate) run_fails: f64,
    /// Runs that take a hundred times as long.
    pub(crate) stalls: f64,
}

/// The variety of requests.
struct Kinds {
    shapes: u64,
    tenants: u64,
    classes: u64,
    rows: u64,
    in_parts: f64,
    timeouts: f64,
    /// A deadline that is neither generous nor too short for a request.
    span: Duration,
}

impl Scenario {
    /// The scenario of `seed`.
    pub(crate) fn of(seed: u64) -> Scenario {
        // A few steps, since close seeds begin alike.
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            random.next();
        }
        let random = &mut random;
        let fixed = log_uniform(random, Duration::from_micros(50), Duration::from_millis(50));
        let each = fixed.mul_f64(random.unit().powi(2));
        let most = if often(random, 0.2) { 12 } else { 4 };
        let replicas = (1 + random.below(most)).max(random.below(3)) as u32;
        let rows_max = 1 + random.below(40) as u32;
        let full = fixed + each * rows_max;
        let span = full * 4;
        let config = config(random, rows_max, replicas, span);
        let rows = if often(random, 0.3) { 4 } else { 1 };
        let running = f64::from(replicas.min(config.running_max));
        let batch = if config.batched { f64::from(rows_max) } else { 1.0 };
        let whole = if config.batched { full } else { fixed + each };
        let load = 0.05 + 2.8 * random.unit().powi(3);
        let mean_rows = 1.0 + (rows - 1) as f64 / 2.0;
        let between = whole.mul_f64(mean_rows / (batch * running * load)).max(Duration::from_nanos(500));
        let faults = faults(random, between);
        Scenario {
            replicas,
            fixed,
            each,
            between,
            crowds: if often(random, 0.3) { 0.02 } else { 0.0 },
            callers: if often(random, 0.3) { random.below(64) } else { 0 },
            kinds: Kinds {
                shapes: if often(random, 0.5) { 1 } else { 2 + random.below(3) },
                tenants: if often(random, 0.5) { 1 } else { 2 + random.below(4) },
                classes: if often(random, 0.5) { 1 } else { 3 },
                rows,
                in_parts: if often(random, 0.2) { 0.1 } else { 0.0 },
                timeouts: if often(random, 0.5) { random.unit() } else { 0.0 },
                span,
            },
            config,
            faults,
            random: Random(random.next() | 1),
        }
    }

    /// A request that arrives at `now`.
    pub(crate) fn arrival(&mut self, now: Time, request: RequestId) -> Arrival {
        let (kinds, random) = (&self.kinds, &mut self.random);
        let shape = random.below(kinds.shapes);
        let tenant = random.below(kinds.tenants) as u32;
        let late = kinds.span.mul_f64(4.0 * random.unit());
        let timeout = now + kinds.span.mul_f64(6.0 * random.unit());
        Arrival {
            request,
            rows: if kinds.rows > 1 { random.below(kinds.rows + 1) as u32 } else { 1 },
            bytes: 1 + random.below(200) as usize,
            shape: ShapeKey(shape),
            size: SizeBucket((shape / 2) as u8),
            priority: Priority(random.below(kinds.classes) as u8),
            tenant: Tenant { id: tenant, weight: 1 + tenant % 3 },
            due: match random.below(8) {
                0 | 1 => Due::At(now + late),
                2 => Due::Never,
                _ => Due::Objective,
            },
            timeout: (random.unit() < kinds.timeouts).then_some(timeout),
        }
    }

    /// Whether the next request comes in parts.
    pub(crate) fn in_parts(&mut self) -> bool {
        often(&mut self.random, self.kinds.in_parts)
    }
}

fn config(random: &mut Random, rows_max: u32, replicas: u32, span: Duration) -> Config {
    let objective = Objective { latency: span.mul_f64(0.3 + 2.0 * random.unit()), quantile: 0.99 };
    let rule = match random.below(10) {
        0 => BatchRule::One,
        1 => BatchRule::Fixed(1 + random.below(8) as u32),
        2 => BatchRule::LargestThatFits,
        _ => BatchRule::Slack,
    };
    Config {
        batched: often(random, 0.9),
        batch_rows_max: rows_max,
        batch_max_bytes: if often(random, 0.3) { 1000 } else { usize::MAX },
        queue_rows_max: 50 + random.below(500) as usize,
        queue_max_bytes: if often(random, 0.3) { 20_000 } else { usize::MAX / 4 },
        objective: often(random, 0.5).then_some(objective),
        linger: often(random, 0.8),
        batch_rule: rule,
        hedging: hedging(random),
        ejection: often(random, 0.5),
        running_max: if often(random, 0.2) { 1 + random.below(u64::from(replicas)) as u32 } else { u32::MAX },
        seed: random.next(),
        ..Config::default()
    }
}

fn hedging(random: &mut Random) -> Option<Hedging> {
    let budget = if often(random, 0.5) { 0.05 } else { 1.0 };
    often(random, 0.5).then_some(Hedging { quantile: 0.95, budget })
}

fn faults(random: &mut Random, between: Duration) -> Faults {
    let mut every = |requests: u32| {
        if often(random, 0.5) { between * requests } else { Duration::ZERO }
    };
    let (losses, cancellations, drains) = (every(400), every(10), every(900));
    let (jumps, speed_changes, batching_changes) = (every(4000), every(1000), every(3000));
    let mut share = |most: f64| if often(random, 0.4) { most * random.unit() } else { 0.0 };
    Faults {
        losses,
        cancellations,
        drains,
        batching_changes,
        jumps,
        speed_changes,
        append_fails: share(0.4),
        stage_fails: share(0.02),
        run_fails: share(0.1),
        stalls: share(0.1),
    }
}

pub(crate) fn often(random: &mut Random, share: f64) -> bool {
    random.unit() < share
}

/// Between `least` and `most`, log-uniform.
pub(crate) fn log_uniform(random: &mut Random, least: Duration, most: Duration) -> Duration {
    least.mul_f64((most.as_secs_f64() / least.as_secs_f64()).powf(random.unit()))
}

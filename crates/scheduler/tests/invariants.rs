//! Invariants under random arrivals, cancellations, losses and races, in simulated time.

mod driver;

use std::time::Duration;

use driver::{Fate, Request, Setup, World};
use inferd_scheduler::{BatchRule, Config, Objective, ShapeKey, SizeBucket};
use inferd_types::{Due, Priority, RequestId, Tenant, Time};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    batched: bool,
    rows_max: u32,
    replicas: u32,
    callers: usize,
    open_loop_micros: u64,
    losses: bool,
    cancellations: bool,
    append_fails: f64,
    shapes: u64,
    tenants: u64,
    rule: BatchRule,
    timeouts: bool,
    objective: bool,
    large: bool,
    queue_rows: usize,
    alpha: u64,
    beta: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let load = (
        any::<u64>(),
        any::<bool>(),
        1u32..40,
        1u32..4,
        0usize..40,
        20u64..3000,
        (1u64..4, 1u64..5, 0u32..8),
    );
    let faults = (any::<bool>(), any::<bool>(), 0.0..0.5f64, any::<bool>(), any::<bool>(), any::<bool>());
    let model = (20usize..300, 1u64..2000, 1u64..500);
    (load, faults, model).prop_map(|(load, faults, model)| Case {
        seed: load.0,
        batched: load.1,
        rows_max: load.2,
        replicas: load.3,
        callers: load.4,
        open_loop_micros: load.5,
        shapes: load.6.0,
        tenants: load.6.1,
        rule: match load.6.2 {
            0 => BatchRule::One,
            1 => BatchRule::Fixed(3),
            2 => BatchRule::LargestThatFits,
            _ => BatchRule::Slack,
        },
        losses: faults.0,
        cancellations: faults.1,
        append_fails: faults.2,
        timeouts: faults.3,
        objective: faults.4,
        large: faults.5,
        queue_rows: model.0,
        alpha: model.1,
        beta: model.2,
    })
}

fn tenant(random: &mut driver::Random, tenants: u64) -> Tenant {
    let id = random.below(tenants) as u32;
    Tenant { id, weight: 1 + id % 3 }
}

fn world(case: Case) -> World {
    let objective = Objective { latency: Duration::from_millis(10), quantile: 0.99 };
    let config = Config {
        batched: case.batched,
        batch_rows_max: case.rows_max,
        queue_rows_max: case.queue_rows,
        objective: case.objective.then_some(objective),
        batch_rule: case.rule,
        ..Config::default()
    };
    let (alpha, beta) = (case.alpha, case.beta);
    let mut setup = Setup::new(config, move |rows, random| {
        Duration::from_micros(alpha + beta * u64::from(rows))
            .mul_f64(0.5 + random.unit() * random.unit() * 3.0)
    });
    (setup.seed, setup.replicas, setup.callers) = (case.seed, case.replicas, case.callers);
    setup.open_loop = Some(Duration::from_micros(case.open_loop_micros));
    setup.append_fails = case.append_fails;
    setup.in_parts = if case.large { 0.2 } else { 0.0 };
    setup.losses = if case.losses { Duration::from_millis(7) } else { Duration::ZERO };
    setup.cancellations = if case.cancellations { Duration::from_micros(400) } else { Duration::ZERO };
    setup.stop_at = Time::ZERO + Duration::from_millis(150);
    setup.shape_request = Box::new(move |random, now, arrival| {
        arrival.shape = ShapeKey(random.below(case.shapes));
        arrival.size = SizeBucket(arrival.shape.0 as u8 / 2);
        arrival.due = match random.below(8) {
            0 => Due::At(now + Duration::from_micros(random.below(20_000))),
            1 => Due::Never,
            _ => Due::Objective,
        };
        arrival.priority = Priority(random.below(3) as u8);
        arrival.tenant = tenant(random, case.tenants);
        if case.large {
            arrival.rows =
                if random.below(10) == 0 { random.below(60) as u32 } else { random.below(4) as u32 };
        }
        if case.timeouts && random.below(2) == 0 {
            arrival.timeout = Some(now + Duration::from_micros(random.below(20_000)));
        }
    });
    World::new(setup)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// The driver checks at each step: only queued requests are staged or answered, slots and sizes are respected,
    /// a lost replica gets no action.
    #[test]
    fn every_request_ends_exactly_once_whatever_happens(case in cases()) {
        let mut world = world(case);
        world.run();
        world.check_rest();
    }

    #[test]
    fn a_seed_replays_exactly(case in cases()) {
        let fates = |case: Case| {
            let mut world = world(case);
            world.run();
            world.requests.iter().map(|request| request.fate).collect::<Vec<_>>()
        };
        prop_assert_eq!(fates(case.clone()), fates(case));
    }

    #[test]
    fn the_earliest_deadline_runs_first_inside_a_class_tenant_and_shape(
        seed in any::<u64>(),
        shapes in 1u64..4,
        tenants in 1u64..4,
        load in 100u64..400,
    ) {
        let mut setup = Setup::new(Config { batch_rows_max: 8, ..Config::default() }, |rows, _| {
            Duration::from_micros(500 + 200 * u64::from(rows))
        });
        setup.seed = seed;
        setup.open_loop = Some(Duration::from_micros(load));
        setup.stop_at = Time::ZERO + Duration::from_millis(100);
        setup.shape_request = Box::new(move |random, now, arrival| {
            arrival.shape = ShapeKey(random.below(shapes));
            arrival.priority = Priority(random.below(2) as u8);
            arrival.tenant = tenant(random, tenants);
            arrival.timeout = Some(now + Duration::from_millis(1000 + random.below(1000)));
        });
        let mut world = World::new(setup);
        world.check_stage = Some(earliest_first);
        world.run();
        world.check_rest();
        prop_assert!(world.batches.len() > 20);
    }
}

/// No queued request of the same class, tenant and shape is due before a staged one.
fn earliest_first(staged: &[RequestId], requests: &[Request]) {
    for id in staged {
        let chosen = requests[id.0 as usize].arrival;
        let passed_over = requests.iter().find(|other| {
            other.fate == Fate::Queued
                && !staged.contains(&other.arrival.request)
                && other.arrival.priority == chosen.priority
                && other.arrival.shape == chosen.shape
                && other.arrival.tenant == chosen.tenant
                && other.arrival.timeout < chosen.timeout
        });
        assert!(passed_over.is_none(), "{passed_over:?} was passed over for {chosen:?}");
    }
}

#[test]
fn a_low_class_does_not_starve_under_an_overload_of_a_high_one() {
    let config = Config { queue_rows_max: 500, ..Config::default() };
    let mut setup = Setup::new(config, |rows, _| Duration::from_micros(1000 + 300 * u64::from(rows)));
    setup.open_loop = Some(Duration::from_micros(150));
    setup.stop_at = Time::ZERO + Duration::from_secs(6);
    setup.shape_request = Box::new(|random, _, arrival| {
        arrival.priority = Priority(if random.below(20) == 0 { 2 } else { 0 });
    });
    let mut world = World::new(setup);
    world.run();
    world.check_rest();
    let slowest = |class| {
        let of_class = world.requests.iter().filter(|request| request.arrival.priority == Priority(class));
        let waits = of_class.filter_map(|request| match request.fate {
            Fate::Done(at) => Some(at.since(request.at)),
            _ => None,
        });
        waits.max().expect("some ran")
    };
    assert!(slowest(2) < Duration::from_secs(5), "{:?}", slowest(2));
    assert!(slowest(0) < Duration::from_millis(500), "{:?}", slowest(0));
}

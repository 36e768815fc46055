//! Requests of several sizes: each bucket's latency is learned separately and used for admission.

mod driver;
mod rig;

use std::time::Duration;

use driver::{Fate, Random, Request, Setup, World};
use inferd_scheduler::{Arrival, Config, Objective, Refusal, ShapeKey, SizeBucket};
use inferd_types::{Priority, Time};
use rig::{Rig, arrival, due};

fn sized(size: u8, arrival: Arrival) -> Arrival {
    Arrival { size: SizeBucket(size), shape: ShapeKey(u64::from(size)), ..arrival }
}

#[test]
fn a_timeout_is_judged_by_the_size_of_its_request() {
    let mut rig = Rig::known(Config::default(), 1);
    rig.scheduler.observe_size(SizeBucket(4), 1, Duration::from_millis(16));
    assert_eq!(rig.refusal(0, sized(4, due(0, 5000))).0, Refusal::TimeoutTooShort);
    rig.arrive(0, [sized(0, due(1, 5000)), sized(4, due(2, 90_000))]);
    assert!(rig.actions.is_empty(), "{:?}", rig.actions);
    let snapshot = rig.scheduler.snapshot();
    let means: Vec<_> = snapshot.buckets.iter().map(|bucket| (bucket.size.0, bucket.curve[0].mean)).collect();
    assert_eq!(means, [(0, Duration::from_micros(1100)), (4, Duration::from_millis(16))]);
}

#[test]
fn a_size_never_seen_is_planned_for_as_the_nearest_that_was() {
    let mut rig = Rig::known(Config::default(), 1);
    rig.scheduler.observe_size(SizeBucket(6), 1, Duration::from_millis(50));
    assert_eq!(rig.refusal(0, sized(5, due(0, 10_000))).0, Refusal::TimeoutTooShort);
    rig.arrive(0, [sized(1, due(1, 10_000))]);
    assert!(rig.actions.is_empty(), "{:?}", rig.actions);
}

#[test]
fn no_run_is_unusually_long_while_a_size_was_never_run() {
    let mut rig = Rig::known(Config::default(), 1);
    assert_eq!(rig.scheduler.stall_limit(1), Some(Duration::from_secs(1)));
    rig.arrive(0, [sized(9, arrival(0))]);
    assert_eq!(rig.scheduler.stall_limit(1), None);
    rig.decide(0);
    rig.finished(60_000, 0, 60_000);
    assert!((1.2..2.5).contains(&rig.scheduler.stall_limit(1).unwrap().as_secs_f64()));
}

#[test]
fn a_backlog_of_long_requests_makes_a_short_one_late_that_one_of_short_ones_would_not() {
    for (size, refused) in [(0, false), (5, true)] {
        let mut rig = Rig::known(Config { batch_rows_max: 8, ..Config::default() }, 1);
        (0..9).for_each(|_| rig.scheduler.observe_size(SizeBucket(5), 8, Duration::from_millis(30)));
        rig.arrive(0, (0..40).map(|id| Arrival { priority: Priority(0), ..sized(size, arrival(id)) }));
        rig.decide(0);
        rig.actions.clear();
        rig.arrive(1, [due(100, 40_000)]);
        assert_eq!(rig.actions.len() == 1, refused, "{:?}", rig.actions);
    }
}

const OBJECTIVE: Objective = Objective { latency: Duration::from_millis(200), quantile: 0.99 };

/// The fraction of each of two sizes that meets the objective; they arrive in equal numbers, the larger takes eight
/// times as long, at `load` of one replica's capacity. Without `known`, the scheduler sees one size.
fn mixed(load: f64, known: bool) -> [f64; 2] {
    let config = Config { objective: Some(OBJECTIVE), ..Config::default() };
    let mut setup = Setup::new(config, |rows, random| {
        Duration::from_micros(1750 + 250 * u64::from(rows)).mul_f64(0.97 + 0.06 * random.unit())
    });
    setup.slowdown = |shape| if shape.0 == 0 { 1.0 } else { 8.0 };
    // Full batches of 32 take 9.75 ms and 78 ms.
    setup.open_loop = Some(Duration::from_secs_f64(87.75e-3 / 64.0 / load));
    setup.stop_at = Time::ZERO + Duration::from_secs(8);
    setup.shape_request = Box::new(move |random: &mut Random, _, arrival| {
        let size = 3 * random.below(2) as u8;
        *arrival = Arrival { size: SizeBucket(if known { size } else { 0 }), ..sized(size, *arrival) };
    });
    let mut world = World::new(setup);
    world.run();
    world.check_rest();
    [0, 3].map(|shape| {
        let of_size = || world.requests.iter().filter(move |request| request.arrival.shape.0 == shape);
        let met = |at, request: &Request| at <= request.at + OBJECTIVE.latency;
        let met = of_size().filter(|request| matches!(request.fate, Fate::Done(at) if met(at, request)));
        met.count() as f64 / of_size().count() as f64
    })
}

#[test]
fn knowing_sizes_lets_more_requests_meet_the_objective() {
    for load in [0.7, 0.8] {
        let (known, unknown) = (mixed(load, true), mixed(load, false));
        assert!(known.iter().all(|met| *met > 0.98), "load {load}: {known:?}");
        assert!(known[0] > unknown[0] && known[1] > unknown[1], "load {load}: {known:?} {unknown:?}");
    }
}

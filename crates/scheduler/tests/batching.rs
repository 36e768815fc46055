//! Batch sizes and lingering in simulated time: closed loops settle at full batches, other arrivals don't wait for
//! it.

mod driver;

use std::time::Duration;

use driver::{Setup, World};
use inferd_scheduler::Config;
use inferd_types::Time;

/// A model of 2 ms for the first row that gains from batching, with a little noise.
fn multilayer(rows: u32, random: &mut driver::Random) -> Duration {
    Duration::from_micros(1750 + 250 * u64::from(rows)).mul_f64(0.97 + 0.06 * random.unit())
}

/// A tiny model: some microseconds, for any number of rows.
fn tiny(rows: u32, random: &mut driver::Random) -> Duration {
    Duration::from_nanos(15_000 + 300 * u64::from(rows)).mul_f64(0.9 + 0.3 * random.unit())
}

fn after_warm_up() -> Time {
    Time::ZERO + Duration::from_millis(500)
}

fn closed_loop(callers: usize, replicas: u32, linger: bool) -> World {
    let mut setup = Setup::new(Config { linger, ..Config::default() }, multilayer);
    (setup.callers, setup.replicas) = (callers, replicas);
    let mut world = World::new(setup);
    world.run();
    world.check_rest();
    world
}

#[test]
fn eight_callers_in_closed_loops_settle_at_batches_of_eight() {
    let (on, off) = (closed_loop(8, 1, true), closed_loop(8, 1, false));
    let (with, without) = (on.mean_rows(after_warm_up()), off.mean_rows(after_warm_up()));
    assert!(with >= 7.5, "{with} rows");
    assert!(without < 5.0, "the case that lingering is for does not occur: {without} rows");
    let lingers = on.scheduler.snapshot().lingers as usize;
    assert!((1..=on.batches.len()).contains(&lingers), "{lingers} of {} batches", on.batches.len());
    assert_eq!(off.scheduler.snapshot().lingers, 0);
}

#[test]
fn two_callers_find_each_other_although_only_lone_requests_were_ever_run() {
    let rows = closed_loop(2, 1, true).mean_rows(after_warm_up());
    assert!(rows >= 1.9, "{rows} rows");
}

#[test]
fn sixty_four_callers_settle_at_full_batches() {
    let rows = closed_loop(64, 1, true).mean_rows(after_warm_up());
    assert!(rows >= 30.0, "{rows} rows");
}

#[test]
fn a_number_of_callers_that_is_no_multiple_of_the_largest_batch_settles_near_it() {
    let rows = closed_loop(40, 1, true).mean_rows(after_warm_up());
    assert!(rows >= 28.0, "{rows} rows");
}

#[test]
fn two_replicas_share_sixty_four_callers_in_full_batches() {
    let rows = closed_loop(64, 2, true).mean_rows(after_warm_up());
    assert!(rows >= 30.0, "{rows} rows");
}

#[test]
fn a_lone_caller_is_never_delayed() {
    let world = closed_loop(1, 1, true);
    let longest = *world.latencies(Time::ZERO).last().expect("some were answered");
    assert!(longest <= 2060 + 2 * driver::DOORBELL.as_micros() as u64 + 1, "{longest} µs");
}

#[test]
fn callers_that_return_slowly_share_batches_and_those_that_think_long_delay_none() {
    let run = |think: u64, linger: bool| {
        let mut setup = Setup::new(Config { linger, ..Config::default() }, multilayer);
        (setup.callers, setup.think) = (8, Duration::from_micros(think));
        let mut world = World::new(setup);
        world.run();
        let latencies = world.latencies(after_warm_up());
        (world.mean_rows(after_warm_up()), latencies.len() as f64, latencies[latencies.len() / 2] as f64)
    };
    assert!(run(400, true).0 >= 7.0, "{:?}", run(400, true));
    // Three execution times: a batch that lingers for them would wait in vain.
    let (on, off) = (run(10_000, true), run(10_000, false));
    assert!(on.1 >= 0.97 * off.1 && on.2 <= 1.03 * off.2, "{on:?} {off:?}");
}

fn poisson(load: f64, linger: bool, seed: u64, model: fn(u32, &mut driver::Random) -> Duration) -> World {
    let alone = model(1, &mut driver::Random(7)).as_secs_f64();
    let mut setup = Setup::new(Config { linger, ..Config::default() }, model);
    setup.open_loop = Some(Duration::from_secs_f64(alone / load));
    setup.seed = seed;
    setup.stop_at = Time::ZERO + Duration::from_secs_f64(alone * 10_000.0);
    let mut world = World::new(setup);
    world.run();
    world.check_rest();
    world
}

#[test]
fn arrivals_of_a_poisson_process_wait_no_longer_for_lingering_being_on() {
    for model in [multilayer, tiny] {
        for load in [0.3, 0.7, 2.0] {
            let world = |linger| {
                let world = poisson(load, linger, 3, model);
                let latencies = world.latencies(Time::ZERO);
                (latencies[latencies.len() / 2] as f64, world)
            };
            let ((on, with), (off, _)) = (world(true), world(false));
            assert!(on <= 1.03 * off, "load {load}: {on} µs with, {off} µs without");
            let (lingers, batches) = (with.scheduler.snapshot().lingers, with.batches.len());
            assert!(lingers * 100 <= batches as u64, "load {load}: {lingers} of {batches} batches");
        }
    }
}

#[test]
fn a_tiny_model_keeps_its_replica_busy_by_a_second_staged_batch() {
    let mut setup = Setup::new(Config::default(), tiny);
    setup.callers = 64;
    setup.stop_at = Time::ZERO + Duration::from_millis(200);
    let mut world = World::new(setup);
    world.run();
    world.check_rest();
    // Without a second batch each would be followed by two doorbells of 30 µs.
    let per_second = world.batches.len() as f64 / 0.2;
    assert!(per_second > 14_000.0, "{per_second} batches a second of {} rows", world.mean_rows(Time::ZERO));
}

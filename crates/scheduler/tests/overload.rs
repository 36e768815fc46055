//! Overload: admitted requests meet their objective, and the rate of those does not fall.

mod driver;

use std::time::Duration;

use driver::{Fate, Setup, World};
use inferd_scheduler::{Config, Objective, Refusal};
use inferd_types::Time;

/// Rows per second of full batches: 32 in 9.75 ms.
const CAPACITY: f64 = 3282.0;

struct Seen {
    /// Requests per second.
    met: f64,
    /// As a fraction of successful responses.
    share: f64,
}

fn overload(rate: f64, within: Duration, hard: bool, bursty: bool) -> Seen {
    stray(0.03, rate, within, hard, bursty)
}

/// The same with executions that deviate from their mean by up to this fraction of it.
fn stray(part: f64, rate: f64, within: Duration, hard: bool, bursty: bool) -> Seen {
    let objective = Objective { latency: within, quantile: 0.99 };
    let config = Config { objective: (!hard).then_some(objective), ..Config::default() };
    let mut setup = Setup::new(config, move |rows, random| {
        let stray = 1.0 - part + 2.0 * part * random.unit();
        Duration::from_micros(1750 + 250 * u64::from(rows)).mul_f64(stray)
    });
    setup.open_loop = Some(Duration::from_secs_f64(1.0 / rate));
    setup.stop_at = Time::ZERO + Duration::from_secs(3);
    setup.bursty = bursty;
    setup.shape_request = Box::new(move |_, now, arrival| arrival.timeout = hard.then_some(now + within));
    let mut world = World::new(setup);
    world.run();
    world.check_rest();
    let from = Time::ZERO + Duration::from_secs(1);
    let done = world.latencies(from);
    let met = done.iter().filter(|micros| **micros <= within.as_micros() as u64).count() as f64;
    Seen { met: met / 2.0, share: met / done.len() as f64 }
}

#[test]
fn the_rate_within_the_objective_does_not_fall_under_an_overload() {
    for hard in [false, true] {
        for bursty in [false, true] {
            for rate in [2.0 * CAPACITY, 4.0 * CAPACITY] {
                let seen = overload(rate, Duration::from_millis(25), hard, bursty);
                assert!(seen.met > 0.9 * CAPACITY, "hard {hard} bursty {bursty}: {} a second", seen.met);
                assert!(seen.share > 0.98, "hard {hard} bursty {bursty}: {}", seen.share);
            }
        }
    }
}

/// If a batch size that was lucky once counted as the fastest, batches would stay small: 0.6 of the capacity.
#[test]
fn a_model_whose_times_stray_widely_is_used_nearly_in_full_all_the_same() {
    for hard in [false, true] {
        let seen = stray(0.5, 2.0 * CAPACITY, Duration::from_millis(25), hard, false);
        assert!(seen.met > 0.85 * CAPACITY && seen.share > 0.97, "hard {hard}: {} {}", seen.met, seen.share);
    }
}

#[test]
fn a_tight_objective_is_held_with_smaller_batches() {
    for hard in [false, true] {
        let seen = overload(2.0 * CAPACITY, Duration::from_millis(10), hard, false);
        assert!(seen.met > 2000.0 && seen.share > 0.97, "hard {hard}: {} a second, {}", seen.met, seen.share);
    }
}

#[test]
fn next_to_nothing_is_refused_below_capacity() {
    for hard in [false, true] {
        let rate = 0.8 * CAPACITY;
        let seen = overload(rate, Duration::from_millis(25), hard, false);
        assert!(seen.met > 0.96 * rate, "hard {hard}: {} a second", seen.met);
    }
}

/// An admitted request without a timeout is answered, late or not.
#[test]
fn an_objective_that_is_missed_still_gives_an_answer() {
    let objective = Objective { latency: Duration::from_millis(8), quantile: 0.9 };
    let mut setup = Setup::new(Config { objective: Some(objective), ..Config::default() }, |rows, random| {
        Duration::from_micros(1750 + 250 * u64::from(rows)).mul_f64(0.5 + 2.0 * random.unit())
    });
    setup.open_loop = Some(Duration::from_micros(700));
    let mut world = World::new(setup);
    world.run();
    world.check_rest();
    assert!(world.scheduler.snapshot().objective_missed > 0);
    assert!(world.requests.iter().all(|request| match request.fate {
        Fate::Done(_) => true,
        // Refused at admission, or after it has waited four objectives.
        Fate::Answered(Refusal::WaitedTooLong, at) => at.since(request.at) >= Duration::from_millis(32),
        Fate::Answered(_, at) => at == request.at,
        _ => false,
    }));
}

/// A model that slows down to a fifth once its plan is known: earlier requests can no longer be met, and new ones
/// keep all replicas busy. No request waits for the end of the load.
#[test]
fn a_demoted_request_is_refused_once_it_has_waited_several_times_its_objective() {
    let within = Duration::from_millis(25);
    let config =
        Config { objective: Some(Objective { latency: within, quantile: 0.99 }), ..Config::default() };
    let late_wait = config.late_wait;
    let mut setup = Setup::new(config, |rows, random| {
        let stray = if random.unit() < 0.02 { 8.0 } else { 1.0 };
        Duration::from_micros(1750 + 250 * u64::from(rows)).mul_f64(stray)
    });
    setup.open_loop = Some(Duration::from_secs_f64(1.0 / (5.0 * CAPACITY)));
    setup.stop_at = Time::ZERO + Duration::from_secs(6);
    let mut world = World::new(setup);
    world.run();
    world.check_rest();
    let longest = within.mul_f64(late_wait) + Duration::from_millis(100);
    let mut refused = 0;
    for request in &world.requests {
        match request.fate {
            Fate::Done(at) => assert!(at.since(request.at) <= longest, "{request:?}"),
            Fate::Answered(reason, at) => {
                assert!(at.since(request.at) <= longest, "{request:?}");
                refused += usize::from(reason == Refusal::WaitedTooLong);
            }
            _ => panic!("no answer: {request:?}"),
        }
    }
    assert!(refused > 0);
}

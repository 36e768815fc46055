//! Deterministic simulation: millions of requests through whole lives of a model, every fault there is, every rule
//! checked at each step.
//!
//! Reads seeds; a seed fixes the model, its load and its faults, and replays exactly. Knows nothing of how the
//! scheduler decides: what is checked here is what callers, replicas and memory can see.
//!
//! `INFERD_TEST_REQUESTS=10000000 cargo test -p inferd-scheduler --test deterministic` runs more of them;
//! `INFERD_TEST_SEED=17` runs the one life that failed.

mod carry;
mod faults;
mod ledger;
mod scenario;
mod world;

use scenario::{REQUESTS, Scenario};
use world::World;

/// What an ordinary run of the tests spends: some seconds.
const USUAL: u64 = 3_000_000;

/// Says which seed failed, whatever it failed by.
struct Blame(u64);

impl Drop for Blame {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {} failed; INFERD_TEST_SEED={} runs it again", self.0, self.0);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a test runs is no setting of the product")]
fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is '{value}'; set it to a number, or not at all")))
}

/// Lives one life to its end.
fn live(seed: u64) -> World {
    let _blame = Blame(seed);
    let mut world = World::new(Scenario::of(seed));
    world.run();
    world.ledger.check_rest(&world.scheduler, world.replicas_ready());
    world
}

#[test]
fn every_request_ends_exactly_once_and_nothing_is_lost_whatever_happens() {
    if let Some(seed) = number("INFERD_TEST_SEED") {
        live(seed);
        return;
    }
    let lives = number("INFERD_TEST_REQUESTS").unwrap_or(USUAL).div_ceil(REQUESTS);
    let (mut batches, mut copies) = (0, 0);
    for seed in 0..lives {
        let world = live(seed);
        (batches, copies) = (batches + world.batches, copies + world.copies);
    }
    eprintln!("{lives} lives, {} requests, {batches} batches, {copies} copies", lives * REQUESTS);
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 1_000_003, u64::MAX] {
        assert_eq!(live(seed).ledger.digest(), live(seed).ledger.digest());
    }
}

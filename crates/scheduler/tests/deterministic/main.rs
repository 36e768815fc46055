//! Deterministic simulation: millions of requests over many simulated runs of a model, with all faults, every rule
//! checked at each step.
//!
//! Reads seeds; a seed determines the model, its load and its faults, and replays exactly. Does not know how the
//! scheduler decides: it checks what callers, replicas and memory can observe.
//!
//! `INFERD_TEST_REQUESTS=10000000 cargo test -p inferd-scheduler --test deterministic` runs more of them;
//! `INFERD_TEST_SEED=17` replays one run.

mod actions;
mod faults;
mod ledger;
mod scenario;
mod world;

use scenario::{REQUESTS, Scenario};
use world::World;

/// Requests of an ordinary test run: a few seconds.
const USUAL: u64 = 3_000_000;

/// Prints the seed if its run fails.
struct SeedReport(u64);

impl Drop for SeedReport {
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

/// Runs one seed to its end.
fn run_seed(seed: u64) -> World {
    let _report = SeedReport(seed);
    let mut world = World::new(Scenario::of(seed));
    world.run();
    world.ledger.check_rest(&world.scheduler, world.replicas_ready());
    world
}

#[test]
fn every_request_ends_exactly_once_and_nothing_is_lost_whatever_happens() {
    if let Some(seed) = number("INFERD_TEST_SEED") {
        run_seed(seed);
        return;
    }
    let runs = number("INFERD_TEST_REQUESTS").unwrap_or(USUAL).div_ceil(REQUESTS);
    let (mut batches, mut copies) = (0, 0);
    for seed in 0..runs {
        let world = run_seed(seed);
        (batches, copies) = (batches + world.batches, copies + world.copies);
    }
    eprintln!("{runs} runs, {} requests, {batches} batches, {copies} copies", runs * REQUESTS);
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 1_000_003, u64::MAX] {
        assert_eq!(run_seed(seed).ledger.digest(), run_seed(seed).ledger.digest());
    }
}

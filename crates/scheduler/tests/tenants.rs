//! Tenants of one class: they take turns by weight, and a burst delays only its own tenant.

mod driver;
mod rig;

use std::time::Duration;

use driver::{Fate, Random, Request, Setup, World};
use inferd_scheduler::{Arrival, Config, Event, Objective, Refusal, Room};
use inferd_types::{ReplicaId, Tenant, Time};
use rig::{Rig, arrival, due};

/// Rows per second of full batches: 32 in 9.75 ms.
const CAPACITY: f64 = 3282.0;
const OBJECTIVE: Duration = Duration::from_millis(25);

fn of(tenant: u32, weight: u32, arrival: Arrival) -> Arrival {
    Arrival { tenant: Tenant { id: tenant, weight }, ..arrival }
}

#[test]
fn tenants_take_turns_by_weight_and_each_runs_its_earliest_deadline_first() {
    let mut rig = Rig::new(Config { batch_rows_max: 8, ..Config::default() }, 0);
    rig.arrive(0, (0..20).map(|id| of(1, 1, due(id, 90_000 - id))));
    rig.arrive(0, (20..40).map(|id| of(2, 3, due(id, 900_000 - id))));
    rig.send(1, Event::ReplicaReady(ReplicaId(0), Room::default()));
    assert_eq!(rig.decide(1)[0], "stage 0 on 0: 19 39 38 37 18 36 35 34");
}

#[test]
fn a_full_queue_of_one_tenant_has_room_for_another() {
    let mut rig = Rig::new(Config { queue_rows_max: 100, ..Config::default() }, 0);
    rig.arrive(0, (0..50).map(|id| of(1, 1, arrival(id))));
    assert!(rig.actions.is_empty());
    assert_eq!(rig.refusal(0, of(1, 1, arrival(90))).0, Refusal::QueueRows);
    rig.arrive(0, (100..125).map(|id| of(2, 1, arrival(id))));
    assert!(rig.actions.is_empty());
    assert_eq!(rig.refusal(0, of(2, 1, arrival(190))).0, Refusal::QueueRows);
    rig.arrive(0, [of(3, 1, arrival(200))]);
    assert!(rig.actions.is_empty());
}

/// Tenant 1 sends `rate[0]` of one replica's capacity, tenant 2 `rate[1]`, and so on.
fn shared(rates: &[f64], weights: &'static [u32], objective: Option<Objective>) -> World {
    let config = Config { objective, queue_rows_max: 2000, ..Config::default() };
    let mut setup = Setup::new(config, |rows, random| {
        Duration::from_micros(1750 + 250 * u64::from(rows)).mul_f64(0.97 + 0.06 * random.unit())
    });
    let total: f64 = rates.iter().sum();
    setup.open_loop = Some(Duration::from_secs_f64(1.0 / (total * CAPACITY)));
    setup.stop_at = Time::ZERO + Duration::from_secs(3);
    let rates = rates.to_vec();
    setup.shape_request = Box::new(move |random: &mut Random, _, arrival| {
        let mut left = random.unit() * total;
        let at = rates.iter().position(|rate| {
            left -= rate;
            left < 0.0
        });
        let at = at.unwrap_or(0);
        arrival.tenant = Tenant { id: 1 + at as u32, weight: weights[at] };
    });
    let mut world = World::new(setup);
    world.run();
    world.check_rest();
    world
}

fn settled(world: &World, tenant: u32) -> impl Iterator<Item = &Request> {
    let from = Time::ZERO + Duration::from_secs(1);
    world.requests.iter().filter(move |request| request.at >= from && request.arrival.tenant.id == tenant)
}

/// The fraction of a tenant's requests that met the objective.
fn met(world: &World, tenant: u32) -> f64 {
    let met = |request: &&Request| matches!(request.fate, Fate::Done(at) if at <= request.at + OBJECTIVE);
    settled(world, tenant).filter(met).count() as f64 / settled(world, tenant).count() as f64
}

fn done(world: &World, tenant: u32) -> f64 {
    settled(world, tenant).filter(|request| matches!(request.fate, Fate::Done(_))).count() as f64
}

const WITHIN: Option<Objective> = Some(Objective { latency: OBJECTIVE, quantile: 0.99 });

#[test]
fn a_flood_of_one_tenant_costs_that_tenant_alone() {
    let world = shared(&[3.0, 0.2, 0.2], &[1, 1, 1], WITHIN);
    let (flood, quiet, other) = (met(&world, 1), met(&world, 2), met(&world, 3));
    assert!(quiet > 0.98 && other > 0.98, "{flood} {quiet} {other}");
    let total: f64 = (1..4).map(|tenant| met(&world, tenant) * settled(&world, tenant).count() as f64).sum();
    assert!(total / 2.0 > 0.9 * CAPACITY, "{total}");
}

#[test]
fn under_overload_tenants_get_what_their_weights_say_however_much_each_sends() {
    for objective in [WITHIN, None] {
        for (rates, weights, expected) in
            [([2.0, 2.0], &[3, 1], 3.0), ([2.0, 2.0], &[1, 1], 1.0), ([3.0, 1.0], &[1, 1], 1.0)]
        {
            let world = shared(&rates, weights, objective);
            let ratio = done(&world, 1) / done(&world, 2) / expected;
            assert!((0.9..1.1).contains(&ratio), "{objective:?} {rates:?} {weights:?}: {ratio}");
            let total = (done(&world, 1) + done(&world, 2)) / 2.0;
            assert!(total > 0.95 * CAPACITY, "{objective:?} {rates:?} {weights:?}: {total}");
        }
    }
}

#[test]
fn what_one_tenant_leaves_the_others_take() {
    let world = shared(&[0.1, 2.0, 2.0], &[8, 1, 1], WITHIN);
    assert!(met(&world, 1) > 0.98, "{}", met(&world, 1));
    let ratio = done(&world, 2) / done(&world, 3);
    assert!((0.85..1.18).contains(&ratio), "{ratio}");
    let total: f64 = (1..4).map(|tenant| done(&world, tenant)).sum();
    assert!(total / 2.0 > 0.9 * CAPACITY, "{total}");
}

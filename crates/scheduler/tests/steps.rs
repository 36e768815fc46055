//! Steps of pipelines, requests in parts, published batch rules, and estimates for new requests.

mod rig;

use std::time::Duration;

use inferd_scheduler::{Arrival, BatchRule, Config, Event, Objective, Occupied, Refusal, Room};
use inferd_types::{BatchId, Due, ReplicaId};
use rig::{REPLICA, Rig, arrival, at, due};

fn step(request: u64, by: u64) -> Arrival {
    Arrival { due: Due::At(at(by)), ..arrival(request) }
}

fn objective(millis: u64) -> Option<Objective> {
    Some(Objective { latency: Duration::from_millis(millis), quantile: 0.99 })
}

#[test]
fn steps_run_by_the_time_that_they_are_due_and_those_never_due_run_last() {
    let mut rig = Rig::known(Config { batch_rows_max: 2, ..Config::default() }, 1);
    let never = Arrival { due: Due::Never, ..arrival(0) };
    rig.arrive(0, [never, step(1, 90_000), step(2, 50_000), step(3, 70_000)]);
    assert_eq!(rig.decide(0), ["stage 0 on 0: 2 3", "stage 1 on 0: 1 0"]);
}

#[test]
fn a_step_is_not_refused_for_being_predicted_late_but_a_request_of_the_model_is() {
    let mut rig = Rig::known(Config { objective: objective(20), batch_rows_max: 2, ..Config::default() }, 1);
    rig.arrive(0, (0..12).map(arrival));
    rig.decide(0);
    rig.actions.clear();
    rig.arrive(1, [step(100, 3000), Arrival { due: Due::Never, ..due(101, 3000) }]);
    assert!(rig.actions.is_empty(), "{:?}", rig.actions);
    assert_eq!(rig.refusal(1, due(102, 3000)).0, Refusal::PredictedLate);
}

#[test]
fn a_late_step_is_demoted_behind_the_others_and_still_runs() {
    let mut rig = Rig::known(Config { batch_rows_max: 2, ..Config::default() }, 1);
    rig.arrive(10_000, [step(0, 9_000), step(1, 90_000), step(2, 90_000)]);
    assert_eq!(rig.decide(10_000), ["stage 0 on 0: 1 2", "stage 1 on 0: 0"]);
    let snapshot = rig.scheduler.snapshot();
    assert_eq!((snapshot.demoted, snapshot.refusals.len()), (1, 0));
}

#[test]
fn a_step_that_finishes_after_its_time_counts_as_a_miss() {
    let mut rig = Rig::new(Config::default(), 1);
    rig.arrive(0, [step(0, 500), step(1, 5000)]);
    rig.decide(0);
    rig.finished(1000, 0, 900);
    assert_eq!(rig.scheduler.snapshot().objective_missed, 1);
}

fn parts(first: u64, count: u64, rows: u32) -> Event {
    Event::ArrivedInParts((first..first + count).map(|id| Arrival { rows, ..arrival(id) }).collect())
}

#[test]
fn a_request_in_parts_is_taken_whole_and_spread_over_the_replicas() {
    let mut rig = Rig::known(Config { batch_rows_max: 8, ..Config::default() }, 2);
    rig.send(0, parts(0, 3, 8));
    assert_eq!(rig.decide(0), ["stage 0 on 0: 0", "stage 1 on 1: 1", "stage 2 on 0: 2"]);
    assert_eq!(rig.scheduler.snapshot().arrivals, 1);
}

#[test]
fn a_request_in_parts_is_refused_once_in_the_name_of_the_first_for_the_rows_of_all() {
    let mut rig = Rig::new(Config { queue_rows_max: 20, ..Config::default() }, 0);
    rig.arrive(0, [arrival(0)]);
    rig.send(0, parts(10, 3, 8));
    assert_eq!(rig.decide(0), ["answer 10: queue_rows"]);
    rig.send(1, parts(20, 2, 8));
    assert_eq!(rig.decide(1), [""; 0]);
    assert_eq!(rig.scheduler.snapshot().queue_rows, 17);
}

#[test]
fn the_last_part_decides_whether_a_request_in_parts_would_be_late() {
    let in_parts = |first: u64, count: u64| {
        let part = |id| Arrival { rows: 8, timeout: Some(at(40_000)), ..arrival(id) };
        Event::ArrivedInParts((first..first + count).map(part).collect())
    };
    let mut rig = Rig::known(Config { batch_rows_max: 8, ..Config::default() }, 1);
    rig.arrive(0, (0..80).map(|id| due(id, 39_000)));
    rig.decide(0);
    rig.actions.clear();
    // Eighty rows take ten batches of 1.8 ms; five more batches are in time, fourteen are only if they are alone.
    rig.send(1, in_parts(100, 5));
    assert_eq!(rig.actions.len(), 0);
    rig.send(1, in_parts(200, 14));
    assert_eq!(rig.decide(1)[0], "answer 200: predicted_late");
    let mut idle = Rig::known(Config { batch_rows_max: 8, ..Config::default() }, 1);
    idle.send(1, in_parts(200, 14));
    assert_eq!(idle.actions.len(), 0);
    idle.send(1, in_parts(300, 30));
    assert_eq!(idle.decide(1)[0], "answer 300: timeout_too_short");
}

fn rule(batch_rule: BatchRule) -> Rig {
    Rig::known(Config { batch_rule, objective: objective(10), ..Config::default() }, 1)
}

#[test]
fn published_rules_run_as_many_as_they_say_in_the_order_of_deadlines_and_stage_nothing_behind() {
    for (batch_rule, expected) in [
        (BatchRule::One, "stage 0 on 0: 9"),
        (BatchRule::Fixed(3), "stage 0 on 0: 9 8 7"),
        (BatchRule::Fixed(30), "stage 0 on 0: 9 8 7 6 5 4 3 2 1 0"),
        // The first has 1,500 µs: 1 ms and 100 µs per row.
        (BatchRule::LargestThatFits, "stage 0 on 0: 9 8 7 6 5"),
    ] {
        let mut rig = rule(batch_rule);
        rig.arrive(0, (0..10).map(|id| step(id, 1500 + 1000 * (9 - id))));
        assert_eq!(rig.decide(0), [expected], "{batch_rule:?}");
    }
}

#[test]
fn published_rules_refuse_and_demote_nothing_for_lateness() {
    let mut rig = rule(BatchRule::LargestThatFits);
    rig.arrive(0, (0..100).map(arrival));
    rig.decide(0);
    // The head can't be met: as published, it has all the time that it had on arrival.
    rig.finished(50_000, 0, 4200);
    let staged = rig.decide(50_000);
    assert_eq!(staged[0].split_whitespace().count(), 4 + 32, "{staged:?}");
    assert!(rig.scheduler.snapshot().refusals.is_empty());
    assert_eq!(rig.scheduler.snapshot().demoted, 0);
}

#[test]
fn published_rules_still_drop_what_is_past_its_timeout() {
    let mut rig = rule(BatchRule::One);
    rig.arrive(0, [due(0, 90_000), due(1, 5_000)]);
    assert_eq!(rig.decide(0)[0], "stage 0 on 0: 1");
    rig.arrive(1, [due(2, 4_000)]);
    assert_eq!(rig.decide(4_500)[0], "answer 2: timed_out");
}

#[test]
fn the_estimate_is_the_wait_for_what_runs_and_waits_and_then_a_batch_of_the_recent_size() {
    let mut rig = Rig::known(Config { batch_rows_max: 8, linger: false, ..Config::default() }, 1);
    let idle = rig.scheduler.estimate(at(0));
    assert_eq!((idle.queueing, idle.rows, idle.waiting), (Duration::ZERO, 1, 0));
    assert_eq!((idle.mean, idle.rows_max), (Duration::from_micros(1100), 8));
    rig.arrive(0, (0..24).map(arrival));
    rig.decide(0);
    // Eight rows run for 1,800 µs, sixteen are queued (eight of them staged and still open).
    let busy = rig.scheduler.estimate(at(0));
    assert_eq!((busy.rows, busy.waiting), (8, 16));
    assert_eq!(busy.queueing.as_micros(), 5400);
    assert!(busy.high > busy.mean && busy.mean == Duration::from_micros(1800));
    rig.taken(0, 0);
    rig.finished(1800, 0, 1800);
    assert_eq!(rig.scheduler.estimate(at(1800)).rows, 8);
}

#[test]
fn a_busy_replica_delays_no_request_while_another_is_idle() {
    let mut rig = Rig::known(Config::default(), 1);
    rig.arrive(0, [arrival(0)]);
    rig.decide(0);
    assert_eq!(rig.scheduler.estimate(at(0)).queueing, Duration::from_micros(1100));
    assert_eq!(rig.scheduler.estimate(at(600)).queueing, Duration::from_micros(500));
    rig.send(1, Event::ReplicaReady(ReplicaId(1), Room::default()));
    assert_eq!(rig.scheduler.estimate(at(1)).queueing, Duration::ZERO);
    rig.send(2, Event::ReplicaLost(REPLICA));
    assert_eq!(rig.scheduler.estimate(at(2)).queueing, Duration::ZERO);
}

#[test]
fn replicas_are_occupied_once_each_runs_something_of_known_length() {
    let mut rig = Rig::known(Config::default(), 2);
    assert_eq!(rig.scheduler.occupied(), None);
    rig.arrive(0, [arrival(0)]);
    rig.decide(0);
    rig.taken(100, 0);
    assert_eq!(rig.scheduler.occupied(), None, "the other is idle");
    rig.arrive(200, [arrival(1)]);
    rig.decide(200);
    assert_eq!(rig.scheduler.occupied(), None, "the other has not begun");
    rig.send(300, Event::Taken { replica: ReplicaId(1), batch: BatchId(1) });
    let run = Duration::from_micros(1100);
    assert_eq!(rig.scheduler.occupied(), Some(Occupied { replicas: 2, ends: at(1200), shortest: run }));
    rig.send(400, Event::ReplicaLost(REPLICA));
    assert_eq!(rig.scheduler.occupied(), Some(Occupied { replicas: 1, ends: at(1400), shortest: run }));
    rig.send(500, Event::DrainReplica(ReplicaId(1)));
    assert_eq!(rig.scheduler.occupied(), None, "none is left to wait for");
}

#[test]
fn nothing_is_sealed_behind_a_long_batch_until_it_is_about_to_end() {
    let profile = vec![(1, Duration::from_millis(500)), (2, Duration::from_millis(600))];
    let mut rig = Rig::new(Config { batch_rows_max: 2, profile, ..Config::default() }, 1);
    rig.arrive(0, [arrival(0)]);
    rig.decide(0);
    rig.arrive(1000, [step(1, 5_000_000), step(2, 5_000_000)]);
    assert_eq!(rig.decide(1000), ["wake at 450000"]);
    // A more urgent arrival meanwhile is in the next batch.
    rig.arrive(400_000, [step(3, 2_000_000)]);
    assert_eq!(rig.decide(400_000), ["wake at 450000"]);
    assert_eq!(rig.decide(450_000), ["stage 1 on 0: 3 1"]);
}

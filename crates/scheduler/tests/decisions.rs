//! Single decisions, one event at a time.

mod rig;

use std::time::Duration;

use inferd_scheduler::{Arrival, Config, Event, Objective, Refusal, Room, Scheduler, ShapeKey};
use inferd_types::{BatchId, ErrorKind, Priority, ReplicaId, RequestId};
use rig::{REPLICA, Rig, arrival, due};

#[test]
fn a_lone_request_on_an_idle_replica_goes_at_once() {
    let mut rig = Rig::new(Config::default(), 1);
    rig.arrive(10, [arrival(0)]);
    assert_eq!(rig.decide(10), ["stage 0 on 0: 0"]);
}

#[test]
fn what_comes_together_runs_together_up_to_the_limit() {
    let mut rig = Rig::new(Config { batch_rows_max: 3, ..Config::default() }, 1);
    rig.arrive(0, (0..5).map(arrival));
    assert_eq!(rig.decide(0), ["stage 0 on 0: 0 1 2", "stage 1 on 0: 3 4"]);
}

#[test]
fn new_requests_join_the_staged_batch_until_it_is_taken() {
    let mut rig = Rig::new(Config { batch_rows_max: 4, ..Config::default() }, 1);
    rig.arrive(0, [arrival(0)]);
    rig.decide(0);
    rig.taken(1, 0);
    rig.arrive(2, [arrival(1)]);
    assert_eq!(rig.decide(2), ["stage 1 on 0: 1"]);
    rig.arrive(3, [arrival(2)]);
    assert_eq!(rig.decide(3), ["append to 1: 2"]);
    rig.finished(100, 0, 99);
    rig.taken(100, 1);
    rig.arrive(101, [arrival(3)]);
    assert_eq!(rig.decide(101), ["stage 2 on 0: 3"]);
}

#[test]
fn an_append_that_was_refused_is_not_tried_again_and_its_request_keeps_its_place() {
    let mut rig = Rig::new(Config::default(), 1);
    rig.arrive(0, [arrival(0)]);
    rig.decide(0);
    rig.arrive(1, [arrival(1)]);
    rig.decide(1);
    rig.arrive(2, [arrival(2)]);
    assert_eq!(rig.decide(2), ["append to 1: 2"]);
    rig.arrive(3, [arrival(3)]);
    rig.send(3, Event::Returned { requests: vec![RequestId(2)] });
    assert_eq!(rig.decide(3), [""; 0]);
    rig.finished(9, 0, 9);
    rig.taken(9, 1);
    assert_eq!(rig.decide(9), ["stage 2 on 0: 2 3"]);
}

#[test]
fn different_shapes_never_share_a_batch_and_a_large_request_runs_alone() {
    let mut rig = Rig::new(Config { batch_rows_max: 8, ..Config::default() }, 3);
    let other = Arrival { shape: ShapeKey(1), ..arrival(1) };
    rig.arrive(0, [arrival(0), other, arrival(2), Arrival { rows: 100, shape: ShapeKey(2), ..arrival(3) }]);
    assert_eq!(rig.decide(0), ["stage 0 on 0: 0 2", "stage 1 on 1: 1", "stage 2 on 2: 3"]);
}

#[test]
fn a_model_without_batching_runs_one_request_at_a_time_and_stages_the_next() {
    let mut rig = Rig::new(Config { batched: false, ..Config::default() }, 1);
    rig.arrive(0, (0..3).map(arrival));
    assert_eq!(rig.decide(0), ["stage 0 on 0: 0", "stage 1 on 0: 1"]);
}

#[test]
fn better_classes_and_earlier_deadlines_go_first() {
    let mut rig = Rig::new(Config { batch_rows_max: 2, ..Config::default() }, 2);
    let urgent = Arrival { priority: Priority(0), ..arrival(3) };
    rig.arrive(0, [arrival(0), due(1, 90_000), due(2, 50_000), urgent]);
    assert_eq!(rig.decide(0)[..2], ["stage 0 on 0: 3 2", "stage 1 on 1: 1 0"]);
}

#[test]
fn a_batch_is_no_larger_than_its_tightest_deadline_allows() {
    let mut rig = Rig::known(Config::default(), 1);
    // 1,800 µs and the spread allow four or five rows.
    rig.arrive(0, (0..4).map(|id| due(id, 2200)).chain((4..12).map(|id| due(id, 90_000))));
    let staged = rig.decide(0)[0].split_whitespace().count() - 4;
    assert!((4..=6).contains(&staged), "{staged} rows");
}

#[test]
fn a_timeout_shorter_than_the_model_takes_is_refused_without_a_retry_hint() {
    let mut rig = Rig::known(Config::default(), 1);
    let (reason, error) = rig.refusal(0, due(0, 500));
    assert_eq!((reason, error.kind()), (Refusal::TimeoutTooShort, ErrorKind::DeadlineMissed));
    assert_eq!(error.retry_after(), None);
    assert!(error.message().contains("raise it to at least"), "{error}");
}

#[test]
fn after_a_while_without_runs_a_short_timeout_is_tried_all_the_same() {
    let mut rig = Rig::known(Config::default(), 1);
    rig.arrive(400_000, [due(0, 400_500)]);
    assert_eq!(rig.decide(400_000)[0], "stage 0 on 0: 0");
}

#[test]
fn what_the_backlog_makes_late_is_refused_at_admission_with_the_time_to_drain() {
    let mut rig = Rig::known(Config::default(), 1);
    rig.arrive(0, (0..128).map(arrival));
    rig.decide(0);
    // Two batches of 4.2 ms are staged, two are queued: its deadline orders it before those without one.
    rig.arrive(1, [due(900, 20_000)]);
    assert!(rig.actions.is_empty());
    let (reason, error) = rig.refusal(1, due(901, 9_000));
    assert_eq!((reason, error.kind()), (Refusal::PredictedLate, ErrorKind::Overloaded));
    let drain = error.retry_after().expect("it is worth trying again").as_micros();
    assert!((15_000..19_000).contains(&drain), "{drain} µs");
}

#[test]
fn pauses_between_runs_delay_queued_requests_too() {
    let admitted = |pause: u64| {
        let objective = Objective { latency: Duration::from_millis(25), quantile: 0.99 };
        let mut rig =
            Rig::known(Config { batched: false, objective: Some(objective), ..Config::default() }, 1);
        rig.arrive(0, [arrival(0), arrival(1)]);
        rig.decide(0);
        let mut now = 0;
        for run in 0..200 {
            // One batch is always staged behind the running one.
            now += if run == 0 { 1100 } else { pause + 1100 };
            rig.finished(now, run, 1100);
            rig.taken(now, run + 1);
            rig.arrive(now, [arrival(run + 2)]);
            rig.decide(now);
        }
        let newcomers = (1000..).map(|request| {
            rig.arrive(now, [arrival(request)]);
            rig.actions.is_empty()
        });
        newcomers.take_while(|admitted| *admitted).count()
    };
    assert!((18..=23).contains(&admitted(0)), "{}", admitted(0));
    assert!((8..=12).contains(&admitted(1100)), "{}", admitted(1100));
}

#[test]
fn an_unknown_model_admits_optimistically_and_queues_are_bounded() {
    let config = Config { queue_rows_max: 4, queue_max_bytes: 100, ..Config::default() };
    let mut rig = Rig::new(config, 0);
    rig.arrive(0, (0..4).map(|id| due(id, 10)));
    assert!(rig.actions.is_empty());
    let (reason, error) = rig.refusal(1, arrival(5));
    assert_eq!((reason, error.kind()), (Refusal::QueueRows, ErrorKind::Overloaded));
    assert!(error.retry_after().is_some() && error.message().contains("queue_rows_max"), "{error}");
    rig.send(1, Event::Cancelled(RequestId(0)));
    assert_eq!(rig.refusal(1, Arrival { bytes: 90, ..arrival(6) }).0, Refusal::QueueBytes);
}

#[test]
fn a_request_larger_than_the_queue_is_taken_by_an_empty_one() {
    let mut rig = Rig::new(Config { queue_rows_max: 4, ..Config::default() }, 1);
    rig.arrive(0, [Arrival { rows: 10, ..arrival(0) }]);
    assert_eq!(rig.decide(0), ["stage 0 on 0: 0"]);
}

#[test]
fn without_a_replica_requests_wait_until_one_is_ready_or_their_timeout_passes() {
    let mut rig = Rig::new(Config::default(), 0);
    rig.arrive(0, [due(0, 500), arrival(1)]);
    assert_eq!(rig.decide(0), ["wake at 500"]);
    assert_eq!(rig.decide(500), ["answer 0: timed_out"]);
    rig.send(900, Event::ReplicaReady(REPLICA, Room::default()));
    assert_eq!(rig.decide(900), ["stage 0 on 0: 1"]);
}

#[test]
fn an_objective_that_cannot_be_met_refuses_nothing_and_is_reported() {
    let objective = Objective { latency: Duration::from_micros(100), quantile: 0.99 };
    let mut rig = Rig::known(Config { objective: Some(objective), ..Config::default() }, 1);
    rig.arrive(0, (0..100).map(arrival));
    assert_eq!(rig.decide(0).len(), 2);
    let snapshot = rig.scheduler.snapshot();
    assert!(snapshot.objective_unreachable && snapshot.refusals.is_empty(), "{snapshot:?}");
}

#[test]
fn a_late_head_is_demoted_behind_those_that_can_still_be_met() {
    let objective = Objective { latency: Duration::from_millis(5), quantile: 0.99 };
    let mut rig =
        Rig::known(Config { objective: Some(objective), batch_rows_max: 2, ..Config::default() }, 0);
    rig.arrive(0, [arrival(0)]);
    rig.arrive(4500, [arrival(1), arrival(2)]);
    rig.send(4600, Event::ReplicaReady(REPLICA, Room::default()));
    assert_eq!(rig.decide(4600), ["stage 0 on 0: 1 2", "stage 1 on 0: 0"]);
    assert_eq!(rig.scheduler.snapshot().demoted, 1);
}

#[test]
fn a_cancelled_request_leaves_the_queue_at_once_and_a_staged_batch_by_withdrawal() {
    let mut rig = Rig::new(Config { batch_rows_max: 2, ..Config::default() }, 1);
    rig.arrive(0, (0..5).map(arrival));
    assert_eq!(rig.decide(0), ["stage 0 on 0: 0 1", "stage 1 on 0: 2 3"]);
    rig.taken(1, 0);
    rig.send(2, Event::Cancelled(RequestId(4)));
    rig.send(2, Event::Cancelled(RequestId(0)));
    rig.send(2, Event::Cancelled(RequestId(2)));
    assert_eq!(rig.decide(2), ["withdraw 1"]);
    let back = Event::Withdrawn { replica: REPLICA, batch: BatchId(1), requests: vec![RequestId(3)] };
    rig.send(3, back);
    assert_eq!(rig.decide(3), ["stage 2 on 0: 3"]);
}

#[test]
fn a_batch_that_could_not_be_staged_is_run_one_by_one() {
    let mut rig = Rig::new(Config::default(), 1);
    rig.arrive(0, (0..2).map(arrival));
    assert_eq!(rig.decide(0), ["stage 0 on 0: 0 1"]);
    let requests = vec![RequestId(0), RequestId(1)];
    rig.send(1, Event::Withdrawn { replica: REPLICA, batch: BatchId(0), requests });
    rig.arrive(1, [arrival(2)]);
    assert_eq!(rig.decide(1), ["stage 1 on 0: 0", "stage 2 on 0: 1"]);
    rig.send(2, Event::Removed(RequestId(1)));
    assert_eq!(rig.decide(2), ["stage 3 on 0: 2"]);
}

#[test]
fn the_batches_of_a_lost_replica_go_first_on_another() {
    let mut rig = Rig::new(Config { batch_rows_max: 2, ..Config::default() }, 1);
    rig.arrive(0, (0..6).map(arrival));
    rig.decide(0);
    rig.taken(1, 0);
    rig.send(2, Event::ReplicaLost(REPLICA));
    rig.send(2, Event::Returned { requests: vec![RequestId(3), RequestId(2)] });
    assert_eq!(rig.decide(2), [""; 0]);
    rig.send(3, Event::ReplicaReady(ReplicaId(1), Room::default()));
    assert_eq!(rig.decide(3), ["stage 2 on 1: 2 3", "stage 3 on 1: 4 5"]);
    (0..2).for_each(|id| rig.send(4, Event::Removed(RequestId(id))));
    assert_eq!(rig.scheduler.snapshot().handed_out, 4);
}

#[test]
fn a_draining_replica_gets_nothing_until_it_is_ready_again() {
    let mut rig = Rig::new(Config::default(), 1);
    rig.send(0, Event::DrainReplica(REPLICA));
    rig.arrive(0, [arrival(0)]);
    assert_eq!(rig.decide(0), [""; 0]);
    rig.send(1, Event::ReplicaReady(REPLICA, Room::default()));
    assert_eq!(rig.decide(1), ["stage 0 on 0: 0"]);
}

#[test]
fn a_staged_batch_moves_to_a_replica_that_became_idle() {
    let mut rig = Rig::known(Config { batch_rows_max: 2, ..Config::default() }, 1);
    rig.arrive(0, (0..4).map(arrival));
    rig.decide(0);
    rig.send(1, Event::ReplicaReady(ReplicaId(1), Room::default()));
    assert_eq!(rig.decide(1), ["withdraw 1"]);
    let requests = vec![RequestId(2), RequestId(3)];
    rig.send(2, Event::Withdrawn { replica: REPLICA, batch: BatchId(1), requests });
    assert_eq!(rig.decide(2), ["stage 2 on 1: 2 3"]);
}

#[test]
fn a_stall_is_far_beyond_what_is_usual_and_never_short() {
    let config = Config::default();
    let unknown = Scheduler::new(config.clone());
    assert_eq!(unknown.stall_limit(1), None);
    let fast = Rig::known(config.clone(), 1).scheduler;
    assert_eq!(fast.stall_limit(1), Some(Duration::from_secs(1)));
    let slow = Scheduler::new(Config { profile: vec![(1, Duration::from_millis(100))], ..config });
    let limit = slow.stall_limit(1).unwrap();
    assert!((2.0..4.0).contains(&limit.as_secs_f64()), "{limit:?}");
}

#[test]
fn a_limit_that_is_lowered_holds_from_the_next_batch_on() {
    let mut rig = Rig::new(Config::default(), 1);
    rig.scheduler.limit_batch_rows(2);
    rig.arrive(0, (0..3).map(arrival));
    assert_eq!(rig.decide(0), ["stage 0 on 0: 0 1", "stage 1 on 0: 2"]);
}

#[test]
fn the_snapshot_has_the_curve_the_queue_and_the_batches() {
    let mut rig = Rig::known(Config { batch_rows_max: 4, ..Config::default() }, 1);
    rig.arrive(0, (0..10).map(arrival));
    rig.decide(0);
    rig.taken(1, 0);
    rig.finished(1400, 0, 1400);
    let snapshot = rig.scheduler.snapshot();
    assert_eq!((snapshot.queue_rows, snapshot.handed_out, snapshot.arrivals), (2, 4, 10));
    assert_eq!(snapshot.recent_batches, [(4, 1)]);
    assert_eq!(snapshot.curve.iter().map(|point| point.rows).collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(snapshot.curve[2].samples, 1);
    assert!(snapshot.curve.iter().all(|point| point.high > point.mean));
}

#[test]
fn replicas_that_share_cores_take_turns_and_stand_in_for_each_other() {
    let mut rig = Rig::known(Config { running_max: 1, batch_rows_max: 2, ..Config::default() }, 2);
    rig.arrive(0, (0..2).map(arrival));
    assert_eq!(rig.decide(0), ["stage 0 on 0: 0 1"]);
    rig.taken(0, 0);
    rig.arrive(10, (2..4).map(arrival));
    assert_eq!(rig.decide(10), ["stage 1 on 0: 2 3"]);
    rig.send(20, Event::ReplicaLost(ReplicaId(0)));
    rig.send(20, Event::Returned { requests: vec![RequestId(2), RequestId(3)] });
    assert_eq!(rig.decide(20), ["stage 2 on 1: 2 3"]);
}

#[test]
fn while_batching_is_off_requests_run_whole_and_alone_and_shared_batches_are_withdrawn() {
    let mut rig = Rig::new(Config { batch_rows_max: 8, ..Config::default() }, 1);
    rig.arrive(0, [Arrival { rows: 3, ..arrival(0) }]);
    rig.decide(0);
    rig.taken(1, 0);
    rig.arrive(2, (1..4).map(arrival));
    assert_eq!(rig.decide(2), ["stage 1 on 0: 1 2 3"]);
    let Rig { scheduler, actions } = &mut rig;
    scheduler.set_batching(false, actions);
    assert_eq!(rig.decide(3), ["withdraw 1"]);
    let requests = (1..4).map(RequestId).collect();
    rig.send(4, Event::Withdrawn { replica: REPLICA, batch: BatchId(1), requests });
    assert_eq!(rig.decide(4), ["stage 2 on 0: 1"]);
    rig.arrive(5, [Arrival { rows: 12, ..arrival(4) }]);
    rig.finished(10, 0, 9);
    assert_eq!(rig.decide(10), ["stage 3 on 0: 2"]);
    rig.finished(20, 2, 9);
    rig.finished(30, 3, 9);
    assert_eq!(rig.decide(30), ["stage 4 on 0: 3", "stage 5 on 0: 4"]);
    let Rig { scheduler, actions } = &mut rig;
    scheduler.limit_batch_rows(4);
    scheduler.set_batching(true, actions);
    rig.finished(40, 4, 9);
    rig.finished(50, 5, 9);
    rig.arrive(51, (5..10).map(arrival));
    assert_eq!(rig.decide(51), ["stage 6 on 0: 5 6 7 8", "stage 7 on 0: 9"]);
}

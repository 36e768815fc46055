//! Single decisions, told one event at a time.

mod desk;

use std::time::Duration;

use desk::{Desk, REPLICA, arrival, due};
use inferd_scheduler::{Arrival, Config, Event, Objective, Refusal, Room, Scheduler, ShapeKey};
use inferd_types::{BatchId, ErrorKind, Priority, ReplicaId, RequestId};

#[test]
fn a_lone_request_on_an_idle_replica_goes_at_once() {
    let mut desk = Desk::new(Config::default(), 1);
    desk.arrive(10, [arrival(0)]);
    assert_eq!(desk.decide(10), ["stage 0 on 0: 0"]);
}

#[test]
fn what_comes_together_runs_together_up_to_the_limit() {
    let mut desk = Desk::new(Config { batch_rows_max: 3, ..Config::default() }, 1);
    desk.arrive(0, (0..5).map(arrival));
    assert_eq!(desk.decide(0), ["stage 0 on 0: 0 1 2", "stage 1 on 0: 3 4"]);
}

#[test]
fn newcomers_join_the_staged_batch_until_it_is_taken() {
    let mut desk = Desk::new(Config { batch_rows_max: 4, ..Config::default() }, 1);
    desk.arrive(0, [arrival(0)]);
    desk.decide(0);
    desk.taken(1, 0);
    desk.arrive(2, [arrival(1)]);
    assert_eq!(desk.decide(2), ["stage 1 on 0: 1"]);
    desk.arrive(3, [arrival(2)]);
    assert_eq!(desk.decide(3), ["append to 1: 2"]);
    desk.finished(100, 0, 99);
    desk.taken(100, 1);
    desk.arrive(101, [arrival(3)]);
    assert_eq!(desk.decide(101), ["stage 2 on 0: 3"]);
}

#[test]
fn an_append_that_was_refused_is_not_tried_again_and_its_request_keeps_its_place() {
    let mut desk = Desk::new(Config::default(), 1);
    desk.arrive(0, [arrival(0)]);
    desk.decide(0);
    desk.arrive(1, [arrival(1)]);
    desk.decide(1);
    desk.arrive(2, [arrival(2)]);
    assert_eq!(desk.decide(2), ["append to 1: 2"]);
    desk.arrive(3, [arrival(3)]);
    desk.tell(3, Event::Returned { requests: vec![RequestId(2)] });
    assert_eq!(desk.decide(3), [""; 0]);
    desk.finished(9, 0, 9);
    desk.taken(9, 1);
    assert_eq!(desk.decide(9), ["stage 2 on 0: 2 3"]);
}

#[test]
fn different_shapes_never_share_a_batch_and_a_large_request_runs_alone() {
    let mut desk = Desk::new(Config { batch_rows_max: 8, ..Config::default() }, 3);
    let other = Arrival { shape: ShapeKey(1), ..arrival(1) };
    desk.arrive(0, [arrival(0), other, arrival(2), Arrival { rows: 100, shape: ShapeKey(2), ..arrival(3) }]);
    assert_eq!(desk.decide(0), ["stage 0 on 0: 0 2", "stage 1 on 1: 1", "stage 2 on 2: 3"]);
}

#[test]
fn a_model_without_batching_runs_one_request_at_a_time_and_stages_the_next() {
    let mut desk = Desk::new(Config { batched: false, ..Config::default() }, 1);
    desk.arrive(0, (0..3).map(arrival));
    assert_eq!(desk.decide(0), ["stage 0 on 0: 0", "stage 1 on 0: 1"]);
}

#[test]
fn better_classes_and_earlier_deadlines_go_first() {
    let mut desk = Desk::new(Config { batch_rows_max: 2, ..Config::default() }, 2);
    let urgent = Arrival { priority: Priority(0), ..arrival(3) };
    desk.arrive(0, [arrival(0), due(1, 90_000), due(2, 50_000), urgent]);
    assert_eq!(desk.decide(0)[..2], ["stage 0 on 0: 3 2", "stage 1 on 1: 1 0"]);
}

#[test]
fn a_batch_is_no_larger_than_its_tightest_deadline_allows() {
    let mut desk = Desk::known(Config::default(), 1);
    // 1,800 µs and the spread allow four or five rows.
    desk.arrive(0, (0..4).map(|id| due(id, 2200)).chain((4..12).map(|id| due(id, 90_000))));
    let staged = desk.decide(0)[0].split_whitespace().count() - 4;
    assert!((4..=6).contains(&staged), "{staged} rows");
}

#[test]
fn a_timeout_shorter_than_the_model_takes_is_refused_without_a_retry_hint() {
    let mut desk = Desk::known(Config::default(), 1);
    let (reason, error) = desk.refusal(0, due(0, 500));
    assert_eq!((reason, error.kind()), (Refusal::TimeoutTooShort, ErrorKind::DeadlineMissed));
    assert_eq!(error.retry_after(), None);
    assert!(error.message().contains("raise it to at least"), "{error}");
}

#[test]
fn after_a_while_without_runs_a_short_timeout_is_tried_all_the_same() {
    let mut desk = Desk::known(Config::default(), 1);
    desk.arrive(400_000, [due(0, 400_500)]);
    assert_eq!(desk.decide(400_000)[0], "stage 0 on 0: 0");
}

#[test]
fn what_the_backlog_makes_late_is_refused_at_the_door_with_the_time_it_takes_to_drain() {
    let mut desk = Desk::known(Config::default(), 1);
    desk.arrive(0, (0..128).map(arrival));
    desk.decide(0);
    // Two batches of 4.2 ms are staged, two wait: the deadline puts it before those who have none.
    desk.arrive(1, [due(900, 20_000)]);
    assert!(desk.actions.is_empty());
    let (reason, error) = desk.refusal(1, due(901, 9_000));
    assert_eq!((reason, error.kind()), (Refusal::PredictedLate, ErrorKind::Overloaded));
    let drain = error.retry_after().expect("it is worth trying again").as_micros();
    assert!((15_000..19_000).contains(&drain), "{drain} µs");
}

#[test]
fn what_a_replica_pauses_between_two_runs_makes_those_who_wait_late_too() {
    let admitted = |pause: u64| {
        let objective = Objective { latency: Duration::from_millis(25), quantile: 0.99 };
        let mut desk =
            Desk::known(Config { batched: false, objective: Some(objective), ..Config::default() }, 1);
        desk.arrive(0, [arrival(0), arrival(1)]);
        desk.decide(0);
        let mut now = 0;
        for run in 0..200 {
            // One is always staged behind the one that runs.
            now += if run == 0 { 1100 } else { pause + 1100 };
            desk.finished(now, run, 1100);
            desk.taken(now, run + 1);
            desk.arrive(now, [arrival(run + 2)]);
            desk.decide(now);
        }
        let newcomers = (1000..).map(|request| {
            desk.arrive(now, [arrival(request)]);
            desk.actions.is_empty()
        });
        newcomers.take_while(|admitted| *admitted).count()
    };
    assert!((18..=23).contains(&admitted(0)), "{}", admitted(0));
    assert!((8..=12).contains(&admitted(1100)), "{}", admitted(1100));
}

#[test]
fn an_unknown_model_admits_optimistically_and_queues_are_bounded() {
    let config = Config { queue_rows_max: 4, queue_max_bytes: 100, ..Config::default() };
    let mut desk = Desk::new(config, 0);
    desk.arrive(0, (0..4).map(|id| due(id, 10)));
    assert!(desk.actions.is_empty());
    let (reason, error) = desk.refusal(1, arrival(5));
    assert_eq!((reason, error.kind()), (Refusal::QueueRows, ErrorKind::Overloaded));
    assert!(error.retry_after().is_some() && error.message().contains("queue_rows_max"), "{error}");
    desk.tell(1, Event::Cancelled(RequestId(0)));
    assert_eq!(desk.refusal(1, Arrival { bytes: 90, ..arrival(6) }).0, Refusal::QueueBytes);
}

#[test]
fn a_request_larger_than_the_queue_is_taken_by_an_empty_one() {
    let mut desk = Desk::new(Config { queue_rows_max: 4, ..Config::default() }, 1);
    desk.arrive(0, [Arrival { rows: 10, ..arrival(0) }]);
    assert_eq!(desk.decide(0), ["stage 0 on 0: 0"]);
}

#[test]
fn without_a_replica_requests_wait_until_one_is_ready_or_their_timeout_passes() {
    let mut desk = Desk::new(Config::default(), 0);
    desk.arrive(0, [due(0, 500), arrival(1)]);
    assert_eq!(desk.decide(0), ["wake at 500"]);
    assert_eq!(desk.decide(500), ["answer 0: timed_out"]);
    desk.tell(900, Event::ReplicaReady(REPLICA, Room::default()));
    assert_eq!(desk.decide(900), ["stage 0 on 0: 1"]);
}

#[test]
fn an_objective_that_cannot_be_met_refuses_nobody_and_is_told() {
    let objective = Objective { latency: Duration::from_micros(100), quantile: 0.99 };
    let mut desk = Desk::known(Config { objective: Some(objective), ..Config::default() }, 1);
    desk.arrive(0, (0..100).map(arrival));
    assert_eq!(desk.decide(0).len(), 2);
    let snapshot = desk.scheduler.snapshot();
    assert!(snapshot.objective_unreachable && snapshot.refusals.is_empty(), "{snapshot:?}");
}

#[test]
fn a_late_head_is_sent_behind_those_that_can_still_be_met() {
    let objective = Objective { latency: Duration::from_millis(5), quantile: 0.99 };
    let mut desk =
        Desk::known(Config { objective: Some(objective), batch_rows_max: 2, ..Config::default() }, 0);
    desk.arrive(0, [arrival(0)]);
    desk.arrive(4500, [arrival(1), arrival(2)]);
    desk.tell(4600, Event::ReplicaReady(REPLICA, Room::default()));
    assert_eq!(desk.decide(4600), ["stage 0 on 0: 1 2", "stage 1 on 0: 0"]);
    assert_eq!(desk.scheduler.snapshot().demoted, 1);
}

#[test]
fn a_cancelled_request_leaves_the_queue_at_once_and_a_staged_batch_by_withdrawal() {
    let mut desk = Desk::new(Config { batch_rows_max: 2, ..Config::default() }, 1);
    desk.arrive(0, (0..5).map(arrival));
    assert_eq!(desk.decide(0), ["stage 0 on 0: 0 1", "stage 1 on 0: 2 3"]);
    desk.taken(1, 0);
    desk.tell(2, Event::Cancelled(RequestId(4)));
    desk.tell(2, Event::Cancelled(RequestId(0)));
    desk.tell(2, Event::Cancelled(RequestId(2)));
    assert_eq!(desk.decide(2), ["withdraw 1"]);
    let back = Event::Withdrawn { replica: REPLICA, batch: BatchId(1), requests: vec![RequestId(3)] };
    desk.tell(3, back);
    assert_eq!(desk.decide(3), ["stage 2 on 0: 3"]);
}

#[test]
fn a_batch_that_could_not_be_staged_is_run_one_by_one() {
    let mut desk = Desk::new(Config::default(), 1);
    desk.arrive(0, (0..2).map(arrival));
    assert_eq!(desk.decide(0), ["stage 0 on 0: 0 1"]);
    let requests = vec![RequestId(0), RequestId(1)];
    desk.tell(1, Event::Withdrawn { replica: REPLICA, batch: BatchId(0), requests });
    desk.arrive(1, [arrival(2)]);
    assert_eq!(desk.decide(1), ["stage 1 on 0: 0", "stage 2 on 0: 1"]);
    desk.tell(2, Event::Removed(RequestId(1)));
    assert_eq!(desk.decide(2), ["stage 3 on 0: 2"]);
}

#[test]
fn the_batches_of_a_lost_replica_go_first_on_another() {
    let mut desk = Desk::new(Config { batch_rows_max: 2, ..Config::default() }, 1);
    desk.arrive(0, (0..6).map(arrival));
    desk.decide(0);
    desk.taken(1, 0);
    desk.tell(2, Event::ReplicaLost(REPLICA));
    desk.tell(2, Event::Returned { requests: vec![RequestId(3), RequestId(2)] });
    assert_eq!(desk.decide(2), [""; 0]);
    desk.tell(3, Event::ReplicaReady(ReplicaId(1), Room::default()));
    assert_eq!(desk.decide(3), ["stage 2 on 1: 2 3", "stage 3 on 1: 4 5"]);
    (0..2).for_each(|id| desk.tell(4, Event::Removed(RequestId(id))));
    assert_eq!(desk.scheduler.snapshot().handed_out, 4);
}

#[test]
fn a_draining_replica_gets_nothing_until_it_is_ready_again() {
    let mut desk = Desk::new(Config::default(), 1);
    desk.tell(0, Event::DrainReplica(REPLICA));
    desk.arrive(0, [arrival(0)]);
    assert_eq!(desk.decide(0), [""; 0]);
    desk.tell(1, Event::ReplicaReady(REPLICA, Room::default()));
    assert_eq!(desk.decide(1), ["stage 0 on 0: 0"]);
}

#[test]
fn a_staged_batch_moves_to_a_replica_that_became_idle() {
    let mut desk = Desk::known(Config { batch_rows_max: 2, ..Config::default() }, 1);
    desk.arrive(0, (0..4).map(arrival));
    desk.decide(0);
    desk.tell(1, Event::ReplicaReady(ReplicaId(1), Room::default()));
    assert_eq!(desk.decide(1), ["withdraw 1"]);
    let requests = vec![RequestId(2), RequestId(3)];
    desk.tell(2, Event::Withdrawn { replica: REPLICA, batch: BatchId(1), requests });
    assert_eq!(desk.decide(2), ["stage 2 on 1: 2 3"]);
}

#[test]
fn a_stall_is_far_beyond_what_is_usual_and_never_short() {
    let config = Config::default();
    let unknown = Scheduler::new(config.clone());
    assert_eq!(unknown.stall_limit(1), None);
    let fast = Desk::known(config.clone(), 1).scheduler;
    assert_eq!(fast.stall_limit(1), Some(Duration::from_secs(1)));
    let slow = Scheduler::new(Config { profile: vec![(1, Duration::from_millis(100))], ..config });
    let limit = slow.stall_limit(1).unwrap();
    assert!((2.0..4.0).contains(&limit.as_secs_f64()), "{limit:?}");
}

#[test]
fn a_limit_that_is_lowered_holds_from_the_next_batch_on() {
    let mut desk = Desk::new(Config::default(), 1);
    desk.scheduler.limit_batch_rows(2);
    desk.arrive(0, (0..3).map(arrival));
    assert_eq!(desk.decide(0), ["stage 0 on 0: 0 1", "stage 1 on 0: 2"]);
}

#[test]
fn the_snapshot_tells_the_curve_the_queue_and_the_batches() {
    let mut desk = Desk::known(Config { batch_rows_max: 4, ..Config::default() }, 1);
    desk.arrive(0, (0..10).map(arrival));
    desk.decide(0);
    desk.taken(1, 0);
    desk.finished(1400, 0, 1400);
    let snapshot = desk.scheduler.snapshot();
    assert_eq!((snapshot.queue_rows, snapshot.handed_out, snapshot.arrivals), (2, 4, 10));
    assert_eq!(snapshot.recent_batches, [(4, 1)]);
    assert_eq!(snapshot.curve.iter().map(|point| point.rows).collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(snapshot.curve[2].samples, 1);
    assert!(snapshot.curve.iter().all(|point| point.high > point.mean));
}

#[test]
fn replicas_that_share_cores_take_turns_and_stand_in_for_each_other() {
    let mut desk = Desk::known(Config { running_max: 1, batch_rows_max: 2, ..Config::default() }, 2);
    desk.arrive(0, (0..2).map(arrival));
    assert_eq!(desk.decide(0), ["stage 0 on 0: 0 1"]);
    desk.taken(0, 0);
    desk.arrive(10, (2..4).map(arrival));
    assert_eq!(desk.decide(10), ["stage 1 on 0: 2 3"]);
    desk.tell(20, Event::ReplicaLost(ReplicaId(0)));
    desk.tell(20, Event::Returned { requests: vec![RequestId(2), RequestId(3)] });
    assert_eq!(desk.decide(20), ["stage 2 on 1: 2 3"]);
}

#[test]
fn while_company_is_off_each_request_runs_whole_and_by_itself_and_shared_batches_are_taken_back() {
    let mut desk = Desk::new(Config { batch_rows_max: 8, ..Config::default() }, 1);
    desk.arrive(0, [Arrival { rows: 3, ..arrival(0) }]);
    desk.decide(0);
    desk.taken(1, 0);
    desk.arrive(2, (1..4).map(arrival));
    assert_eq!(desk.decide(2), ["stage 1 on 0: 1 2 3"]);
    let Desk { scheduler, actions } = &mut desk;
    scheduler.set_batching(false, actions);
    assert_eq!(desk.decide(3), ["withdraw 1"]);
    let requests = (1..4).map(RequestId).collect();
    desk.tell(4, Event::Withdrawn { replica: REPLICA, batch: BatchId(1), requests });
    assert_eq!(desk.decide(4), ["stage 2 on 0: 1"]);
    desk.arrive(5, [Arrival { rows: 12, ..arrival(4) }]);
    desk.finished(10, 0, 9);
    assert_eq!(desk.decide(10), ["stage 3 on 0: 2"]);
    desk.finished(20, 2, 9);
    desk.finished(30, 3, 9);
    assert_eq!(desk.decide(30), ["stage 4 on 0: 3", "stage 5 on 0: 4"]);
    let Desk { scheduler, actions } = &mut desk;
    scheduler.limit_batch_rows(4);
    scheduler.set_batching(true, actions);
    desk.finished(40, 4, 9);
    desk.finished(50, 5, 9);
    desk.arrive(51, (5..10).map(arrival));
    assert_eq!(desk.decide(51), ["stage 6 on 0: 5 6 7 8", "stage 7 on 0: 9"]);
}

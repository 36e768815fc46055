//! Races between a model's task and its replicas, with replicas whose every step the test takes.

mod kinds;
mod scaling;
mod sequences;
mod streams;

use std::time::Duration;

use inferd_dispatcher::{ModelHandle, Moderation, Ticket};
use inferd_testkit::{FakeLauncher, FakeReplica, Step, until};
use inferd_types::settings::{LoadedModel, ModelSettings, Seconds};
use inferd_types::{Clock, DataType, ErrorKind, InferRequest, Tensor, Time};
use serde_json::json;

fn settings(retry: bool) -> ModelSettings {
    ModelSettings {
        batch_rows_max: 8,
        queue_rows_max: 100,
        retry_on_worker_loss: retry,
        execution_max_s: Some(Seconds(Duration::from_secs(60))),
        warmup: false,
        profile: vec![(1, 0.001), (8, 0.001)],
        ..inferd_testkit::settings("fake")
    }
}

async fn load(retry: bool) -> (ModelHandle, FakeLauncher) {
    load_on(FakeLauncher::new(), settings(retry)).await
}

async fn load_on(fakes: FakeLauncher, settings: ModelSettings) -> (ModelHandle, FakeLauncher) {
    (fakes.load(settings).await, fakes)
}

/// `rows` rows of this value.
fn request_of(value: u8, rows: u64) -> InferRequest {
    let data = vec![value; rows as usize].into();
    let tensor = Tensor::new(DataType::Int8, [rows].into_iter().collect(), data).unwrap();
    InferRequest { inputs: [tensor].into_iter().collect(), arrived: Time::ZERO, ..InferRequest::default() }
}

fn request(rows: u64) -> InferRequest {
    request_of(0, rows)
}

/// One row; returns when the task has dealt with it.
async fn submit(handle: &ModelHandle) -> Ticket {
    let ticket = handle.submit(request(1));
    settle(handle).await;
    ticket
}

/// The second question is read in a turn after the one in which the first was answered.
async fn settle(handle: &ModelHandle) {
    for _ in 0..3 {
        handle.explain().await;
        tokio::task::yield_now().await;
    }
}

/// One running, one staged behind it.
async fn running_and_staged(handle: &ModelHandle, fake: &FakeReplica) -> (Ticket, Ticket) {
    let running = submit(handle).await;
    until("the first is staged", || fake.step(Step::Open, Step::Taken)).await;
    let staged = submit(handle).await;
    until("the second is staged", || fake.holds() == 2).await;
    (running, staged)
}

#[tokio::test]
async fn the_gateway_may_rest_while_its_only_core_is_taken_by_a_run() {
    let clock = Clock::start();
    let moderation = Moderation::new(clock, 1);
    let settings = ModelSettings { profile: vec![(1, 60.0), (8, 60.0)], ..settings(true) };
    let fakes = FakeLauncher::new();
    let handle = fakes.try_load(settings, clock, moderation.clone()).await.unwrap();
    assert_eq!(moderation.time(), None, "the replica is idle");
    let running = submit(&handle).await;
    assert_eq!(moderation.time(), None, "it has not begun");
    until("it begins", || fakes.number(0).step(Step::Open, Step::Taken)).await;
    fakes.bell.notify_one();
    settle(&handle).await;
    assert!(moderation.time().is_some());
    until("it ends", || fakes.number(0).finish()).await;
    assert!(running.await.is_ok());
    settle(&handle).await;
    assert_eq!(moderation.time(), None);
}

#[tokio::test]
async fn a_replica_pauses_from_the_end_of_a_run_to_the_start_of_the_next_if_that_was_staged() {
    let (handle, fakes) = load(true).await;
    let pauses = async || handle.explain().await["overhead_s"]["pauses"].clone();
    let fake = fakes.number(0);
    let (running, staged) = running_and_staged(&handle, &fake).await;
    until("the first ends", || fake.finish()).await;
    assert!(running.await.is_ok());
    assert_eq!(pauses().await, json!([]), "nothing ran before it");
    let clock = Clock::start();
    until("as long as a run and a pause", || clock.now() > Time::ZERO + Duration::from_millis(4)).await;
    until("the second ends", || fake.finish()).await;
    assert!(staged.await.is_ok());
    let told = pauses().await;
    let median = told[4][1].as_f64().expect("seconds");
    assert!((0.003..20.0).contains(&median), "{told}");
}

#[tokio::test]
async fn what_was_staged_when_a_worker_died_is_innocent() {
    let (handle, fakes) = load(false).await;
    let (running, staged) = running_and_staged(&handle, &fakes.number(0)).await;
    fakes.number(0).die();
    assert_eq!(running.await.unwrap_err().kind(), ErrorKind::WorkerLost);
    until("a worker is started again", || fakes.starts() == 2).await;
    until("it gets the staged one", || fakes.number(1).finish()).await;
    assert_eq!(staged.await.unwrap().timing.batch_rows, 1);
}

#[tokio::test]
async fn what_a_worker_finished_before_it_died_is_answered() {
    let (handle, fakes) = load(false).await;
    let (running, staged) = running_and_staged(&handle, &fakes.number(0)).await;
    assert!(fakes.number(0).step(Step::Taken, Step::Done) && fakes.number(0).step(Step::Open, Step::Taken));
    fakes.number(0).die();
    assert!(running.await.is_ok());
    assert_eq!(staged.await.unwrap_err().kind(), ErrorKind::WorkerLost);
}

#[tokio::test]
async fn suspects_run_alone_before_those_who_came_later() {
    let (handle, fakes) = load(true).await;
    let (running, staged) = running_and_staged(&handle, &fakes.number(0)).await;
    fakes.number(0).die();
    until("a worker is started again", || fakes.starts() == 2).await;
    let second = fakes.number(1);
    until("the suspect is staged", || second.holds() == 1).await;
    let later = submit(&handle).await;
    assert_eq!(second.holds(), 1, "nothing is staged beside a suspect");
    assert!(second.finish());
    assert_eq!(running.await.unwrap().timing.batch_rows, 1);
    until("the others are run", || second.finish()).await;
    assert_eq!(staged.await.unwrap().timing.batch_rows, 2);
    assert!(later.await.is_ok());
}

#[tokio::test]
async fn an_append_that_comes_too_late_loses_nobody() {
    let (handle, fakes) = load(true).await;
    let fake = fakes.number(0);
    let (running, staged) = running_and_staged(&handle, &fake).await;
    fake.lock().takes_before_append = true;
    let late = submit(&handle).await;
    assert!(fake.finish() && fake.finish());
    assert!(running.await.is_ok() && staged.await.is_ok());
    until("it is staged again", || fake.finish()).await;
    assert!(late.await.is_ok());
}

#[tokio::test]
async fn who_could_not_be_handed_over_waits_for_the_next_worker() {
    let (handle, fakes) = load(true).await;
    fakes.number(0).lock().lost = true;
    let ticket = submit(&handle).await;
    assert_eq!(fakes.number(0).holds(), 0);
    fakes.number(0).die();
    until("a worker is started again", || fakes.starts() == 2).await;
    until("it gets the request", || fakes.number(1).finish()).await;
    assert!(ticket.await.is_ok());
}

#[tokio::test]
async fn nobody_waits_for_a_task_that_is_gone() {
    let (handle, fakes) = load(true).await;
    fakes.number(0).lock().panics = true;
    let ticket = handle.submit(request(1));
    assert_eq!(ticket.await.unwrap_err().kind(), ErrorKind::Internal);
    assert!(handle.submit(request(1)).await.is_err());
}

#[tokio::test]
async fn a_request_of_more_rows_than_run_together_runs_in_parts_and_is_one_answer() {
    let (handle, fakes) = load(true).await;
    let ticket = handle.submit(request(20));
    let fake = fakes.number(0);
    for _ in 0..3 {
        until("a part is run", || fake.finish()).await;
    }
    let answer = ticket.await.unwrap();
    assert_eq!(answer.timing.batch_rows, 8);
    let statistics = handle.statistics();
    assert_eq!(
        (statistics.success.count, statistics.inference_count, statistics.execution_count),
        (1, 20, 3)
    );
}

#[tokio::test]
async fn a_request_in_parts_that_is_given_up_leaves_nothing_that_still_runs() {
    let (handle, fakes) = load(true).await;
    let ticket = handle.submit(request(60));
    settle(&handle).await;
    let fake = fakes.number(0);
    until("the first part is run", || fake.finish()).await;
    settle(&handle).await;
    drop(ticket);
    settle(&handle).await;
    while fake.finish() {}
    settle(&handle).await;
    assert_eq!(fake.holds(), 0);
    let ticket = submit(&handle).await;
    until("the next request is run", || fake.finish()).await;
    assert_eq!(ticket.await.unwrap().timing.batch_rows, 1);
}

#[tokio::test]
async fn when_one_part_fails_the_whole_request_has_failed_once() {
    let (handle, fakes) = load(false).await;
    let ticket = handle.submit(request(60));
    settle(&handle).await;
    assert!(fakes.number(0).step(Step::Open, Step::Taken));
    fakes.number(0).die();
    assert_eq!(ticket.await.unwrap_err().kind(), ErrorKind::WorkerLost);
    settle(&handle).await;
    assert_eq!(handle.statistics().fail.count, 1);
    until("a worker is started again", || fakes.starts() == 2).await;
    settle(&handle).await;
    assert_eq!(fakes.number(1).holds(), 0, "nothing of it is run again");
}

#[tokio::test]
async fn no_rows_are_answered_with_no_rows_and_without_a_run() {
    let (handle, fakes) = load(true).await;
    let answer = handle.submit(request(0)).await.unwrap();
    assert_eq!(answer.outputs[0].shape[..], [0]);
    assert_eq!(fakes.number(0).holds(), 0);
    assert_eq!(handle.statistics().execution_count, 0);
}

/// Two replicas; one request runs on the first and its copy on the second.
async fn running_twice() -> (ModelHandle, FakeLauncher, Ticket) {
    let (handle, fakes) =
        load_on(FakeLauncher::new(), ModelSettings { replicas: 2, hedge_budget: 1.0, ..settings(true) })
            .await;
    let running = submit(&handle).await;
    until("it runs", || fakes.number(0).step(Step::Open, Step::Taken)).await;
    fakes.bell.notify_one();
    until("it takes too long", || fakes.number(1).holds() == 1).await;
    (handle, fakes, running)
}

/// Both replicas are free: two requests at once run beside each other.
async fn both_serve(handle: &ModelHandle, one: &FakeReplica, other: &FakeReplica) {
    let (first, second) = (submit(handle).await, submit(handle).await);
    until("each has one", || one.holds() == 1 && other.holds() == 1).await;
    assert!(one.finish() && other.finish());
    assert!(first.await.is_ok() && second.await.is_ok());
}

#[tokio::test]
async fn whoever_of_two_copies_is_done_first_answers() {
    for quicker in [0, 1] {
        let (handle, fakes, running) = running_twice().await;
        assert!(fakes.number(1).step(Step::Open, Step::Taken) && fakes.number(quicker).finish());
        assert_eq!(running.await.unwrap().timing.batch_rows, 1);
        assert!(fakes.number(1 - quicker).finish());
        settle(&handle).await;
        both_serve(&handle, &fakes.number(0), &fakes.number(1)).await;
    }
}

#[tokio::test]
async fn a_copy_that_has_not_begun_is_taken_back_when_it_is_not_needed_any_more() {
    let (handle, fakes, running) = running_twice().await;
    assert!(fakes.number(0).finish());
    assert!(running.await.is_ok());
    until("the copy is gone", || fakes.number(1).holds() == 0).await;
    both_serve(&handle, &fakes.number(0), &fakes.number(1)).await;
}

#[tokio::test]
async fn a_lost_replica_leaves_its_requests_to_their_copy() {
    for lost in [0, 1] {
        let (handle, fakes, running) = running_twice().await;
        assert!(fakes.number(1).step(Step::Open, Step::Taken));
        fakes.number(lost).die();
        until("a worker is started again", || fakes.starts() == 3).await;
        settle(&handle).await;
        assert_eq!(fakes.number(2).holds(), 0, "nobody is suspected while a copy runs");
        assert!(fakes.number(1 - lost).finish());
        assert_eq!(running.await.unwrap().timing.batch_rows, 1);
    }
}

#[tokio::test]
async fn who_leaves_while_two_copies_run_leaves_both() {
    let (handle, fakes, running) = running_twice().await;
    drop(running);
    settle(&handle).await;
    assert!(fakes.number(0).finish());
    fakes.number(1).finish();
    until("both are free", || fakes.number(0).holds() + fakes.number(1).holds() == 0).await;
    settle(&handle).await;
    both_serve(&handle, &fakes.number(0), &fakes.number(1)).await;
}

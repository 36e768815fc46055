//! Responses on their way from a worker to a caller who reads slowly, leaves, or loses the worker.

use inferd_dispatcher::Responses;

use super::*;

async fn begin() -> (ModelHandle, FakeLauncher, Responses) {
    let fakes = FakeLauncher { decoupled: true, ..FakeLauncher::new() };
    let (handle, fakes) = load_on(fakes, settings(true)).await;
    let responses = handle.stream(request(1));
    settle(&handle).await;
    let fake = fakes.number(0);
    until("it is taken", || fake.step(Step::Open, Step::Taken)).await;
    (handle, fakes, responses)
}

/// One more response; returns when the task has dealt with it.
async fn respond(handle: &ModelHandle, fake: &FakeReplica) -> bool {
    let moved = fake.step(Step::Taken, Step::Partial);
    fake.bell.notify_one();
    settle(handle).await;
    moved
}

#[tokio::test]
async fn a_worker_waits_for_a_caller_who_reads_slowly() {
    let (handle, fakes, mut responses) = begin().await;
    let fake = fakes.number(0);
    for _ in 0..Responses::WAITING_MAX {
        assert!(respond(&handle, &fake).await);
    }
    assert!(respond(&handle, &fake).await, "one more lies in the worker's memory");
    assert!(!respond(&handle, &fake).await, "and the worker waits with it");
    assert!(responses.next().await.unwrap().is_ok());
    until("the worker goes on", || fake.step(Step::Taken, Step::Taken)).await;
    assert!(fake.finish());
    for _ in 0..Responses::WAITING_MAX {
        assert!(responses.next().await.unwrap().is_ok());
    }
    assert!(responses.next().await.is_none());
    assert!(responses.next().await.is_none());
}

#[tokio::test]
async fn a_caller_who_leaves_stops_the_stream() {
    let (handle, fakes, mut responses) = begin().await;
    let fake = fakes.number(0);
    assert!(respond(&handle, &fake).await);
    assert!(responses.next().await.unwrap().is_ok());
    drop(responses);
    settle(&handle).await;
    assert!(respond(&handle, &fake).await);
    until("it is told to stop", || fake.lock().stopped == 1).await;
}

#[tokio::test]
async fn what_has_given_a_response_is_never_run_again() {
    let (handle, fakes, mut responses) = begin().await;
    assert!(respond(&handle, &fakes.number(0)).await);
    fakes.number(0).die();
    assert!(responses.next().await.unwrap().is_ok());
    assert_eq!(responses.next().await.unwrap().unwrap_err().kind(), ErrorKind::WorkerLost);
    assert!(responses.next().await.is_none());
    until("a worker is started again", || fakes.starts() == 2).await;
    settle(&handle).await;
    assert_eq!(fakes.number(1).holds(), 0);
}

#[tokio::test]
async fn what_has_given_none_is_run_again() {
    let (handle, fakes, mut responses) = begin().await;
    fakes.number(0).die();
    until("a worker is started again", || fakes.starts() == 2).await;
    let second = fakes.number(1);
    until("it is run again", || second.step(Step::Open, Step::Taken)).await;
    assert!(respond(&handle, &second).await);
    assert!(second.finish());
    assert!(responses.next().await.unwrap().is_ok());
    assert!(responses.next().await.is_none());
}

#[tokio::test]
async fn who_wants_one_answer_is_told_what_to_call() {
    let (handle, _fakes, _responses) = begin().await;
    let error = submit(&handle).await.await.unwrap_err();
    assert!(error.message().contains("generate_stream"), "{error}");
}

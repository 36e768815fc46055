//! Kinds of replicas that are not like worker processes.

use inferd_dispatcher::kind::Capabilities;

use super::*;

/// Like a server behind a connection: that it is lost says nothing of what it ran.
fn remote() -> FakeLauncher {
    let capabilities = Capabilities { loss_is_evidence: false, ..Capabilities::WORKER_PROCESS };
    FakeLauncher { capabilities, ..FakeLauncher::new() }
}

#[tokio::test]
async fn what_ran_on_a_replica_whose_loss_is_no_evidence_runs_again_as_if_nothing_had_been() {
    let (handle, fakes) = load_on(remote(), settings(true)).await;
    let (running, staged) = running_and_staged(&handle, &fakes.number(0)).await;
    fakes.number(0).die();
    until("another is started", || fakes.starts() == 2).await;
    let second = fakes.number(1);
    until("both are staged", || second.holds() > 0).await;
    let rows: usize = second.lock().batches.iter().flatten().map(|(_, inputs, _)| inputs.len()).sum();
    assert_eq!(rows, 2, "in one batch: none of them is suspected");
    assert!(second.finish());
    assert_eq!(running.await.unwrap().timing.batch_rows, 2);
    assert!(staged.await.is_ok());
}

#[tokio::test]
async fn what_was_lost_too_often_is_given_up() {
    let (handle, fakes) = load_on(remote(), settings(true)).await;
    let ticket = submit(&handle).await;
    for number in 0..3 {
        until("it is started", || fakes.starts() == number + 1).await;
        until("it runs", || fakes.number(number).step(Step::Open, Step::Taken)).await;
        fakes.number(number).die();
    }
    let error = ticket.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WorkerLost);
    assert!(error.message().contains("3 replicas were lost"), "{error}");
}

#[tokio::test]
async fn what_may_have_had_effects_does_not_run_again_whatever_was_lost() {
    let (handle, fakes) = load_on(remote(), settings(false)).await;
    let ticket = submit(&handle).await;
    until("it runs", || fakes.number(0).step(Step::Open, Step::Taken)).await;
    fakes.number(0).die();
    let error = ticket.await.unwrap_err();
    assert!(error.message().contains("retry_on_worker_loss"), "{error}");
    until("another is started", || fakes.starts() == 2).await;
    settle(&handle).await;
    assert_eq!(fakes.number(1).holds(), 0);
}

#[tokio::test]
async fn a_replica_that_holds_one_batch_gets_the_next_when_it_is_done() {
    let capabilities = Capabilities { batches_max: 1, ..Capabilities::WORKER_PROCESS };
    let (handle, fakes) = load_on(FakeLauncher { capabilities, ..FakeLauncher::new() }, settings(true)).await;
    let fake = fakes.number(0);
    let first = submit(&handle).await;
    until("it runs", || fake.step(Step::Open, Step::Taken)).await;
    let (second, third) = (submit(&handle).await, submit(&handle).await);
    assert_eq!(fake.lock().staged, 1);
    assert!(fake.finish() && first.await.is_ok());
    until("the others run together", || fake.finish()).await;
    assert_eq!(second.await.unwrap().timing.batch_rows, 2);
    assert!(third.await.is_ok());
}

#[tokio::test]
async fn nothing_joins_a_batch_on_a_replica_that_appends_nothing() {
    let capabilities = Capabilities { appends: false, ..Capabilities::WORKER_PROCESS };
    let (handle, fakes) = load_on(FakeLauncher { capabilities, ..FakeLauncher::new() }, settings(true)).await;
    let fake = fakes.number(0);
    let (running, staged) = running_and_staged(&handle, &fake).await;
    let third = submit(&handle).await;
    assert!(fake.finish() && running.await.is_ok());
    until("the second is run", || fake.finish()).await;
    assert_eq!(staged.await.unwrap().timing.batch_rows, 1);
    until("the third is run", || fake.finish()).await;
    assert!(third.await.is_ok());
}

#[tokio::test]
async fn a_replica_learns_until_when_callers_listen() {
    let (handle, fakes) = load(true).await;
    let timeout = Some(Clock::start().now() + Duration::from_secs(3600));
    let ticket = handle.submit(InferRequest { timeout, ..request(1) });
    let fake = fakes.number(0);
    until("it is staged", || fake.holds() == 1).await;
    assert_eq!(fake.lock().due, [timeout]);
    assert!(fake.finish() && ticket.await.is_ok());
}

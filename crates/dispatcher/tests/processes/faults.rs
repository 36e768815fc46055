//! Workers that are killed, die of a request, hang, or don't come back.

use std::collections::BTreeMap;
use std::time::Duration;

use inferd_dispatcher::{LossReason, ModelHandle, ModelState, ReplicaState};
use inferd_testkit::within;
use inferd_types::ErrorKind;
use inferd_types::settings::Seconds;

use crate::fixture::{Fixture, kind, submit, until, until_ready, values, with};
use crate::worker::{CRASH, CROWDED, HANG, HANG_POLITELY, HELD};

/// Submits all at once and awaits all; the errors, by place.
async fn ask_all(handle: &ModelHandle, wanted: &[f32]) -> BTreeMap<usize, ErrorKind> {
    let tickets: Vec<_> = wanted.iter().map(|value| submit(handle, *value)).collect();
    let mut errors = BTreeMap::new();
    for (place, ticket) in tickets.into_iter().enumerate() {
        match within("every request is answered", ticket).await {
            Ok(response) => assert_eq!(values(Ok(response)), [wanted[place] + 1.0]),
            Err(error) => {
                errors.insert(place, error.kind());
            }
        }
    }
    errors
}

async fn killing_under_load(replicas: u32) {
    let fixture = Fixture::new();
    let handle = fixture.load(|settings| settings.replicas = replicas).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (handle, stopped) = (handle.clone(), stopped.clone());
            tokio::spawn(async move {
                let mut answers = 0;
                while !*stopped.borrow() {
                    assert_eq!(values(submit(&handle, answers as f32).await), [answers as f32 + 1.0]);
                    answers += 1;
                }
                answers
            })
        })
        .collect();
    for round in 1..=5 {
        let before = handle.statistics().success.count;
        until("it serves", || handle.statistics().success.count > before + 200).await;
        fixture.kill_one(&handle);
        until("the loss is seen", || fixture.losses.seen().len() >= round).await;
    }
    until_ready(&handle, replicas as usize).await;
    stop.send(true).unwrap();
    for caller in callers {
        assert!(within("callers end", caller).await.unwrap() > 0);
    }
    assert!(fixture.losses.seen().iter().all(|reason| *reason == LossReason::Signal));
    assert_eq!(handle.statistics().fail.count, 0);
    fixture.end().await;
}

#[tokio::test]
async fn killing_one_of_two_workers_under_load_loses_nothing() {
    killing_under_load(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_only_worker_under_load_loses_nothing() {
    killing_under_load(1).await;
}

async fn poison_among_many(replicas: u32) {
    let fixture = Fixture::new();
    let handle = fixture.load(|settings| settings.replicas = replicas).await;
    let wanted: Vec<f32> = (0..300).map(|n| if n == 123 { CRASH } else { n as f32 }).collect();
    let errors = ask_all(&handle, &wanted).await;
    assert_eq!(errors, BTreeMap::from([(123, ErrorKind::ModelFailed)]));
    until_ready(&handle, replicas as usize).await;
    assert!(ask_all(&handle, &[1.0; 50]).await.is_empty());
    fixture.end().await;
}

#[tokio::test]
async fn a_poison_request_among_many_is_the_only_one_that_fails() {
    poison_among_many(1).await;
}

#[tokio::test]
async fn a_poison_request_is_found_with_several_replicas_too() {
    poison_among_many(3).await;
}

#[tokio::test]
async fn others_are_served_while_suspects_are_examined() {
    let fixture = Fixture::new();
    let handle = fixture.load(|_| {}).await;
    let poison: Vec<f32> = (0..32).map(|n| if n % 8 == 3 { CRASH } else { n as f32 }).collect();
    let examined = tokio::spawn({
        let handle = handle.clone();
        async move { ask_all(&handle, &poison).await }
    });
    until("a second death", || fixture.losses.seen().len() >= 2).await;
    assert!(ask_all(&handle, &[1.0; 100]).await.is_empty());
    let errors = within("the examination ends", examined).await.unwrap();
    assert_eq!(errors.keys().copied().collect::<Vec<_>>(), [3, 11, 19, 27]);
    until_ready(&handle, 1).await;
    fixture.end().await;
}

#[tokio::test]
async fn a_lone_poison_request_is_condemned_after_two_deaths() {
    let fixture = Fixture::new();
    let handle = fixture.load(|_| {}).await;
    let error = within("it is answered", submit(&handle, CRASH)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelFailed);
    assert!(error.message().contains("check its inputs"), "{error}");
    assert_eq!(fixture.losses.seen(), [LossReason::Signal; 2]);
    until_ready(&handle, 1).await;
    fixture.end().await;
}

#[tokio::test]
async fn where_only_the_crowd_kills_batches_become_smaller() {
    let fixture = Fixture::new();
    let hold = fixture.file("hold");
    let handle = fixture.load(with("hold", hold.to_str().unwrap())).await;
    let held = submit(&handle, HELD);
    handle.explain().await;
    let crowd: Vec<_> = (0..8).map(|_| submit(&handle, CROWDED)).collect();
    handle.explain().await;
    std::fs::remove_file(hold).unwrap();
    assert!(held.await.is_ok());
    for ticket in crowd {
        assert!(within("all of the crowd are answered", ticket).await.is_ok());
    }
    until_ready(&handle, 1).await;
    let losses = fixture.losses.seen().len();
    assert!(ask_all(&handle, &[CROWDED; 20]).await.is_empty());
    assert_eq!(fixture.losses.seen().len(), losses, "the limit is kept");
    fixture.end().await;
}

#[tokio::test]
async fn a_request_that_hangs_alone_is_ended_and_not_run_again() {
    let fixture = Fixture::new();
    let handle =
        fixture.load(|settings| settings.execution_max_s = Some(Seconds(Duration::from_millis(300)))).await;
    let pid = handle.replicas()[0].pid;
    let hanging = submit(&handle, HANG);
    assert_eq!(kind(within("the hang ends", hanging).await), ErrorKind::DeadlineMissed);
    assert_eq!(fixture.losses.seen(), [LossReason::Hang]);
    assert_eq!(values(within("others are served", submit(&handle, 1.0)).await), [2.0]);
    until_ready(&handle, 1).await;
    assert_ne!(handle.replicas()[0].pid, pid);
    fixture.end().await;
}

#[tokio::test]
async fn a_runtime_that_stops_when_asked_keeps_its_worker() {
    let fixture = Fixture::new();
    let handle =
        fixture.load(|settings| settings.execution_max_s = Some(Seconds(Duration::from_millis(300)))).await;
    let pid = handle.replicas()[0].pid;
    assert_eq!(
        kind(within("the hang ends", submit(&handle, HANG_POLITELY)).await),
        ErrorKind::DeadlineMissed
    );
    assert_eq!(values(submit(&handle, 1.0).await), [2.0]);
    assert_eq!(handle.replicas()[0].pid, pid);
    assert!(fixture.losses.seen().is_empty());
    fixture.end().await;
}

#[tokio::test]
async fn one_that_hangs_among_many_is_the_only_one_that_fails() {
    let fixture = Fixture::new();
    let handle =
        fixture.load(|settings| settings.execution_max_s = Some(Seconds(Duration::from_millis(200)))).await;
    for marker in [HANG_POLITELY, HANG] {
        let wanted: Vec<f32> = (0..8).map(|n| if n == 5 { marker } else { n as f32 }).collect();
        let errors = ask_all(&handle, &wanted).await;
        assert_eq!(errors, BTreeMap::from([(5, ErrorKind::DeadlineMissed)]));
    }
    fixture.end().await;
}

/// Asks often enough that the scheduler knows what a run takes.
async fn learn(handle: &ModelHandle) {
    for _ in 0..64 {
        assert_eq!(values(submit(handle, 1.0).await), [2.0]);
    }
}

#[tokio::test]
async fn a_run_far_longer_than_usual_is_answered_and_a_spare_serves_meanwhile() {
    let fixture = Fixture::new();
    let hold = fixture.file("hold");
    let handle = fixture.load(with("hold", hold.to_str().unwrap())).await;
    learn(&handle).await;
    let pid = handle.replicas()[0].pid;
    let slow = submit(&handle, HELD);
    let states = || handle.replicas().iter().map(|replica| replica.state).collect::<Vec<_>>();
    until("a spare serves", || states() == [ReplicaState::Stalled, ReplicaState::Ready]).await;
    assert_eq!(values(within("others are served", submit(&handle, 1.0)).await), [2.0]);
    std::fs::remove_file(hold).unwrap();
    assert_eq!(values(within("the slow one is answered", slow).await), [HELD + 1.0]);
    until_ready(&handle, 1).await;
    assert_eq!(handle.replicas()[0].pid, pid);
    assert!(fixture.losses.seen().is_empty());
    fixture.end().await;
}

#[tokio::test]
async fn what_waits_behind_a_run_far_longer_than_usual_is_run_elsewhere() {
    let fixture = Fixture::new();
    let hold = fixture.file("hold");
    // None shares the run of the slow one; one is staged behind it.
    let handle = fixture
        .load(|settings| {
            settings.load["batched"] = false.into();
            with("hold", hold.to_str().unwrap())(settings);
        })
        .await;
    learn(&handle).await;
    let slow = submit(&handle, HELD);
    let behind: Vec<_> = (0..8).map(|_| submit(&handle, 1.0)).collect();
    for ticket in behind {
        assert_eq!(values(within("it does not wait for the slow one", ticket).await), [2.0]);
    }
    std::fs::remove_file(hold).unwrap();
    assert!(within("the slow one is answered", slow).await.is_ok());
    assert!(fixture.losses.seen().is_empty());
    fixture.end().await;
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_any_more_is_ended_after_a_while() {
    let fixture = Fixture::new();
    let handle = fixture.load(|_| {}).await;
    let pid = handle.replicas()[0].pid;
    let mut request = crate::fixture::request(&[HANG]);
    request.timeout = Some(fixture.clock.now() + Duration::from_millis(200));
    let answer = within("its timeout passes", handle.submit(request)).await;
    assert_eq!(kind(answer), ErrorKind::DeadlineMissed);
    until("the worker is ended", || fixture.losses.seen() == [LossReason::Hang]).await;
    until_ready(&handle, 1).await;
    assert_ne!(handle.replicas()[0].pid, pid);
    assert_eq!(values(submit(&handle, 1.0).await), [2.0]);
    fixture.end().await;
}

#[tokio::test]
async fn where_runs_have_effects_nothing_is_run_again() {
    let fixture = Fixture::new();
    let handle = fixture.load(|settings| settings.retry_on_worker_loss = false).await;
    assert_eq!(kind(within("it is answered", submit(&handle, CRASH)).await), ErrorKind::WorkerLost);
    assert_eq!(values(within("others are served", submit(&handle, 1.0)).await), [2.0]);
    assert_eq!(fixture.losses.seen().len(), 1);
    fixture.end().await;
}

#[tokio::test]
async fn past_the_kill_budget_suspects_are_let_go() {
    let fixture = Fixture::new();
    let handle = fixture.load(|settings| settings.kills_per_minute_max = 2).await;
    // The first dies twice, once of it in quarantine; the second uses the rest up.
    assert_eq!(kind(within("first", submit(&handle, CRASH)).await), ErrorKind::ModelFailed);
    assert_eq!(kind(within("second", submit(&handle, CRASH)).await), ErrorKind::ModelFailed);
    assert_eq!(kind(within("third", submit(&handle, CRASH)).await), ErrorKind::WorkerLost);
    assert_eq!(values(within("others are served", submit(&handle, 1.0)).await), [2.0]);
    fixture.end().await;
}

#[tokio::test]
async fn a_suspect_whose_time_is_over_is_answered() {
    let fixture = Fixture::new();
    let (hold, gate) = (fixture.file("hold"), fixture.directory.path().join("gate"));
    let handle = fixture
        .load(|settings| {
            with("hold", hold.to_str().unwrap())(settings);
            with("load_while", gate.to_str().unwrap())(settings);
        })
        .await;
    // From now on no worker gets through its loading.
    fixture.file("gate");
    let mut request = crate::fixture::request(&[HELD]);
    request.timeout = Some(fixture.clock.now() + Duration::from_secs(1));
    let suspect = handle.submit(request);
    handle.explain().await;
    until("it runs", || fixture.kill_one(&handle).is_some()).await;
    assert_eq!(kind(within("it is answered", suspect).await), ErrorKind::DeadlineMissed);
    fixture.end().await;
}

#[tokio::test]
async fn a_worker_that_does_not_come_back_is_said_to_be_unavailable_until_it_does() {
    let fixture = Fixture::new();
    let broken = fixture.directory.path().join("broken");
    let handle = fixture.load(with("fail_while", broken.to_str().unwrap())).await;
    fixture.file("broken");
    fixture.kill_one(&handle);
    until("it is unavailable", || matches!(handle.state(), ModelState::Unavailable(_))).await;
    let ModelState::Unavailable(reason) = handle.state() else { return };
    assert!(reason.contains("the file is there"), "{reason}");
    assert_eq!(kind(submit(&handle, 1.0).await), ErrorKind::NotReady);
    assert!(fixture.registry.find("plus-one", None, None).is_ok());
    std::fs::remove_file(broken).unwrap();
    until_ready(&handle, 1).await;
    assert_eq!(values(submit(&handle, 1.0).await), [2.0]);
    fixture.end().await;
}

#[tokio::test]
async fn those_who_wait_for_a_worker_that_never_comes_are_told() {
    let fixture = Fixture::new();
    let (hold, broken) = (fixture.file("hold"), fixture.directory.path().join("broken"));
    let handle = fixture
        .load(|settings| {
            with("hold", hold.to_str().unwrap())(settings);
            with("fail_while", broken.to_str().unwrap())(settings);
        })
        .await;
    let (running, queued) = (submit(&handle, HELD), submit(&handle, 1.0));
    handle.explain().await;
    fixture.file("broken");
    fixture.kill_one(&handle);
    let answers = [within("running", running).await, within("queued", queued).await].map(kind);
    let told = |kind: &ErrorKind| matches!(kind, ErrorKind::WorkerLost | ErrorKind::NotReady);
    assert!(answers.iter().all(told), "{answers:?}");
    fixture.end().await;
}

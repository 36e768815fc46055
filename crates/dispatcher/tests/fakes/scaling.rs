//! The number of replicas changes while they serve, load and fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use inferd_dispatcher::{ModelState, Registry, ReplicaState};
use inferd_testkit::Random;
use inferd_types::Error;
use inferd_types::settings::MachineShare;

use super::*;

/// Batches of one request, so that each replica holds what it was given.
fn singles(replicas: u32) -> ModelSettings {
    ModelSettings { replicas, batch_rows_max: 1, ..settings(true) }
}

fn states(handle: &ModelHandle) -> Vec<ReplicaState> {
    handle.replicas().iter().map(|replica| replica.state).collect()
}

async fn until_serving(handle: &ModelHandle, replicas: usize) {
    until("as many serve as are wanted", || states(handle) == vec![ReplicaState::Ready; replicas]).await;
}

#[tokio::test]
async fn a_model_that_is_scaled_under_load_loses_nothing_and_gives_each_request_its_answer() {
    let fakes = FakeLauncher { by_itself: true, ..FakeLauncher::new() };
    let (handle, fakes) = load_on(fakes, ModelSettings { queue_rows_max: 10_000, ..settings(true) }).await;
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..16u64)
        .map(|caller| {
            let (handle, over, mut random) = (handle.clone(), over.clone(), Random(caller + 1));
            tokio::spawn(async move {
                let mut answers = 0;
                while !over.load(Ordering::Relaxed) {
                    let (value, rows) = (random.next() as u8, 1 + random.below(12));
                    let sent = request_of(value, rows);
                    let answer = handle.submit(sent.clone()).await.unwrap();
                    assert_eq!(
                        answer.outputs.iter().map(|part| part.data.len()).sum::<usize>(),
                        rows as usize
                    );
                    assert_eq!(answer.outputs[..], sent.inputs[..]);
                    answers += 1;
                }
                answers
            })
        })
        .collect();
    let mut random = Random(7);
    for round in 0..40 {
        let wanted = 1 + random.below(5) as u32;
        handle.scale(wanted).await.unwrap();
        let before = handle.statistics().success.count;
        until("requests are answered", || handle.statistics().success.count > before + 20).await;
        if round % 3 == 0 {
            until_serving(&handle, wanted as usize).await;
        }
    }
    handle.scale(2).await.unwrap();
    until_serving(&handle, 2).await;
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(caller.await.unwrap() > 0);
    }
    assert_eq!(handle.statistics().fail.count, 0);
    let living = fakes.started.lock().unwrap().iter().filter(|fake| !fake.has_ended()).count();
    assert_eq!(living, 2);
}

#[tokio::test]
async fn what_a_replica_runs_ends_and_what_it_has_not_begun_goes_back_when_it_is_not_wanted_any_more() {
    let (handle, fakes) = load_on(FakeLauncher::new(), singles(2)).await;
    let mut tickets = Vec::new();
    for number in [0, 1] {
        tickets.push(submit(&handle).await);
        let any = |step| fakes.number(0).step(Step::Open, step) || fakes.number(1).step(Step::Open, step);
        until("it runs", || any(Step::Taken)).await;
        fakes.bell.notify_one();
        settle(&handle).await;
        assert_eq!(fakes.number(0).holds() + fakes.number(1).holds(), number + 1);
    }
    tickets.extend([submit(&handle).await, submit(&handle).await]);
    until("one runs and one is staged on each", || [0, 1].iter().all(|it| fakes.number(*it).holds() == 2))
        .await;
    handle.scale(1).await.unwrap();
    let (stays, goes) = (fakes.number(0), fakes.number(1));
    until("what it has not begun goes back", || goes.holds() == 1).await;
    assert!(!goes.has_ended(), "it runs something");
    until("that shows", || states(&handle).contains(&ReplicaState::Closing)).await;
    assert!(goes.finish());
    until("it has ended", || goes.has_ended()).await;
    until_serving(&handle, 1).await;
    while !tickets.is_empty() {
        stays.finish();
        settle(&handle).await;
        if stays.holds() == 0 {
            for ticket in tickets.drain(..) {
                assert!(ticket.await.is_ok());
            }
        }
    }
    assert_eq!(fakes.starts(), 2);
}

#[tokio::test]
async fn a_number_that_can_not_be_is_refused_with_what_to_do_and_one_that_is_there_changes_nothing() {
    let (handle, fakes) = load_on(FakeLauncher::new(), singles(1)).await;
    let none = handle.scale(0).await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::InvalidInput);
    assert!(none.message().contains("to 0 replicas") && none.message().contains("unload it"), "{none}");
    let many = handle.scale(257).await.unwrap_err();
    assert!(many.message().contains("256 at most"), "{many}");
    for _ in 0..3 {
        handle.scale(1).await.unwrap();
    }
    assert_eq!(fakes.starts(), 1);
    for _ in 0..3 {
        handle.scale(3).await.unwrap();
    }
    until_serving(&handle, 3).await;
    assert_eq!(fakes.starts(), 3);
    let numbers: Vec<_> = handle.replicas().iter().map(|replica| replica.index).collect();
    assert_eq!(numbers, [0, 1, 2]);
}

#[tokio::test]
async fn a_model_may_be_scaled_while_it_loads() {
    for (before, after) in [(1, 3), (3, 1)] {
        let (clock, fakes) = (Clock::start(), FakeLauncher::new());
        let runtime = tokio::runtime::Handle::current();
        let (launchers, moderation) = (Arc::new(fakes.clone()), Moderation::new(clock, 1));
        let registry = Registry::new(clock, runtime, launchers, moderation, Arc::new(()));
        fakes.holds_starts.send_replace(true);
        let loading = {
            let registry = registry.clone();
            tokio::spawn(async move { registry.load(singles(before)).await })
        };
        until("it is known", || !registry.models().is_empty()).await;
        let handle = registry.models().remove(0);
        handle.scale(after).await.unwrap();
        assert_eq!(handle.state(), ModelState::Loading);
        fakes.holds_starts.send_replace(false);
        assert!(loading.await.unwrap().is_ok());
        until_serving(&handle, after as usize).await;
        assert_eq!(fakes.starts(), after as usize, "starts that are not wanted any more are given up");
        registry.unload("fake", 1).await.unwrap();
        assert_eq!(handle.scale(2).await.unwrap_err().kind(), ErrorKind::Draining);
    }
}

#[tokio::test]
async fn replicas_that_can_not_be_started_again_are_the_first_to_go_and_new_ones_start_beside_them() {
    let (handle, fakes) = load_on(FakeLauncher::new(), singles(2)).await;
    *fakes.refuses.lock().unwrap() = Some(Error::new(ErrorKind::ModelFailed, "no memory is left"));
    fakes.number(0).die();
    until("it waits for its next start", || states(&handle).contains(&ReplicaState::Backoff)).await;
    handle.scale(1).await.unwrap();
    until_serving(&handle, 1).await;
    assert!(!fakes.number(1).has_ended(), "the one that serves stays");
    let ticket = submit(&handle).await;
    until("it is run", || fakes.number(1).finish()).await;
    assert!(ticket.await.is_ok());
    fakes.number(1).die();
    until("nothing serves", || matches!(handle.state(), ModelState::Unavailable(_))).await;
    *fakes.refuses.lock().unwrap() = None;
    handle.scale(3).await.unwrap();
    until_serving(&handle, 3).await;
    assert_eq!(handle.state(), ModelState::Ready);
}

#[tokio::test]
async fn a_replica_of_suspects_that_is_not_wanted_any_more_leaves_them_to_the_others() {
    let (handle, fakes) = load_on(FakeLauncher::new(), singles(2)).await;
    let finish_any = || {
        let living = (0..fakes.starts()).map(|number| fakes.number(number)).filter(|fake| !fake.has_ended());
        living.collect::<Vec<_>>().iter().any(FakeReplica::finish)
    };
    let suspect = submit(&handle).await;
    until("it runs", || fakes.number(0).step(Step::Open, Step::Taken)).await;
    fakes.number(0).die();
    until("another is started", || fakes.starts() == 3).await;
    handle.scale(1).await.unwrap();
    until("the suspect is run", finish_any).await;
    assert!(suspect.await.is_ok());
    until_serving(&handle, 1).await;
    let ticket = submit(&handle).await;
    until("it is run", finish_any).await;
    assert!(ticket.await.is_ok());
}

#[tokio::test]
async fn threads_and_what_may_run_at_once_follow_the_number_of_replicas() {
    let machine = MachineShare { cores: 2, threads: Some(2), takes_turns: true, ..MachineShare::default() };
    let (handle, fakes) = load_on(FakeLauncher::new(), ModelSettings { machine, ..singles(1) }).await;
    handle.scale(2).await.unwrap();
    until_serving(&handle, 2).await;
    let placements: Vec<_> = [0, 1].map(|number| fakes.number(number).placement.replicas).into();
    assert_eq!(placements, [1, 2]);
    let running = submit(&handle).await;
    until("it runs", || [0, 1].iter().any(|number| fakes.number(*number).step(Step::Open, Step::Taken)))
        .await;
    fakes.bell.notify_one();
    let next = submit(&handle).await;
    settle(&handle).await;
    let busy = [0, 1].iter().filter(|number| fakes.number(**number).holds() > 0).count();
    assert_eq!(busy, 1, "the cores take one at a time");
    for ticket in [running, next] {
        until("it is run", || [0, 1].iter().any(|number| fakes.number(*number).finish())).await;
        assert!(ticket.await.is_ok());
    }
}

//! Requests that are answered without a run of their own, and those that must not be.

use std::time::Duration;

use inferd_dispatcher::{ModelHandle, Ticket};
use inferd_testkit::within;
use inferd_types::{ErrorKind, Priority};
use tokio::task::JoinHandle;

use crate::fixture::{Answer, Fixture, kind, request, submit, until, values};
use crate::worker::{HELD, INVALID};

const MIB: usize = 1 << 20;

/// Asks for `HELD` in a task of its own, so that it is under way.
fn ask_held(handle: &ModelHandle) -> JoinHandle<Answer> {
    tokio::spawn(submit(handle, HELD))
}

/// Waits until `count` requests are with the scheduler, queued or handed out.
async fn until_submitted(handle: &ModelHandle, count: u64) {
    within("the requests are submitted", async {
        while handle.explain().await["arrivals"].as_u64() != Some(count) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// A model with a cache whose runs of `HELD` last until the file is gone.
async fn held(fixture: &Fixture) -> (ModelHandle, std::path::PathBuf) {
    let hold = fixture.file("hold");
    let path = hold.to_str().unwrap().to_owned();
    let handle = fixture
        .load(|settings| {
            settings.cache_max_bytes = Some(MIB);
            settings.load["hold"] = path.into();
        })
        .await;
    (handle, hold)
}

#[tokio::test]
async fn an_equal_request_is_answered_without_a_run_and_another_is_run() {
    let fixture = Fixture::new();
    let handle = fixture.load(|settings| settings.cache_max_bytes = Some(MIB)).await;
    for _ in 0..3 {
        assert_eq!(values(submit(&handle, 1.0).await), [2.0]);
        assert_eq!(values(submit(&handle, 2.0).await), [3.0]);
        assert_eq!(values(handle.submit(request(&[1.0, 2.0])).await), [2.0, 3.0]);
    }
    let statistics = handle.statistics();
    assert_eq!((statistics.cache_hit.count, statistics.cache_miss.count), (6, 3));
    assert_eq!((statistics.success.count, statistics.inference_count), (9, 4));
    let status = fixture.registry.status(None).await;
    let cache = &status["models"][0]["cache"];
    assert_eq!((cache["hits"].as_u64(), cache["entries"].as_u64()), (Some(6), Some(3)));
    fixture.end().await;
}

#[tokio::test]
async fn without_a_cache_every_request_is_run() {
    let fixture = Fixture::new();
    let handle = fixture.load(|_| {}).await;
    for _ in 0..3 {
        assert_eq!(values(submit(&handle, 1.0).await), [2.0]);
    }
    let statistics = handle.statistics();
    assert_eq!((statistics.inference_count, statistics.cache_miss.count), (3, 0));
    assert!(fixture.registry.status(None).await["models"][0]["cache"].is_null());
    fixture.end().await;
}

#[tokio::test]
async fn equal_requests_at_once_run_once() {
    let fixture = Fixture::new();
    let (handle, hold) = held(&fixture).await;
    let leader = ask_held(&handle);
    until_submitted(&handle, 1).await;
    let followers: Vec<_> = (0..20).map(|_| ask_held(&handle)).collect();
    // Another request goes its own way meanwhile.
    let other = tokio::spawn(submit(&handle, 3.0));
    until_submitted(&handle, 2).await;
    std::fs::remove_file(hold).unwrap();
    assert_eq!(values(other.await.unwrap()), [4.0]);
    for answer in followers.into_iter().chain([leader]) {
        assert_eq!(values(within("it is answered", answer).await.unwrap()), [HELD + 1.0]);
    }
    let statistics = handle.statistics();
    assert_eq!((statistics.inference_count, statistics.success.count), (2, 22));
    fixture.end().await;
}

#[tokio::test]
async fn a_caller_that_leaves_hands_the_run_on_and_cancels_nobody() {
    let fixture = Fixture::new();
    let (handle, hold) = held(&fixture).await;
    let leader = ask_held(&handle);
    until_submitted(&handle, 1).await;
    let followers: Vec<_> = (0..5).map(|_| ask_held(&handle)).collect();
    // They are waiting by the time that a task spawned after them has run.
    tokio::spawn(async {}).await.unwrap();
    leader.abort();
    // One of those that waited, and only one.
    until_submitted(&handle, 2).await;
    std::fs::remove_file(hold).unwrap();
    for answer in followers {
        assert_eq!(values(within("it is answered", answer).await.unwrap()), [HELD + 1.0]);
    }
    assert_eq!(handle.explain().await["arrivals"], 2);
    fixture.end().await;
}

#[tokio::test]
async fn whoever_waits_does_so_within_its_own_time() {
    let fixture = Fixture::new();
    let (handle, hold) = held(&fixture).await;
    let leader = ask_held(&handle);
    until_submitted(&handle, 1).await;
    let mut hurried = request(&[HELD]);
    hurried.timeout = Some(fixture.clock.now() + Duration::from_millis(30));
    assert_eq!(kind(within("it is answered", handle.submit(hurried)).await), ErrorKind::DeadlineMissed);
    // The other way round: the time of who runs it is not that of who waits.
    leader.abort();
    let mut hurried = request(&[HELD]);
    hurried.timeout = Some(fixture.clock.now() + Duration::from_millis(50));
    let hurried = tokio::spawn(handle.submit(hurried));
    until_submitted(&handle, 2).await;
    let patient = ask_held(&handle);
    assert_eq!(kind(within("it is answered", hurried).await.unwrap()), ErrorKind::DeadlineMissed);
    std::fs::remove_file(hold).unwrap();
    assert_eq!(values(within("it is answered", patient).await.unwrap()), [HELD + 1.0]);
    fixture.end().await;
}

#[tokio::test]
async fn the_urgent_do_not_wait_for_what_is_served_later() {
    let fixture = Fixture::new();
    let (handle, hold) = held(&fixture).await;
    let leader = ask_held(&handle);
    until_submitted(&handle, 1).await;
    let mut urgent = request(&[HELD]);
    urgent.priority = Priority(0);
    let urgent: JoinHandle<Answer> = tokio::spawn(handle.submit(urgent));
    until_submitted(&handle, 2).await;
    std::fs::remove_file(hold).unwrap();
    for answer in [leader, urgent] {
        assert_eq!(values(within("it is answered", answer).await.unwrap()), [HELD + 1.0]);
    }
    fixture.end().await;
}

#[tokio::test]
async fn errors_are_told_to_those_who_made_them_and_not_kept() {
    let fixture = Fixture::new();
    let handle = fixture.load(|settings| settings.cache_max_bytes = Some(MIB)).await;
    let tickets: Vec<Ticket> = (0..4).map(|_| submit(&handle, INVALID)).collect();
    for ticket in tickets.into_iter().map(tokio::spawn).collect::<Vec<_>>() {
        assert_eq!(kind(within("it is answered", ticket).await.unwrap()), ErrorKind::InvalidInput);
    }
    assert_eq!(kind(submit(&handle, INVALID).await), ErrorKind::InvalidInput);
    let statistics = handle.statistics();
    assert_eq!((statistics.fail.count, statistics.cache_hit.count), (5, 0));
    fixture.end().await;
}

#[tokio::test]
async fn a_version_that_is_loaded_again_begins_with_nothing() {
    let fixture = Fixture::new();
    let before = fixture.load(|settings| settings.cache_max_bytes = Some(MIB)).await;
    assert_eq!(values(submit(&before, 1.0).await), [2.0]);
    fixture.registry.unload("plus-one", 1).await.unwrap();
    assert_eq!(kind(submit(&before, 1.0).await), ErrorKind::Draining);
    let after = fixture.load(|settings| settings.cache_max_bytes = Some(MIB)).await;
    assert_eq!(values(submit(&after, 1.0).await), [2.0]);
    let statistics = after.statistics();
    assert_eq!((statistics.cache_miss.count, statistics.cache_hit.count), (1, 0));
    fixture.end().await;
}

#[tokio::test]
async fn a_large_request_is_kept_as_well() {
    let fixture = Fixture::new();
    let handle = fixture
        .load(|settings| {
            settings.cache_max_bytes = Some(64 * MIB);
            settings.arena_max_bytes = 64 * MIB;
            settings.batch_rows_max = 65_536;
        })
        .await;
    let rows: Vec<f32> = (0..60_000).map(|row| row as f32 + 1.0).collect();
    let first = values(handle.submit(request(&rows)).await);
    let kept = || async { fixture.registry.status(None).await["models"][0]["cache"]["entries"] == 1 };
    within("it is kept", async { while !kept().await {} }).await;
    assert_eq!(values(handle.submit(request(&rows)).await), first);
    until("it was a hit", || handle.statistics().cache_hit.count == 1).await;
    fixture.end().await;
}

//! Whether requests share runs, decided by rows that come: with workers that really mix rows, die and answer.

use inferd_dispatcher::ModelHandle;
use inferd_testkit::within;
use inferd_types::settings::ModelSettings;
use serde_json::json;

use crate::fixture::{Fixture, request, submit, until, until_ready, values};
use crate::worker::LONELY;

fn probed(mixes_above: f32) -> impl FnOnce(&mut ModelSettings) {
    move |settings| settings.load = json!({"probed": true, "mixes_above": mixes_above})
}

fn verified(mixes_above: f32) -> impl FnOnce(&mut ModelSettings) {
    move |settings| {
        probed(mixes_above)(settings);
        settings.comparison.verify = true;
    }
}

/// Sends bursts of eight unlike rows until somebody has decided. Every answer must be that of a row alone.
async fn send_until_decided(fixture: &Fixture, handle: &ModelHandle) {
    let before = fixture.losses.verdicts();
    within("somebody decides", async {
        for burst in 0.. {
            // A difference of 1 is more than the tolerance of these.
            let rows: Vec<f32> = (0..8).map(|row| ((burst * 8 + row) % 800) as f32).collect();
            let tickets: Vec<_> = rows.iter().map(|row| submit(handle, *row)).collect();
            for (row, ticket) in rows.iter().zip(tickets) {
                assert_eq!(values(ticket.await), [row + 1.0]);
            }
            if fixture.losses.verdicts() > before {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Two requests at once, which are read together and so share a run where they may.
async fn together(handle: &ModelHandle, rows: [f32; 2]) -> [f32; 2] {
    let [one, other] = rows.map(|row| submit(handle, row));
    [values(one.await)[0], values(other.await)[0]]
}

#[tokio::test]
async fn an_audit_finds_rows_that_see_each_other_and_ends_their_company() {
    let fixture = Fixture::new();
    let handle = fixture.load(probed(100.0)).await;
    assert_eq!(fixture.losses.verdict(), Some(("probe", true)));
    // What was in flight before the audit is wrong, as the probe let it through.
    let answered = together(&handle, [200.0, 1.0]).await;
    assert_eq!(answered, [202.0, 3.0]);
    until("company ends", || fixture.losses.verdict() == Some(("traffic", false))).await;
    assert_eq!(together(&handle, [200.0, 1.0]).await, [201.0, 2.0]);
    assert_eq!(values(handle.submit(request(&[5.0; 50])).await), [6.0; 50]);
    let told = handle.explain().await["batching"].clone();
    assert_eq!(
        (&told["by"], &told["shared"], &told["differing"]),
        (&json!("traffic"), &json!(false), &json!(1))
    );
    assert!(
        told["why"].as_str().unwrap().starts_with("output 'y' of a row that came changed by 1"),
        "{told}"
    );
    // Audits are no requests.
    let statistics = handle.statistics();
    assert_eq!((statistics.success.count, statistics.fail.count), (5, 0));
    fixture.end().await;
}

#[tokio::test]
async fn an_honest_model_earns_company_with_the_rows_that_come() {
    let fixture = Fixture::new();
    let handle = fixture.load(verified(f32::INFINITY)).await;
    assert_eq!(fixture.losses.verdict(), Some(("traffic", false)));
    assert!(handle.signature().unwrap().batched());
    send_until_decided(&fixture, &handle).await;
    assert_eq!(fixture.losses.verdict(), Some(("traffic", true)));
    let alone = handle.statistics();
    // The last burst may have been the first to share runs.
    assert!(alone.execution_count + 8 > alone.success.count, "requests shared runs before");
    let tickets: Vec<_> = (0..64).map(|row| submit(&handle, row as f32)).collect();
    for (row, ticket) in (0..64).zip(tickets) {
        assert_eq!(values(ticket.await), [row as f32 + 1.0]);
    }
    let shared = handle.statistics();
    assert!(shared.execution_count - alone.execution_count < 64, "nothing shared a run");
    let told = handle.explain().await["batching"].clone();
    assert!(told["rows"].as_u64().unwrap() >= 400 && told["bound"].as_f64().unwrap() <= 0.0075, "{told}");
    fixture.end().await;
}

#[tokio::test]
async fn a_model_that_mixes_rows_is_found_out_before_it_answers_a_wrong_one() {
    let fixture = Fixture::new();
    let handle = fixture.load(verified(100.0)).await;
    assert_eq!(fixture.losses.verdict(), Some(("traffic", false)));
    send_until_decided(&fixture, &handle).await;
    assert_eq!(fixture.losses.verdict(), Some(("traffic", false)));
    let told = handle.explain().await["batching"].clone();
    assert_eq!((&told["shared"], &told["rows_wanted"]), (&json!(false), &json!(null)), "{told}");
    fixture.end().await;
}

#[tokio::test]
async fn a_worker_that_ends_in_an_audit_is_started_again_and_no_request_fails_for_it() {
    let fixture = Fixture::new();
    let handle = fixture.load(probed(f32::INFINITY)).await;
    assert_eq!(together(&handle, [LONELY, LONELY]).await, [LONELY + 1.0; 2]);
    until("the audit ends its worker", || fixture.losses.seen().len() == 1).await;
    assert_eq!(values(submit(&handle, 1.0).await), [2.0]);
    until_ready(&handle, 1).await;
    assert_eq!(fixture.losses.verdict(), Some(("probe", true)));
    assert_eq!(handle.statistics().fail.count, 0);
    fixture.end().await;
}

#[tokio::test]
async fn what_must_not_run_twice_can_not_be_verified() {
    let fixture = Fixture::new();
    let settings = crate::fixture::settings(|settings| {
        verified(1.0)(settings);
        settings.retry_on_worker_loss = false;
    });
    let error = fixture.registry.load(settings).await.unwrap_err();
    assert!(error.message().contains("retry_on_worker_loss: false forbids"), "{error}");
    fixture.end().await;
}

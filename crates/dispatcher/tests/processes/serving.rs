//! Loading, serving, cancelling, draining: nothing goes wrong that nobody wanted.

use std::time::Duration;

use inferd_dispatcher::{ModelState, ReplicaState};
use inferd_testkit::within;
use inferd_types::ErrorKind;
use inferd_types::settings::ModelSettings;
use serde_json::json;

use crate::fixture::{Fixture, kind, request, settings, submit, until, until_ready, values, with};
use crate::worker::{CRASH, HANG, HELD, INVALID};

#[tokio::test]
async fn each_request_gets_its_own_rows() {
    let fixture = Fixture::new();
    let handle = fixture.load(|_| {}).await;
    let tickets: Vec<_> = (1..200).map(|n| handle.submit(request(&vec![n as f32; n % 5 + 1]))).collect();
    for (n, ticket) in (1..200).zip(tickets) {
        assert_eq!(values(ticket.await), vec![n as f32 + 1.0; n % 5 + 1]);
    }
    let statistics = handle.statistics();
    assert_eq!(statistics.success.count, 199);
    assert_eq!(statistics.inference_count, (1..200).map(|n| n % 5 + 1).sum::<u64>());
    assert!(statistics.execution_count < 199, "nothing shared a batch");
    assert_eq!(
        statistics.batches.values().map(|b| b.compute_infer.count).sum::<u64>(),
        statistics.execution_count
    );
    fixture.end().await;
}

#[tokio::test]
async fn a_model_that_is_not_batched_runs_one_request_at_a_time() {
    let fixture = Fixture::new();
    let handle = fixture.load(with("batched", false)).await;
    let tickets: Vec<_> = (1..20).map(|n| handle.submit(request(&[n as f32, 0.0]))).collect();
    for (n, ticket) in (1..20).zip(tickets) {
        assert_eq!(values(ticket.await), [n as f32 + 1.0, 1.0]);
    }
    assert_eq!(handle.statistics().execution_count, 19);
    fixture.end().await;
}

#[tokio::test]
async fn samples_run_before_a_replica_is_ready_and_one_that_fails_is_named() {
    let fixture = Fixture::new();
    let sample = |name: &str, first: f32, count: u32| {
        let values = json!({"datatype": null, "shape": null, "data": {"values": [[first, 0.0]]}});
        serde_json::from_value(json!({"name": name, "rows": 2, "count": count, "inputs": {"x": values}}))
            .unwrap()
    };
    let handle = fixture.load(|settings| settings.samples = vec![sample("good", 1.0, 3)]).await;
    assert_eq!(values(submit(&handle, 1.0).await), [2.0]);
    for (first, words) in [(INVALID, "this value is not liked"), (CRASH, "the worker ended by signal 6")] {
        let other = settings(|settings| {
            settings.version = 2;
            settings.samples = vec![sample("good", 1.0, 2), sample("bad", first, 1)];
        });
        let error = fixture.registry.load(other).await.unwrap_err();
        assert!(error.message().starts_with("warm-up sample 'bad': "), "{error}");
        assert!(error.message().contains(words), "{error}");
    }
    fixture.end().await;
}

#[tokio::test]
async fn a_request_without_rows_is_answered_without_rows() {
    let fixture = Fixture::new();
    let handle = fixture.load(|_| {}).await;
    let answers = [handle.submit(request(&[])), handle.submit(request(&[])), submit(&handle, 1.0)];
    let [first, second, third] = answers;
    assert!(values(first.await).is_empty() && values(second.await).is_empty());
    assert_eq!(values(third.await), [2.0]);
    fixture.end().await;
}

#[tokio::test]
async fn a_request_of_more_rows_than_a_batch_runs_as_it_came() {
    let fixture = Fixture::new();
    let handle = fixture.load(|settings| settings.batch_rows_max = 4).await;
    assert_eq!(values(handle.submit(request(&[3.0; 50])).await), [4.0; 50]);
    fixture.end().await;
}

#[tokio::test]
async fn the_greatest_version_is_found_and_versions_are_numbers() {
    let fixture = Fixture::new();
    for version in [2, 10] {
        fixture.load(|settings| settings.version = version).await;
    }
    let found = |version| fixture.registry.find("plus-one", version, None).map(|handle| handle.version());
    assert_eq!(found(None).unwrap(), 10);
    assert_eq!(found(Some("2")).unwrap(), 2);
    for wrong in ["3", "+2", "two", "-1", "2.0"] {
        assert_eq!(found(Some(wrong)).unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(fixture.registry.find("other", None, None).unwrap_err().kind(), ErrorKind::NotFound);
    let versions: Vec<_> = fixture.registry.models().iter().map(|model| model.version()).collect();
    assert_eq!(versions, [2, 10]);
    let twice = fixture.registry.load(settings(|settings| settings.version = 2)).await;
    assert_eq!(twice.unwrap_err().kind(), ErrorKind::InvalidInput);
    fixture.end().await;
}

#[tokio::test]
async fn a_model_is_not_ready_until_every_replica_is_warm() {
    let fixture = Fixture::new();
    let gate = fixture.file("gate");
    let registry = fixture.registry.clone();
    let path = gate.to_str().unwrap().to_owned();
    let loading = tokio::spawn(async move {
        let mut settings = settings(with("load_while", path));
        settings.replicas = 2;
        registry.load(settings).await
    });
    until("the model is seen", || fixture.registry.models().len() == 1).await;
    let handle = fixture.registry.models().remove(0);
    assert_eq!(handle.state(), ModelState::Loading);
    assert_eq!(fixture.registry.find("plus-one", None, None).unwrap_err().kind(), ErrorKind::NotReady);
    assert_eq!(kind(submit(&handle, 1.0).await), ErrorKind::NotReady);
    std::fs::remove_file(gate).unwrap();
    let handle = within("the model is loaded", loading).await.unwrap().unwrap();
    assert_eq!(handle.state(), ModelState::Ready);
    let states: Vec<_> = handle.replicas().iter().map(|replica| replica.state).collect();
    assert_eq!(states, [ReplicaState::Ready; 2]);
    assert_eq!(values(submit(&handle, 1.0).await), [2.0]);
    fixture.end().await;
}

#[tokio::test]
async fn a_model_that_does_not_load_tells_why_and_leaves_nothing() {
    let fixture = Fixture::new();
    let error = fixture.registry.load(settings(with("fail", "no such operator"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelFailed);
    assert!(error.message().contains("no such operator"), "{error}");
    assert_eq!(error.detail(), Some("a traceback"));
    assert!(fixture.registry.models().is_empty());
    let error = fixture.registry.load(settings(with("exit", 7))).await.unwrap_err();
    assert!(error.message().contains('7'), "{error}");
    fixture.end().await;
}

#[tokio::test]
async fn loading_that_takes_too_long_is_given_up() {
    let fixture = Fixture::new();
    let gate = fixture.file("gate");
    let mut settings = settings(with("load_while", gate.to_str().unwrap()));
    settings.load_max_s.0 = Duration::from_millis(200);
    let error = fixture.registry.load(settings).await.unwrap_err();
    assert!(error.message().contains("load_max_s"), "{error}");
    fixture.end().await;
}

#[tokio::test]
async fn a_model_that_refuses_the_warm_up_input_is_served_all_the_same() {
    let fixture = Fixture::new();
    let handle = fixture.load(with("refuse_zeros", true)).await;
    assert_eq!(values(submit(&handle, 1.0).await), [2.0]);
    fixture.end().await;
}

#[tokio::test]
async fn an_invalid_request_does_not_harm_those_it_shares_a_batch_with() {
    let fixture = Fixture::new();
    let handle = fixture.load(|_| {}).await;
    let tickets: Vec<_> =
        (0..40).map(|n| submit(&handle, if n == 17 { INVALID } else { n as f32 })).collect();
    for (n, ticket) in tickets.into_iter().enumerate() {
        match ticket.await {
            Ok(response) => assert_eq!(values(Ok(response)), [n as f32 + 1.0]),
            Err(error) => {
                assert_eq!((n, error.kind()), (17, ErrorKind::InvalidInput));
                assert!(error.message().contains("not liked"));
            }
        }
    }
    assert_eq!(handle.statistics().fail.count, 1);
    fixture.end().await;
}

#[tokio::test]
async fn a_request_that_no_arena_holds_is_refused_with_the_setting_to_change() {
    let fixture = Fixture::new();
    let settings = |settings: &mut ModelSettings| {
        (settings.arena_max_bytes, settings.batch_rows_max) = (1 << 20, 1_000_000);
    };
    let handle = fixture.load(settings).await;
    let Err(error) = handle.submit(request(&vec![1.0; 400_000])).await else { panic!("it was run") };
    assert!(matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::Overloaded), "{error}");
    assert_eq!(values(submit(&handle, 1.0).await), [2.0]);
    fixture.end().await;
}

#[tokio::test]
async fn a_request_of_more_rows_than_the_arena_holds_runs_in_parts_and_is_one_answer() {
    let fixture = Fixture::new();
    let set = |settings: &mut ModelSettings| {
        settings.arena_max_bytes = 1 << 20;
        settings.queue_rows_max = 1 << 20;
    };
    let handle = fixture.load(set).await;
    let sent: Vec<f32> = (0..200_000).map(|row| row as f32).collect();
    let (many, one) = (handle.submit(request(&sent)), submit(&handle, 1.0));
    let expected: Vec<f32> = sent.iter().map(|row| row + 1.0).collect();
    assert!(values(many.await) == expected, "rows are missing or not in their places");
    assert_eq!(values(one.await), [2.0]);
    fixture.end().await;
}

#[tokio::test]
async fn a_request_of_more_rows_than_run_together_comes_back_whole() {
    let fixture = Fixture::new();
    let handle = fixture.load(|settings| settings.batch_rows_max = 8).await;
    let numbers: Vec<f32> = (0u8..100).map(f32::from).collect();
    let answers: Vec<f32> = numbers.iter().map(|number| number + 1.0).collect();
    assert_eq!(values(handle.submit(request(&numbers)).await), answers);
    assert!(handle.statistics().batches.keys().all(|rows| *rows <= 8));
    fixture.end().await;
}

#[tokio::test]
async fn who_goes_away_is_not_run() {
    let fixture = Fixture::new();
    let hold = fixture.file("hold");
    let handle = fixture.load(with("hold", hold.to_str().unwrap())).await;
    let held = submit(&handle, HELD);
    let leaving: Vec<_> = (0..10).map(|_| submit(&handle, 5.0)).collect();
    // All of them are known to the task before they leave.
    handle.explain().await;
    drop(leaving);
    let staying = submit(&handle, 6.0);
    handle.explain().await;
    std::fs::remove_file(hold).unwrap();
    assert_eq!(values(held.await), [HELD + 1.0]);
    assert_eq!(values(staying.await), [7.0]);
    assert_eq!(handle.statistics().inference_count, 2);
    fixture.end().await;
}

#[tokio::test]
async fn a_timeout_is_answered_while_its_batch_still_runs() {
    let fixture = Fixture::new();
    let hold = fixture.file("hold");
    let handle = fixture.load(with("hold", hold.to_str().unwrap())).await;
    let soon = |value| {
        let mut request = request(&[value]);
        request.timeout = Some(fixture.clock.now() + Duration::from_millis(50));
        handle.submit(request)
    };
    let (running, queued) = (soon(HELD), soon(1.0));
    assert_eq!(kind(within("the running one is answered", running).await), ErrorKind::DeadlineMissed);
    assert_eq!(kind(within("the queued one is answered", queued).await), ErrorKind::DeadlineMissed);
    std::fs::remove_file(hold).unwrap();
    assert_eq!(values(submit(&handle, 1.0).await), [2.0]);
    fixture.end().await;
}

#[tokio::test]
async fn unloading_answers_what_was_admitted() {
    let fixture = Fixture::new();
    let hold = fixture.file("hold");
    let handle = fixture.load(with("hold", hold.to_str().unwrap())).await;
    let tickets: Vec<_> = (0..50).map(|n| submit(&handle, if n == 0 { HELD } else { n as f32 })).collect();
    handle.explain().await;
    let registry = fixture.registry.clone();
    let unloading = tokio::spawn(async move { registry.unload("plus-one", 1).await });
    until("the model drains", || handle.state() == ModelState::Draining).await;
    assert_eq!(kind(submit(&handle, 1.0).await), ErrorKind::Draining);
    std::fs::remove_file(hold).unwrap();
    for ticket in tickets {
        assert!(ticket.await.is_ok());
    }
    within("unloading ends", unloading).await.unwrap().unwrap();
    assert_eq!(fixture.registry.find("plus-one", None, None).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(kind(submit(&handle, 1.0).await), ErrorKind::Draining);
    assert!(handle.replicas().is_empty());
    assert_eq!(fixture.registry.unload("plus-one", 1).await.unwrap_err().kind(), ErrorKind::NotFound);
    fixture.load(|_| {}).await;
    fixture.end().await;
}

#[tokio::test]
async fn draining_counts_those_whose_time_was_over() {
    let fixture = Fixture::new();
    let handle = fixture.load(|_| {}).await;
    let (hanging, good) = (submit(&handle, HANG), handle.submit(request(&[1.0; 32])));
    handle.explain().await;
    let drained = fixture.registry.drain(Duration::from_millis(100)).await;
    // The good one waited behind the one that hangs.
    assert_eq!(drained.unanswered, 2);
    assert_eq!(kind(hanging.await), ErrorKind::Draining);
    assert_eq!(kind(good.await), ErrorKind::Draining);
    let refused = fixture.registry.load(settings(|_| {})).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Draining);
    fixture.end().await;
}

#[tokio::test]
async fn draining_under_load_answers_everything_that_was_admitted() {
    let fixture = Fixture::new();
    let handle = fixture.load(|settings| settings.replicas = 2).await;
    let callers: Vec<_> = (0..16)
        .map(|caller| {
            let handle = handle.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    match submit(&handle, n as f32).await {
                        Ok(response) => assert_eq!(values(Ok(response)), [n as f32 + 1.0]),
                        Err(error) => return (error.kind(), caller),
                    }
                }
                unreachable!()
            })
        })
        .collect();
    until("some are answered", || handle.statistics().success.count > 500).await;
    let drained = within("draining ends", fixture.registry.drain(Duration::from_secs(20))).await;
    assert_eq!(drained.unanswered, 0);
    for caller in callers {
        assert_eq!(caller.await.unwrap().0, ErrorKind::Draining);
    }
    fixture.end().await;
}

#[tokio::test]
async fn worker_processes_come_and_go_under_load_and_nothing_is_lost() {
    let fixture = Fixture::new();
    let handle = fixture.load(|_| {}).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (handle, stopped) = (handle.clone(), stopped.clone());
            tokio::spawn(async move {
                for n in 0.. {
                    if *stopped.borrow() {
                        break;
                    }
                    assert_eq!(values(submit(&handle, n as f32).await), [n as f32 + 1.0]);
                }
            })
        })
        .collect();
    for wanted in [3, 1, 2] {
        handle.scale(wanted).await.unwrap();
        fixture.remember(&handle);
        until_ready(&handle, wanted as usize).await;
        fixture.remember(&handle);
        let before = handle.statistics().success.count;
        until("it serves", || handle.statistics().success.count > before + 200).await;
    }
    stop.send(true).unwrap();
    for caller in callers {
        within("callers end", caller).await.unwrap();
    }
    assert_eq!(handle.statistics().fail.count, 0);
    assert!(fixture.losses.seen().is_empty(), "nothing was lost: workers ended as they were asked to");
    fixture.end().await;
}

#[tokio::test]
async fn the_curve_is_measured_while_nobody_wants_anything() {
    let fixture = Fixture::new();
    let handle = fixture
        .load(|settings| {
            settings.profiling = true;
            settings.batch_rows_max = 6;
        })
        .await;
    assert_eq!(values(submit(&handle, 1.0).await), [2.0]);
    until("the curve is there", || handle.profile().len() == 4).await;
    let rows: Vec<_> = handle.profile().iter().map(|(rows, _)| *rows).collect();
    assert_eq!(rows, [1, 2, 4, 6]);
    assert_eq!(handle.statistics().inference_count, 1, "measurements are not inferences");
    until_ready(&handle, 1).await;
    assert_eq!(values(submit(&handle, 1.0).await), [2.0]);
    assert!(handle.explain().await["curve"].as_array().is_some_and(|curve| !curve.is_empty()));
    fixture.end().await;
}

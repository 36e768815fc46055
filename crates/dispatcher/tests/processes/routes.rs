//! Routes that change while requests are under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use inferd_dispatcher::{ModelState, Rules};
use inferd_types::ErrorKind;
use inferd_types::settings::{PipelineSettings, StepSettings};
use serde_json::json;

use inferd_testkit::within;

use crate::fixture::{Fixture, kind, request, settings, submit, until, values, with};
use crate::worker::HELD;

const NAME: &str = "plus-one";
const LONG: Duration = Duration::from_secs(20);

fn adds(number: u32) -> impl FnOnce(&mut inferd_types::settings::ModelSettings) {
    with("add", number)
}

fn pipeline(models: &[(&str, u32)]) -> PipelineSettings {
    let step = StepSettings {
        name: "only".to_owned(),
        models: models.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect(),
        inputs: vec![("x".to_owned(), vec!["x".to_owned()])],
        when: None,
        optional: false,
    };
    PipelineSettings {
        name: "flow".to_owned(),
        slo: None,
        priority_default: 1,
        steps: vec![step],
        outputs: vec![("y".to_owned(), vec!["only.y".to_owned()])],
    }
}

#[tokio::test]
async fn a_generation_is_replaced_under_load_and_no_request_fails() {
    let fixture = Fixture::new();
    fixture.load(adds(1)).await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::<[AtomicU64; 4]>::default());
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (registry, stop, answered) = (fixture.registry.clone(), stop.clone(), answered.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let handle = registry.find(NAME, None, None).unwrap();
                    // As a request does whose body is still under way.
                    tokio::task::yield_now().await;
                    let answer = values(submit(&handle, 10.0).await)[0] as usize - 10;
                    answered[answer].fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for number in [2, 3] {
        let seen = answered[number as usize - 1].load(Ordering::Relaxed);
        until("it serves", || answered[number as usize - 1].load(Ordering::Relaxed) > seen).await;
        let handle = fixture.registry.replace(settings(adds(number)), LONG).await.unwrap();
        fixture.remember(&handle);
    }
    until("the last one serves", || answered[3].load(Ordering::Relaxed) > 100).await;
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(answered[1].load(Ordering::Relaxed) > 0 && answered[2].load(Ordering::Relaxed) > 0);
    assert_eq!(fixture.registry.models().len(), 1);
    fixture.end().await;
}

#[tokio::test]
async fn who_holds_the_old_generation_is_answered_by_it() {
    let fixture = Fixture::new();
    let old = fixture.load(adds(1)).await;
    let new = fixture.registry.replace(settings(adds(5)), LONG).await.unwrap();
    fixture.remember(&new);
    assert_eq!(values(submit(&old, 1.0).await), [2.0]);
    assert_eq!(values(submit(&fixture.registry.find(NAME, None, None).unwrap(), 1.0).await), [6.0]);
    assert_eq!(old.state(), ModelState::Ready, "a caller holds it");
    let pid = old.replicas()[0].pid.unwrap();
    drop(old);
    until("its worker has ended", || !std::path::Path::new(&format!("/proc/{pid}")).exists()).await;
    fixture.end().await;
}

#[tokio::test]
async fn who_holds_it_for_longer_than_it_may_is_refused() {
    let fixture = Fixture::new();
    let old = fixture.load(adds(1)).await;
    let new = fixture.registry.replace(settings(adds(5)), Duration::from_millis(20)).await.unwrap();
    fixture.remember(&new);
    until("it drains", || old.state() == ModelState::Draining).await;
    assert_eq!(kind(submit(&old, 1.0).await), ErrorKind::Draining);
    fixture.end().await;
}

#[tokio::test]
async fn a_replacement_that_does_not_load_changes_nothing() {
    let fixture = Fixture::new();
    let old = fixture.load(adds(1)).await;
    let failing = settings(with("fail", "no such operator"));
    let error = fixture.registry.replace(failing, LONG).await.unwrap_err();
    assert!(error.message().contains("no such operator"), "{error}");
    assert_eq!(values(submit(&old, 1.0).await), [2.0]);
    assert!(fixture.registry.find(NAME, Some("1"), None).is_ok());
    let unknown =
        fixture.registry.replace(settings(|settings| settings.version = 9), LONG).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    fixture.end().await;
}

#[tokio::test]
async fn draining_ends_a_generation_that_is_replaced_too() {
    let fixture = Fixture::new();
    let hold = fixture.file("hold");
    let old = fixture.load(with("hold", hold.to_str().unwrap())).await;
    let held = submit(&old, HELD);
    let new = fixture.registry.replace(settings(adds(2)), LONG).await.unwrap();
    fixture.remember(&new);
    old.explain().await;
    let registry = fixture.registry.clone();
    let draining = tokio::spawn(async move { registry.drain(LONG).await });
    until("the old one drains", || old.state() == ModelState::Draining).await;
    std::fs::remove_file(hold).unwrap();
    assert!(held.await.is_ok());
    assert_eq!(within("draining ends", draining).await.unwrap().unanswered, 0);
    fixture.end().await;
}

#[tokio::test]
async fn an_alias_is_a_version_and_a_split_shares_what_names_none() {
    let fixture = Fixture::new();
    for version in [1, 2] {
        fixture
            .load(|settings| {
                settings.version = version;
                settings.load["add"] = json!(version);
            })
            .await;
    }
    let version = |version, key| fixture.registry.find(NAME, version, key).map(|handle| handle.version());
    assert_eq!(version(Some("stable"), None).unwrap_err().kind(), ErrorKind::NotFound);
    let rules = Rules {
        aliases: BTreeMap::from([("stable".to_owned(), 1)]),
        split: vec![(1, 75), (2, 25)],
        shadow: Vec::new(),
    };
    fixture.registry.set_rules(NAME, rules).unwrap();
    assert_eq!(version(Some("stable"), None).unwrap(), 1);
    assert_eq!(version(Some("2"), None).unwrap(), 2);
    let second = (0..1000).filter(|_| version(None, None).unwrap() == 2).count();
    assert!((170..330).contains(&second), "{second} of 1000");
    let of_key = version(None, Some("caller")).unwrap();
    assert!((0..100).all(|_| version(None, Some("caller")).unwrap() == of_key));
    fixture.registry.unload(NAME, 2).await.unwrap();
    assert!((0..100).all(|_| version(None, None).unwrap() == 1), "who does not serve yields its share");
    let unknown = fixture.registry.set_rules("other", Rules::default()).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    fixture.end().await;
}

#[tokio::test]
async fn a_pipeline_follows_the_route_of_its_model() {
    let fixture = Fixture::new();
    fixture.load(adds(1)).await;
    let flow = fixture.registry.load_pipeline(pipeline(&[(NAME, 1)])).unwrap();
    assert_eq!(values(flow.submit(request(&[1.0])).await), [2.0]);
    // Its first step is not begun before it is awaited; the routes are those of its arrival.
    let before = flow.submit(request(&[1.0]));
    let new = fixture.registry.replace(settings(adds(5)), LONG).await.unwrap();
    fixture.remember(&new);
    assert_eq!(values(flow.submit(request(&[1.0])).await), [6.0]);
    assert_eq!(values(before.await), [2.0]);
    let greater = fixture
        .load(|settings| {
            settings.version = 2;
            settings.load["add"] = json!(7);
        })
        .await;
    assert_eq!(values(flow.submit(request(&[1.0])).await), [8.0]);
    drop(greater);
    fixture.registry.unload(NAME, 2).await.unwrap();
    assert_eq!(values(flow.submit(request(&[1.0])).await), [6.0]);
    fixture.end().await;
}

#[tokio::test]
async fn what_a_pipeline_can_not_take_is_refused_with_both_signatures() {
    let fixture = Fixture::new();
    fixture.load(adds(1)).await;
    let flow = fixture.registry.load_pipeline(pipeline(&[(NAME, 1)])).unwrap();
    let renamed = |version| {
        settings(|settings| {
            settings.version = version;
            settings.load["renamed"] = json!(true);
        })
    };
    let error = fixture.registry.replace(renamed(1), LONG).await.unwrap_err();
    assert!(error.message().contains("pipeline 'flow'"), "{error}");
    assert!(error.message().contains("'y' FP32[-1, 2]") && error.message().contains("'z' FP32[-1, 2]"));
    assert!(fixture.registry.load(renamed(2)).await.is_err(), "its requests would go there");
    assert_eq!(values(flow.submit(request(&[1.0])).await), [2.0]);
    let error = fixture.registry.unload(NAME, 1).await.unwrap_err();
    assert!(error.message().contains("no other version"), "{error}");
    fixture.registry.unload("flow", 1).await.unwrap();
    let new = fixture.registry.replace(renamed(1), LONG).await.unwrap();
    fixture.remember(&new);
    fixture.end().await;
}

#[tokio::test]
async fn a_replacement_whose_caller_has_gone_is_loaded_and_ends_the_old_one() {
    let fixture = Fixture::new();
    let gate = fixture.file("gate");
    let old = fixture.load(adds(1)).await;
    let slow = settings(|settings| {
        settings.load["add"] = json!(2);
        settings.load["load_while"] = json!(gate.to_str().unwrap());
    });
    let mut replacing = Box::pin(fixture.registry.replace(slow, LONG));
    assert!(tokio::time::timeout(Duration::ZERO, &mut replacing).await.is_err(), "it waits for the gate");
    let error = fixture.registry.unload(NAME, 1).await.unwrap_err();
    assert!(error.message().contains("a replacement of version 1"), "{error}");
    drop(replacing);
    std::fs::remove_file(gate).unwrap();
    let registry = &fixture.registry;
    until("the new one serves", || registry.models()[0].replicas()[0].pid != old.replicas()[0].pid).await;
    fixture.remember(&registry.models()[0]);
    let pid = old.replicas()[0].pid.unwrap();
    drop(old);
    until("the old one's worker has ended", || !std::path::Path::new(&format!("/proc/{pid}")).exists()).await;
    assert_eq!(values(submit(&registry.models()[0], 1.0).await), [3.0]);
    fixture.end().await;
}

#[tokio::test]
async fn rules_that_would_give_a_pipeline_other_tensors_are_refused() {
    let fixture = Fixture::new();
    fixture.load(adds(1)).await;
    let renamed = |settings: &mut inferd_types::settings::ModelSettings| {
        settings.version = 2;
        settings.load["renamed"] = json!(true);
    };
    fixture.load(renamed).await;
    let only = |version| Rules { split: vec![(version, 1)], ..Rules::default() };
    fixture.registry.set_rules(NAME, only(1)).unwrap();
    let flow = fixture.registry.load_pipeline(pipeline(&[(NAME, 1)])).unwrap();
    assert_eq!(values(flow.submit(request(&[1.0])).await), [2.0]);
    let error = fixture.registry.set_rules(NAME, only(2)).unwrap_err();
    assert!(error.message().contains("pipeline 'flow'"), "{error}");
    assert!(fixture.registry.load_pipeline(pipeline(&[(NAME, 1)])).is_err(), "its name is taken");
    assert!(fixture.registry.unload(NAME, 1).await.is_err());
    fixture.end().await;
}

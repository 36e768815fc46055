//! Sequences whose worker dies, and models that are told who has gone.

use std::sync::Arc;

use inferd_types::settings::{Control, SequenceSettings};
use inferd_types::{InferResponse, Result, Sequence, SequenceId, Tenant, TensorSpec};

use super::*;

/// A model that remembers by itself.
async fn remembering(retry: bool) -> (ModelHandle, FakeLauncher) {
    let tells = |loaded: &mut LoadedModel| {
        let idle_max_s = Seconds(Duration::from_secs(60));
        loaded.sequence =
            Some(SequenceSettings { idle_max_s, sequences_max: 10, ..SequenceSettings::default() });
    };
    load_on(FakeLauncher { tells: Some(tells), ..FakeLauncher::new() }, settings(retry)).await
}

async fn ask(handle: &ModelHandle, id: u64, start: bool, end: bool) -> Pending {
    let sequence = Some(Arc::new(Sequence { id: SequenceId::Number(id), start, end }));
    let pending = tokio::spawn(handle.submit(InferRequest { sequence, ..request(1) }));
    settle(handle).await;
    pending
}

type Pending = tokio::task::JoinHandle<Result<InferResponse>>;

async fn answer(fake: &FakeReplica, pending: Pending) -> Result<InferResponse> {
    until("it is run", || fake.finish()).await;
    pending.await.unwrap()
}

#[tokio::test]
async fn a_request_of_a_sequence_waits_for_the_one_before_it() {
    let (handle, fakes) = remembering(true).await;
    let first = ask(&handle, 1, true, false).await;
    let second = ask(&handle, 1, false, true).await;
    let other = ask(&handle, 2, true, false).await;
    let fake = fakes.number(0);
    until("the first is staged", || fake.holds() > 0).await;
    let rows: usize = fake.lock().batches.iter().flatten().map(|(_, inputs, _)| inputs.len()).sum();
    assert_eq!(rows, 2, "the first of each sequence");
    while fake.finish() {}
    assert!(first.await.unwrap().is_ok() && other.await.unwrap().is_ok());
    assert!(answer(&fake, second).await.is_ok());
    let ended = ask(&handle, 1, false, false).await;
    let error = ended.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[tokio::test]
async fn a_lost_replica_loses_its_sequences_and_says_so() {
    let (handle, fakes) = remembering(true).await;
    let fake = fakes.number(0);
    for id in [1, 2] {
        let begun = ask(&handle, id, true, false).await;
        assert!(answer(&fake, begun).await.is_ok());
    }
    let running = ask(&handle, 1, false, false).await;
    until("it runs", || fake.step(Step::Open, Step::Taken)).await;
    let behind = ask(&handle, 1, false, false).await;
    fake.die();
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WorkerLost);
    assert!(error.message().contains("sequence was lost"), "{error}");
    assert_eq!(
        behind.await.unwrap().unwrap_err().kind(),
        ErrorKind::InvalidInput,
        "it is not known any more"
    );
    until("a worker is started again", || fakes.starts() == 2).await;
    settle(&handle).await;
    let idle = ask(&handle, 2, false, false).await.await.unwrap().unwrap_err();
    assert_eq!(idle.kind(), ErrorKind::WorkerLost, "{idle}");
    assert_eq!(fakes.number(1).holds(), 0, "nothing of them reaches the new worker");
    let again = ask(&handle, 2, true, false).await;
    assert!(answer(&fakes.number(1), again).await.is_ok());
}

#[tokio::test]
async fn a_model_that_remembers_by_itself_has_one_replica() {
    let tells = |loaded: &mut LoadedModel| loaded.sequence = Some(SequenceSettings::default());
    let fakes = FakeLauncher { tells: Some(tells), ..FakeLauncher::new() };
    let settings = ModelSettings { replicas: 2, ..settings(true) };
    let clock = Clock::start();
    let error = fakes.try_load(settings, clock, Moderation::new(clock, 1)).await.unwrap_err();
    assert!(error.message().contains("replicas: 1") && error.message().contains("sequence.state"), "{error}");
}

#[tokio::test]
async fn a_model_without_sequences_takes_none() {
    let (handle, _fakes) = load(true).await;
    let error = ask(&handle, 1, true, false).await.await.unwrap().unwrap_err();
    assert!(error.message().contains("has no sequences"), "{error}");
}

#[tokio::test]
async fn the_rows_of_whoever_goes_in_the_middle_of_a_run_are_marked() {
    let tells = |loaded: &mut LoadedModel| {
        let gone = TensorSpec { name: "gone".into(), datatype: DataType::Bool, shape: vec![-1] };
        loaded.signature.inputs.push(gone);
        loaded.controls = [("gone".to_owned(), Control::Cancelled)].into();
    };
    let (handle, fakes) =
        load_on(FakeLauncher { tells: Some(tells), ..FakeLauncher::new() }, settings(true)).await;
    let fake = fakes.number(0);
    let blocker = submit(&handle).await;
    until("it runs", || fake.step(Step::Open, Step::Taken)).await;
    let (stays, goes) = (handle.submit(request(2)), handle.submit(request(3)));
    settle(&handle).await;
    assert!(fake.finish() && blocker.await.is_ok());
    settle(&handle).await;
    until("both run", || fake.step(Step::Open, Step::Taken)).await;
    drop(goes);
    settle(&handle).await;
    let marked = fake.lock().marked.clone();
    let [(_, input, first, rows)] = marked[..] else { panic!("{marked:?}") };
    assert_eq!((input, first, rows), (1, 2, 3));
    assert!(fake.finish() && stays.await.is_ok());
}

#[tokio::test]
async fn a_model_that_remembers_by_itself_is_not_scaled() {
    let (handle, fakes) = remembering(true).await;
    let error = handle.scale(2).await.unwrap_err();
    assert!(error.message().contains("sequence.state"), "{error}");
    assert!(handle.scale(1).await.is_ok());
    assert_eq!(fakes.starts(), 1);
}

async fn ask_as(handle: &ModelHandle, tenant: u32, start: bool) -> Pending {
    let sequence = Some(Arc::new(Sequence { id: SequenceId::Number(7), start, end: false }));
    let tenant = Tenant { id: tenant, weight: 1 };
    let pending = tokio::spawn(handle.submit(InferRequest { sequence, tenant, ..request(1) }));
    settle(handle).await;
    pending
}

#[tokio::test]
async fn two_tenants_with_one_sequence_id_do_not_meet() {
    let (handle, fakes) = remembering(true).await;
    let fake = fakes.number(0);
    let first = ask_as(&handle, 1, true).await;
    let unknown = ask_as(&handle, 2, false).await.await.unwrap().unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::InvalidInput, "{unknown}");
    let second = ask_as(&handle, 2, true).await;
    until("the first is staged", || fake.holds() > 0).await;
    while fake.finish() {}
    assert!(first.await.unwrap().is_ok());
    until("the second is run", || fake.finish() || second.is_finished()).await;
    assert!(second.await.unwrap().is_ok(), "it does not wait for the other tenant's, nor end it");
    let more = ask_as(&handle, 1, false).await;
    assert!(answer(&fake, more).await.is_ok());
}

//! Races between a model's task and its worker, with workers whose every step the test takes.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use inferd_scheduler::Event;
use inferd_transport::{AppendOutcome, Doorbell, Exit, SlotId, StageError, WorkerFailure};
use inferd_types::settings::{Launch, LoadedModel, ModelSettings, Seconds};
use inferd_types::{
    BatchId, Batching, Clock, DataType, ErrorKind, InferRequest, Result, Signature, Tensor, TensorSpec, Time,
};
use serde_json::json;
use tokio::sync::{Notify, oneshot, watch};

use super::Task;
use crate::effort::Effort;
use crate::events::{Events, GenerationEvents};
use crate::handle::{Kind, ModelHandle};
use crate::moderation::{Moderated, Moderation};
use crate::shared::Shared;
use crate::ticket::Ticket;
use crate::worker::{Done, Launcher, Polled, Shares, Split, Worker};

/// What one fake worker holds.
#[derive(Default)]
struct State {
    slots: [Option<(BatchId, Vec<u32>, Step)>; 2],
    /// It takes no more batches, as one whose process is gone.
    lost: bool,
    /// Streams that it was told to stop.
    stopped: usize,
    /// The next append comes too late.
    takes_before_append: bool,
    /// Slot, input, first row and rows of each mark.
    marked: Vec<(usize, usize, u32, u32)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Step {
    Open,
    Taken,
    Partial,
    Done,
}

/// A worker in the hands of a test.
#[derive(Clone)]
struct Fake {
    state: Arc<Mutex<State>>,
    exit: Arc<watch::Sender<Option<Exit>>>,
    bell: Arc<Notify>,
}

impl Fake {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Moves one batch on, without ringing; false where there is none to move.
    fn step(&self, from: Step, to: Step) -> bool {
        let mut state = self.lock();
        let batch = state.slots.iter_mut().flatten().filter(|(_, _, step)| *step == from).min_by_key(|b| b.0);
        batch.map(|(_, _, step)| *step = to).is_some()
    }

    fn finish(&self) -> bool {
        let moved = self.step(Step::Taken, Step::Done) || (self.step(Step::Open, Step::Done));
        self.bell.notify_one();
        moved
    }

    fn die(&self) {
        self.exit.send_replace(Some(Exit::Signal(9)));
    }

    fn holds(&self) -> usize {
        self.lock().slots.iter().flatten().count()
    }
}

struct Rows(u32);

impl Split for Rows {
    fn split(&self, rows: &[u32]) -> Result<Shares> {
        assert_eq!(rows.iter().sum::<u32>(), self.0);
        Ok(rows.iter().map(|_| Default::default()).collect())
    }
}

impl Worker for Fake {
    type Outputs = Rows;

    fn pid(&self) -> u32 {
        0
    }

    fn exited(&self) -> impl Future<Output = Exit> + Send + 'static {
        let mut exit = self.exit.subscribe();
        async move {
            let exit = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
            exit.unwrap_or(Exit::Unknown)
        }
    }

    fn kill(&self) {
        self.die();
    }

    fn terminate_run(&self) {}

    fn close(&self) {
        self.exit.send_replace(Some(Exit::Status(0)));
    }

    fn stage(&mut self, batch: BatchId, requests: &[&[Tensor]]) -> Result<SlotId, StageError> {
        let mut state = self.lock();
        if state.lost {
            return Err(StageError::Lost);
        }
        let slot = state.slots.iter().position(Option::is_none).ok_or(StageError::NoSlot)?;
        let rows = requests.iter().map(|inputs| inputs[0].shape[0] as u32).collect();
        state.slots[slot] = Some((batch, rows, Step::Open));
        Ok(SlotId::ALL[slot])
    }

    fn append(&mut self, slot: SlotId, requests: &[&[Tensor]]) -> AppendOutcome {
        let mut state = self.lock();
        let late = std::mem::take(&mut state.takes_before_append);
        let Some((_, rows, step)) = &mut state.slots[slot.index()] else {
            return AppendOutcome::TakenAlready;
        };
        if late || *step != Step::Open {
            *step = Step::Taken;
            return AppendOutcome::TakenAlready;
        }
        rows.extend(requests.iter().map(|inputs| inputs[0].shape[0] as u32));
        AppendOutcome::Appended
    }

    fn mark(&mut self, slot: SlotId, input: usize, first_row: u32, rows: u32) {
        self.lock().marked.push((slot.index(), input, first_row, rows));
    }

    fn withdraw(&mut self, slot: SlotId) -> bool {
        self.lock().slots[slot.index()].take_if(|(_, _, step)| *step == Step::Open).is_some()
    }

    fn poll(&mut self, slot: SlotId) -> Polled<Rows> {
        let mut state = self.lock();
        match &state.slots[slot.index()] {
            None => Polled::Free,
            Some((_, _, Step::Open)) => Polled::Open,
            Some((_, _, Step::Taken)) => Polled::Taken,
            Some((_, _, Step::Partial)) => Polled::Partial,
            Some((batch, rows, Step::Done)) => {
                let (batch, rows) = (*batch, rows.iter().sum());
                state.slots[slot.index()] = None;
                Polled::Done(Done {
                    batch,
                    execution: Duration::from_millis(1),
                    unseen: Duration::from_micros(20),
                    outcome: Ok(Rows(rows)),
                })
            }
        }
    }

    fn take_partial(&mut self, slot: SlotId) -> Result<Option<Rows>, WorkerFailure> {
        let mut state = self.lock();
        let held = state.slots[slot.index()].as_mut().filter(|(_, _, step)| *step == Step::Partial);
        Ok(held.map(|(_, rows, step)| {
            *step = Step::Taken;
            Rows(rows.iter().sum())
        }))
    }

    fn stop_stream(&mut self, slot: SlotId) {
        let mut state = self.lock();
        state.stopped += 1;
        if let Some((_, _, step)) = &mut state.slots[slot.index()] {
            *step = Step::Taken;
        }
    }

    fn set_waiting(&self, _: bool) {}
}

/// Every worker that was started, the latest last.
#[derive(Clone, Default)]
struct Fakes {
    decoupled: bool,
    /// What the worker tells beside its signature.
    tells: Option<fn(&mut LoadedModel)>,
    started: Arc<Mutex<Vec<Fake>>>,
    bell: Arc<Notify>,
}

impl Fakes {
    fn number(&self, number: usize) -> Fake {
        self.started.lock().unwrap()[number].clone()
    }
}

impl Launcher for Fakes {
    type Worker = Fake;

    fn start(&self, _: usize) -> impl Future<Output = Result<(Fake, LoadedModel)>> + Send + 'static {
        let fake =
            Fake { state: Arc::default(), exit: Arc::new(watch::Sender::new(None)), bell: self.bell.clone() };
        self.started.lock().unwrap().push(fake.clone());
        let spec = || vec![TensorSpec { name: "x".into(), datatype: DataType::Int8, shape: vec![-1] }];
        let signature = Signature {
            inputs: spec(),
            outputs: spec(),
            batching: Batching::On,
            decoupled: self.decoupled,
            extras: Default::default(),
        };
        let mut loaded = LoadedModel::new(signature, Default::default());
        if let Some(tells) = self.tells {
            tells(&mut loaded);
        }
        async move { Ok((fake, loaded)) }
    }

    async fn rung(&self) {
        self.bell.notified().await;
    }
}

pub(crate) fn settings(retry: bool) -> ModelSettings {
    let long = Seconds(Duration::from_secs(60));
    ModelSettings {
        name: "fake".into(),
        version: 1,
        platform: "test".into(),
        launch: Launch::Exec { command: Vec::new() },
        env: Default::default(),
        load: serde_json::Value::Null,
        directory: None,
        replicas: 1,
        running_max: None,
        pin_cpus: Vec::new(),
        batch_rows_max: 8,
        comparison: Default::default(),
        padding: None,
        slo: None,
        priority_default: 1,
        queue_rows_max: 100,
        queue_max_bytes: 1 << 20,
        retry_on_worker_loss: retry,
        execution_max_s: Some(long),
        late_wait_objectives: 4.0,
        load_max_s: long,
        kills_per_minute_max: 10,
        arena_max_bytes: 1 << 20,
        warmup: false,
        samples: Vec::new(),
        optional: Default::default(),
        labels: Default::default(),
        profiling: false,
        profile: vec![(1, 0.001), (8, 0.001)],
        linger: false,
        ejection: true,
        hedge_budget: 0.0,
        sequence: None,
        cache_max_bytes: None,
    }
}

async fn load(retry: bool) -> (ModelHandle, Fakes) {
    load_with(settings(retry)).await
}

async fn load_with(settings: ModelSettings) -> (ModelHandle, Fakes) {
    load_fakes(settings, Fakes::default()).await
}

async fn load_fakes(settings: ModelSettings, fakes: Fakes) -> (ModelHandle, Fakes) {
    let clock = Clock::start();
    load_moderated(settings, fakes, clock, &Moderation::new(clock, 1)).await
}

async fn load_moderated(
    settings: ModelSettings,
    fakes: Fakes,
    clock: Clock,
    moderation: &Moderation,
) -> (ModelHandle, Fakes) {
    let shared = Arc::new(Shared::new(settings, Arc::new(()), events(), clock));
    let (loaded, is_loaded) = oneshot::channel();
    let moderated = moderation.enter(Doorbell::new().unwrap());
    let task = Task::new(shared.clone(), clock, fakes.clone(), moderated, Effort::new(1), loaded).unwrap();
    tokio::spawn(task.run());
    is_loaded.await.unwrap().unwrap();
    (ModelHandle::new(Kind::Model(shared)), fakes)
}

/// Events that nobody reads.
fn events() -> GenerationEvents {
    Events::new(Clock::start()).generation("m", 1)
}

fn moderated() -> Moderated {
    Moderation::new(Clock::start(), 1).enter(Doorbell::new().unwrap())
}

/// One row; returns when the task has dealt with it.
async fn submit(handle: &ModelHandle) -> Ticket {
    let tensor = Tensor::new(DataType::Int8, [1].into_iter().collect(), vec![0].into()).unwrap();
    let inputs = [tensor].into_iter().collect();
    let request = InferRequest { inputs, arrived: Time::ZERO, ..InferRequest::default() };
    let ticket = handle.submit(request);
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

async fn until(what: &str, condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), met).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// One running, one staged behind it.
async fn running_and_staged(handle: &ModelHandle, fake: &Fake) -> (Ticket, Ticket) {
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
    let (handle, fakes) = load_moderated(settings, Fakes::default(), clock, &moderation).await;
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
    until("a worker is started again", || fakes.started.lock().unwrap().len() == 2).await;
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
    until("a worker is started again", || fakes.started.lock().unwrap().len() == 2).await;
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
    until("a worker is started again", || fakes.started.lock().unwrap().len() == 2).await;
    until("it gets the request", || fakes.number(1).finish()).await;
    assert!(ticket.await.is_ok());
}

#[tokio::test]
async fn nobody_waits_for_a_task_that_is_gone() {
    let (shared, fakes) =
        (Arc::new(Shared::new(settings(true), Arc::new(()), events(), Clock::start())), Fakes::default());
    let (loaded, _is_loaded) = oneshot::channel();
    let mut task =
        Task::new(shared.clone(), Clock::start(), fakes, moderated(), Effort::new(1), loaded).unwrap();
    task.event(Event::ReplicaReady(inferd_types::ReplicaId(1)));
    shared.set_state(crate::shared::ModelState::Ready);
    let handle = ModelHandle::new(Kind::Model(shared));
    let tensor = Tensor::new(DataType::Int8, [1].into_iter().collect(), vec![0].into()).unwrap();
    let inputs = [tensor].into_iter().collect();
    let request = InferRequest { inputs, arrived: Time::ZERO, ..InferRequest::default() };
    let ticket = handle.submit(request.clone());
    drop(task);
    assert_eq!(ticket.await.unwrap_err().kind(), ErrorKind::Internal);
    assert!(handle.submit(request).await.is_err());
}

fn request(rows: u64) -> InferRequest {
    let data = vec![0; rows as usize].into();
    let tensor = Tensor::new(DataType::Int8, [rows].into_iter().collect(), data).unwrap();
    InferRequest { inputs: [tensor].into_iter().collect(), arrived: Time::ZERO, ..InferRequest::default() }
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
    until("a worker is started again", || fakes.started.lock().unwrap().len() == 2).await;
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
async fn running_twice() -> (ModelHandle, Fakes, Ticket) {
    let (handle, fakes) = load_with(ModelSettings { replicas: 2, hedge_budget: 1.0, ..settings(true) }).await;
    let running = submit(&handle).await;
    until("it runs", || fakes.number(0).step(Step::Open, Step::Taken)).await;
    fakes.bell.notify_one();
    until("it takes too long", || fakes.number(1).holds() == 1).await;
    (handle, fakes, running)
}

/// Both replicas are free: two requests at once run beside each other.
async fn both_serve(handle: &ModelHandle, one: &Fake, other: &Fake) {
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
        until("a worker is started again", || fakes.started.lock().unwrap().len() == 3).await;
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

mod sequences;
mod streams;

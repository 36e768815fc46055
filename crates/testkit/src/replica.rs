//! Replicas whose every step the test takes, or that run by themselves, and the launcher that starts them.
//!
//! A model of theirs takes INT8 of any number of rows and gives each request its own rows back, so that an answer shows
//! whose it is.

use std::borrow::Cow;
use std::future::{Future, pending};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use inferd_dispatcher::kind::{
    AppendOutcome, BatchOutputs, Capabilities, Done, Doorbell, Ended, Launcher, Place, Polled, Replica,
    Shares, StageError, WorkerFailure,
};
use inferd_dispatcher::{LauncherFactory, LossReason, ModelHandle, Moderation, Registry, TaskStart};
use inferd_types::settings::{LoadedModel, ModelSettings, Placement};
use inferd_types::{BatchId, Batching, Clock, DataType, Result, Signature, Tensor, TensorSpec, Time};
use tokio::sync::{Notify, watch};

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Staged, and open where the replica appends.
    Open,
    /// It runs.
    Taken,
    /// A response of several is there.
    Partial,
    /// It has run.
    Done,
}

/// What one replica holds.
#[derive(Debug, Default)]
pub struct Held {
    /// By place: the batch, the input of each of its requests, and how far it is.
    pub batches: Vec<Option<(BatchId, Vec<Tensor>, Step)>>,
    /// It takes no more batches, as one whose process is gone.
    pub lost: bool,
    /// The next batch ends the task that hands it over.
    pub panics: bool,
    /// Streams that it was told to stop.
    pub stopped: usize,
    /// The next append comes too late.
    pub takes_before_append: bool,
    /// Place, input, first row and rows of each mark.
    pub marked: Vec<(usize, usize, u32, u32)>,
    /// When the callers of the requests of the last batch stop listening.
    pub due: Vec<Option<Time>>,
    /// Batches that were staged.
    pub staged: usize,
}

/// One replica in the hands of a test. Clones are the same.
#[derive(Clone, Debug)]
pub struct FakeReplica {
    held: Arc<Mutex<Held>>,
    end: Arc<watch::Sender<Option<Ended>>>,
    /// Wakes the task.
    pub bell: Arc<Notify>,
    /// As what it was started.
    pub placement: Placement,
    capabilities: Capabilities,
    by_itself: bool,
}

impl FakeReplica {
    /// What it holds.
    pub fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }

    /// Moves its first batch on that is at `from`, without ringing; false where there is none.
    pub fn step(&self, from: Step, to: Step) -> bool {
        let mut held = self.lock();
        let at =
            held.batches.iter_mut().flatten().filter(|(_, _, step)| *step == from).min_by_key(|one| one.0);
        at.map(|(_, _, step)| *step = to).is_some()
    }

    /// Finishes the batch that runs, else one that is open, and rings.
    pub fn finish(&self) -> bool {
        let moved = self.step(Step::Taken, Step::Done) || self.step(Step::Open, Step::Done);
        self.bell.notify_one();
        moved
    }

    /// Dies, as by a signal.
    pub fn die(&self) {
        self.end(LossReason::Signal, "by signal 9");
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// How many batches it holds.
    pub fn holds(&self) -> usize {
        self.lock().batches.iter().flatten().count()
    }

    fn end(&self, reason: LossReason, how: &'static str) {
        // The first end is the one that counts.
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(Ended { reason, how: Cow::Borrowed(how) });
            first
        });
    }
}

/// The rows of each request, given back.
#[derive(Debug)]
pub struct Echo(Vec<Tensor>);

impl BatchOutputs for Echo {
    fn split(&self, rows: &[u32]) -> Result<Shares> {
        let given = self.0.iter().map(|tensor| tensor.shape[0]).sum::<u64>();
        assert_eq!(rows.iter().map(|rows| u64::from(*rows)).sum::<u64>(), given);
        if let [_] = rows {
            return Ok(vec![self.0.iter().take(1).cloned().collect()]);
        }
        Ok(self.0.iter().map(|tensor| [tensor.clone()].into_iter().collect()).collect())
    }
}

impl Replica for FakeReplica {
    type Outputs = Echo;

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn pid(&self) -> Option<u32> {
        None
    }

    fn ended(&self) -> impl Future<Output = Ended> + Send + 'static {
        let mut end = self.end.subscribe();
        async move {
            match end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone()) {
                Some(ended) => ended,
                None => pending().await,
            }
        }
    }

    fn kill(&self) {
        self.die();
    }

    fn close(&self) {
        self.end(LossReason::Exit, "with status 0");
    }

    fn stop_run(&self) {}

    fn stage(
        &mut self,
        batch: BatchId,
        requests: &[&[Tensor]],
        due: impl Iterator<Item = Option<Time>>,
    ) -> Result<Place, StageError> {
        let mut held = self.lock();
        assert!(!held.panics, "the test says so");
        if held.lost {
            return Err(StageError::Lost);
        }
        let at = held.batches.iter().position(Option::is_none).ok_or(StageError::NoSlot)?;
        let inputs = requests.iter().map(|inputs| inputs[0].clone()).collect();
        held.due = due.collect();
        assert_eq!(held.due.len(), requests.len());
        held.batches[at] = Some((batch, inputs, Step::Open));
        held.staged += 1;
        Ok(Place(at as u8))
    }

    fn append(
        &mut self,
        place: Place,
        requests: &[&[Tensor]],
        due: impl Iterator<Item = Option<Time>>,
    ) -> AppendOutcome {
        assert!(self.capabilities.appends, "nothing joins a batch here");
        let mut held = self.lock();
        let late = std::mem::take(&mut held.takes_before_append);
        let Some((_, inputs, step)) = &mut held.batches[usize::from(place.0)] else {
            return AppendOutcome::TakenAlready;
        };
        if late || *step != Step::Open {
            *step = Step::Taken;
            return AppendOutcome::TakenAlready;
        }
        inputs.extend(requests.iter().map(|inputs| inputs[0].clone()));
        held.due.extend(due);
        AppendOutcome::Appended
    }

    fn withdraw(&mut self, place: Place) -> bool {
        let mut held = self.lock();
        held.batches[usize::from(place.0)].take_if(|(_, _, step)| *step == Step::Open).is_some()
    }

    fn mark_cancelled(&mut self, place: Place, input: usize, first_row: u32, rows: u32) {
        self.lock().marked.push((usize::from(place.0), input, first_row, rows));
    }

    fn poll(&mut self, place: Place) -> Polled<Echo> {
        let mut held = self.lock();
        let one = &mut held.batches[usize::from(place.0)];
        if self.by_itself
            && let Some((_, _, step)) = one
        {
            *step = if *step == Step::Open { Step::Taken } else { Step::Done };
        }
        match one.take() {
            None => Polled::Free,
            Some((batch, inputs, Step::Done)) => Polled::Done(Done {
                batch,
                execution: Duration::from_millis(1),
                unseen: Duration::from_micros(20),
                outcome: Ok(Echo(inputs)),
            }),
            Some(still) => {
                let step = still.2;
                *one = Some(still);
                match step {
                    Step::Open => Polled::Open,
                    Step::Partial => Polled::Partial,
                    Step::Taken | Step::Done => Polled::Taken,
                }
            }
        }
    }

    fn take_partial(&mut self, place: Place) -> Result<Option<Echo>, WorkerFailure> {
        let mut held = self.lock();
        let one = held.batches[usize::from(place.0)].as_mut().filter(|(_, _, step)| *step == Step::Partial);
        Ok(one.map(|(_, inputs, step)| {
            *step = Step::Taken;
            Echo(inputs.clone())
        }))
    }

    fn stop_stream(&mut self, place: Place) {
        let mut held = self.lock();
        held.stopped += 1;
        if let Some((_, _, step)) = &mut held.batches[usize::from(place.0)] {
            *step = Step::Taken;
        }
    }

    fn set_waiting(&self, waiting: bool) {
        if waiting && self.by_itself {
            self.bell.notify_one();
        }
    }
}

/// Starts such replicas, and remembers them. Clones are the same.
#[derive(Clone, Debug)]
pub struct FakeLauncher {
    /// Whether the model streams its responses.
    pub decoupled: bool,
    /// What the worker tells besides its signature.
    pub tells: Option<fn(&mut LoadedModel)>,
    /// What its replicas can do.
    pub capabilities: Capabilities,
    /// Whether they run what they are given, at each look a step.
    pub by_itself: bool,
    /// Every replica that was started, the latest last.
    pub started: Arc<Mutex<Vec<FakeReplica>>>,
    /// Wakes the task.
    pub bell: Arc<Notify>,
    /// What fails the next starts, as long as it is there.
    pub refuses: Arc<Mutex<Option<inferd_types::Error>>>,
    /// Starts wait while this is true.
    pub holds_starts: Arc<watch::Sender<bool>>,
    /// What the gateway may rest on.
    pub doorbell: Doorbell,
}

impl Default for FakeLauncher {
    fn default() -> Self {
        FakeLauncher::new()
    }
}

impl FakeLauncher {
    /// One whose replicas are like worker processes. Must be called inside a runtime.
    pub fn new() -> FakeLauncher {
        FakeLauncher {
            decoupled: false,
            tells: None,
            capabilities: Capabilities::WORKER_PROCESS,
            by_itself: false,
            started: Arc::default(),
            bell: Arc::default(),
            refuses: Arc::default(),
            holds_starts: Arc::new(watch::Sender::new(false)),
            doorbell: Doorbell::new().unwrap(),
        }
    }

    /// The replica that was started as the one of this number, from 0.
    pub fn number(&self, number: usize) -> FakeReplica {
        self.started.lock().unwrap()[number].clone()
    }

    /// How many were started.
    pub fn starts(&self) -> usize {
        self.started.lock().unwrap().len()
    }

    /// Loads a model that runs on them.
    pub async fn try_load(
        &self,
        settings: ModelSettings,
        clock: Clock,
        moderation: Moderation,
    ) -> Result<ModelHandle> {
        let runtime = tokio::runtime::Handle::current();
        let launchers = Arc::new(self.clone());
        let registry = Registry::new(clock, runtime, launchers, moderation, Arc::new(()));
        registry.load(settings).await
    }

    /// The same for a model that loads.
    pub async fn load(&self, settings: ModelSettings) -> ModelHandle {
        let clock = Clock::start();
        self.try_load(settings, clock, Moderation::new(clock, 1)).await.unwrap()
    }
}

impl LauncherFactory for FakeLauncher {
    fn launch(&self, _: &ModelSettings, start: TaskStart) -> Result<()> {
        start.run(self.clone())
    }
}

impl Launcher for FakeLauncher {
    type Replica = FakeReplica;

    fn start(
        &self,
        placement: Placement,
    ) -> impl Future<Output = Result<(FakeReplica, LoadedModel)>> + Send + 'static {
        let batches = (0..self.capabilities.batches_max).map(|_| None).collect();
        let replica = FakeReplica {
            held: Arc::new(Mutex::new(Held { batches, ..Held::default() })),
            end: Arc::new(watch::Sender::new(None)),
            bell: self.bell.clone(),
            placement,
            capabilities: self.capabilities,
            by_itself: self.by_itself,
        };
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
        let (started, refuses) = (self.started.clone(), self.refuses.clone());
        let mut held = self.holds_starts.subscribe();
        async move {
            // The launcher lives as long as the task that waits here.
            let _ = held.wait_for(|held| !held).await;
            if let Some(error) = refuses.lock().unwrap().clone() {
                return Err(error);
            }
            started.lock().unwrap().push(replica.clone());
            Ok((replica, loaded))
        }
    }

    async fn notified(&self) {
        self.bell.notified().await;
    }

    fn doorbell(&self) -> Option<&Doorbell> {
        Some(&self.doorbell)
    }
}

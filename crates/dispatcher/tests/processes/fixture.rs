//! A registry with one model of test workers, and ways to ask it and to see that it left nothing behind.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use inferd_dispatcher::{
    LossReason, ModelHandle, ModelObserver, ModelState, Moderation, Observer, Registry, Spawner, Ticket,
    WorkerProcesses,
};
use inferd_testkit::within;
use inferd_types::settings::{Launch, ModelSettings};
use inferd_types::{Clock, DataType, Error, InferRequest, InferResponse, Tensor, Time};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

pub(crate) type Answer = Result<InferResponse, Error>;

/// Remembers which losses it was told of.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    losses: Mutex<Vec<LossReason>>,
    /// Who decided whether requests share runs, and how.
    verdicts: Mutex<Vec<(&'static str, bool)>>,
}

impl Losses {
    pub(crate) fn seen(&self) -> Vec<LossReason> {
        self.losses.lock().unwrap().clone()
    }

    pub(crate) fn verdicts(&self) -> usize {
        self.verdicts.lock().unwrap().len()
    }

    pub(crate) fn verdict(&self) -> Option<(&'static str, bool)> {
        self.verdicts.lock().unwrap().last().copied()
    }
}

struct Watch(Arc<Losses>);

impl Observer for Watch {
    fn model(&self, _: &str, _: u64) -> Arc<dyn ModelObserver> {
        Arc::new(Watch(self.0.clone()))
    }
}

impl ModelObserver for Watch {
    fn worker_lost(&self, reason: LossReason) {
        self.0.losses.lock().unwrap().push(reason);
    }

    fn batching(&self, by: &'static str, shared: bool) {
        self.0.verdicts.lock().unwrap().push((by, shared));
    }
}

/// See the module.
pub(crate) struct Fixture {
    pub(crate) registry: Registry,
    pub(crate) clock: Clock,
    pub(crate) losses: Arc<Losses>,
    pub(crate) directory: tempfile::TempDir,
    pids: Mutex<BTreeSet<u32>>,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        // Seen where a test fails. The first one to come installs it for all.
        let _installed = tracing_subscriber::fmt().with_test_writer().try_init();
        let (clock, losses) = (Clock::start(), Arc::<Losses>::default());
        let runtime = tokio::runtime::Handle::current();
        let observer = Arc::new(Watch(losses.clone()));
        Fixture {
            registry: Registry::new(
                clock,
                runtime,
                Arc::new(WorkerProcesses(Spawner::new().unwrap())),
                Moderation::new(clock, 1),
                observer,
            ),
            clock,
            losses,
            directory: tempfile::tempdir().unwrap(),
            pids: Mutex::default(),
        }
    }

    pub(crate) async fn load(&self, change: impl FnOnce(&mut ModelSettings)) -> ModelHandle {
        let handle = self.registry.load(settings(change)).await.unwrap();
        self.remember(&handle);
        handle
    }

    /// A file that workers look at.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, "").unwrap();
        path
    }

    pub(crate) fn remember(&self, handle: &ModelHandle) {
        self.pids.lock().unwrap().extend(handle.replicas().iter().filter_map(|replica| replica.pid));
    }

    /// Kills one of the model's workers.
    pub(crate) fn kill_one(&self, handle: &ModelHandle) -> Option<u32> {
        self.remember(handle);
        let pid = handle.replicas().iter().find_map(|replica| replica.pid)?;
        // It may have ended in this moment.
        let _ended = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
        Some(pid)
    }

    /// Ends everything and sees that nothing is left.
    pub(crate) async fn end(self) {
        for handle in self.registry.models() {
            self.remember(&handle);
        }
        self.registry.shutdown().await;
        for pid in self.pids.lock().unwrap().iter() {
            assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is left");
        }
    }
}

pub(crate) fn settings(change: impl FnOnce(&mut ModelSettings)) -> ModelSettings {
    let exe = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let command = [&exe, "worker_process", "--exact", "--nocapture", "--test-threads=1"].map(str::to_owned);
    let mut settings = ModelSettings {
        launch: Launch::Exec { command: command.to_vec() },
        load: json!({}),
        kills_per_minute_max: 100,
        arena_max_bytes: 1 << 22,
        linger: true,
        ..inferd_testkit::settings("plus-one")
    };
    change(&mut settings);
    settings
}

/// `load` of the worker: one key.
pub(crate) fn with(key: &str, value: impl Into<Value>) -> impl FnOnce(&mut ModelSettings) {
    let value = value.into();
    move |settings| settings.load[key] = value
}

pub(crate) fn request(values: &[f32]) -> InferRequest {
    let bytes: Vec<u8> = values.iter().flat_map(|value| [*value, 0.5]).flat_map(f32::to_le_bytes).collect();
    let shape = [values.len() as u64, 2].into_iter().collect();
    let tensor = Tensor::new(DataType::Fp32, shape, bytes.into()).unwrap();
    InferRequest { inputs: [tensor].into_iter().collect(), arrived: Time::ZERO, ..InferRequest::default() }
}

pub(crate) fn submit(handle: &ModelHandle, value: f32) -> Ticket {
    handle.submit(request(&[value]))
}

/// The first value of each row of an answer.
pub(crate) fn values(answer: Answer) -> Vec<f32> {
    let response = answer.unwrap();
    let four = |bytes: &[u8]| f32::from_le_bytes(bytes[..4].try_into().unwrap());
    response.outputs[0].data.chunks(8).map(four).collect()
}

pub(crate) fn kind(answer: Answer) -> inferd_types::ErrorKind {
    answer.unwrap_err().kind()
}

/// Waits for a condition; half a minute is longer than any of them takes.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    within(what, async {
        while !condition() {
            ticks.tick().await;
        }
    })
    .await;
}

pub(crate) async fn until_ready(handle: &ModelHandle, replicas: usize) {
    until("all replicas are ready", || {
        handle.state() == ModelState::Ready
            && handle.replicas().iter().filter(|r| r.state == inferd_dispatcher::ReplicaState::Ready).count()
                == replicas
            && handle.replicas().len() == replicas
    })
    .await;
}

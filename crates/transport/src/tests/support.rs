//! Shared test code: settings for a worker of a given behaviour, tensors, waiting for a result.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use inferd_types::settings::{Launch, LoadedModel, ModelSettings, Placement};
use inferd_types::{BatchId, DataType, Error, Signature, Tensor, TensorSpec};
use serde_json::json;

use crate::layout::tests::{settings, signature, spec};
use crate::{BatchResult, Doorbell, SlotId, SlotState, Spawner, Waiting, Worker};

/// Longer than anything here takes on a busy machine; a test that reaches it has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A worker and its environment.
pub(super) struct Bench {
    pub(super) spawner: Spawner,
    pub(super) bell: Doorbell,
    pub(super) worker: Worker,
}

/// One input and one output of FP32, `[n, 2]`.
pub(super) fn pairs() -> Signature {
    signature(vec![spec(DataType::Fp32, &[-1, 2])], vec![spec(DataType::Fp32, &[-1, 2])], true)
}

/// The same specs, each with a name of its own.
pub(super) fn named(specs: Vec<TensorSpec>) -> Vec<TensorSpec> {
    let named = |(index, spec)| TensorSpec { name: format!("x{index}").into(), ..spec };
    specs.into_iter().enumerate().map(named).collect()
}

/// Settings of a model whose worker is this program, behaving as `load` says.
pub(super) fn model(signature: &Signature, mut load: serde_json::Value) -> ModelSettings {
    load["signature"] = serde_json::to_value(signature).unwrap();
    let exe = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let arguments = ["--exact", "--ignored", "--nocapture", "tests::child::process_entry"];
    let command = std::iter::once(exe).chain(arguments.map(str::to_owned)).collect();
    ModelSettings { launch: Launch::Exec { command }, load, ..settings() }
}

impl Bench {
    pub(super) async fn new(settings: &ModelSettings) -> Bench {
        let spawner = Spawner::new().unwrap();
        let bell = Doorbell::new().unwrap();
        let (worker, _) = start(&spawner, settings, &bell).await.unwrap();
        Bench { spawner, bell, worker }
    }

    /// A worker of [`pairs`] that behaves as `mode` says.
    pub(super) async fn pairs(mode: &str) -> Bench {
        Bench::new(&model(&pairs(), json!({ "mode": mode }))).await
    }

    pub(super) fn stage(&mut self, batch: u64, requests: &[Vec<Tensor>]) -> SlotId {
        let requests: Vec<&[Tensor]> = requests.iter().map(Vec::as_slice).collect();
        self.worker.stage(BatchId(batch), &requests).unwrap()
    }

    /// Waits until the slot's batch is done.
    pub(super) async fn done(&mut self, slot: SlotId) -> BatchResult {
        let waiting = async {
            loop {
                self.worker.set_waiting(Waiting::Done);
                if let SlotState::Done(result) = self.worker.poll(slot) {
                    return result;
                }
                self.bell.rung().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the batch is done in time")
    }

    /// Waits until the worker has taken the slot's batch.
    pub(super) async fn taken(&mut self, slot: SlotId) {
        let waiting = async {
            loop {
                self.worker.set_waiting(Waiting::TakenOrDone);
                if matches!(self.worker.poll(slot), SlotState::Taken) {
                    return;
                }
                self.bell.rung().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the batch is taken in time");
    }

    /// Stages and waits.
    pub(super) async fn run(&mut self, batch: u64, requests: &[Vec<Tensor>]) -> BatchResult {
        let slot = self.stage(batch, requests);
        self.done(slot).await
    }

    pub(super) async fn exited(&self) -> crate::Exit {
        tokio::time::timeout(PATIENCE, self.worker.exited()).await.expect("the worker ends in time")
    }
}

pub(super) async fn start(
    spawner: &Spawner,
    settings: &ModelSettings,
    bell: &Doorbell,
) -> Result<(Worker, LoadedModel), Error> {
    tokio::time::timeout(PATIENCE, Worker::start(spawner, settings, Placement::ALONE, bell))
        .await
        .expect("the worker starts in time")
}

/// An FP32 tensor of shape `[n, width]`.
pub(super) fn floats(values: &[f32], width: usize) -> Tensor {
    let data = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let shape = [(values.len() / width) as u64, width as u64].into_iter().collect();
    Tensor::new(DataType::Fp32, shape, Bytes::from(data)).unwrap()
}

/// A request of one tensor of [`pairs`].
pub(super) fn pair(values: &[f32]) -> Vec<Tensor> {
    vec![floats(values, 2)]
}

pub(super) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// A pipe in the file system: a worker of mode `gate` finishes one batch per write to it.
pub(super) struct Gate {
    _folder: Folder,
    pub(super) path: PathBuf,
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

impl Gate {
    pub(super) fn new(name: &str) -> Gate {
        let folder = std::env::temp_dir().join(format!("inferd-transport-{}-{name}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("gate");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        Gate { _folder: Folder(folder), path }
    }

    pub(super) fn settings(&self) -> ModelSettings {
        model(&pairs(), json!({ "mode": "gate", "gate": self.path }))
    }

    /// Lets one batch through. Waits until the worker has opened it.
    pub(super) async fn open(&self) {
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || std::fs::write(path, "go").unwrap()).await.unwrap();
    }
}

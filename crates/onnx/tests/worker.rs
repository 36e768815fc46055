//! The worker process, driven through the gateway's end of its channel.

mod common;

use std::os::fd::RawFd;
use std::time::Duration;

use common::{floats, integers, library, path, texts};
use inferd_onnx::Terminator;
use inferd_transport::{BatchResult, Doorbell, SlotId, SlotState, Spawner, Waiting, Worker};
use inferd_types::settings::{Launch, LoadedModel, ModelSettings, Placement};
use inferd_types::{BatchId, Batching, ErrorKind, Result, Tensor};

/// Not a test: the worker process itself. The tests start this binary with this name and their channel.
#[test]
#[ignore = "it is the worker that the tests start"]
fn the_worker_process() {
    let channel = std::env::args().next_back().and_then(|last| last.parse::<RawFd>().ok());
    std::process::exit(inferd_onnx::run(channel.expect("the channel stands last on the command line")));
}

fn settings(model: &str, batching: &str) -> ModelSettings {
    let program = std::env::current_exe().unwrap();
    let words = [program.to_str().unwrap(), "--exact", "--ignored", "--nocapture", "the_worker_process"];
    ModelSettings {
        launch: Launch::Exec { command: words.map(str::to_owned).to_vec() },
        load: serde_json::json!({"path": path(model), "library": library(), "batching": batching}),
        linger: true,
        ..inferd_testkit::settings(model)
    }
}

/// A worker and its environment. The process must be gone at the end of the test.
struct Rig {
    worker: Worker,
    loaded: LoadedModel,
    doorbell: Doorbell,
    spawner: Spawner,
}

impl Rig {
    async fn start(model: &str, batching: &str) -> Result<Rig> {
        let (spawner, doorbell) = (Spawner::new().unwrap(), Doorbell::new().unwrap());
        let (worker, loaded) =
            Worker::start(&spawner, &settings(model, batching), Placement::ALONE, &doorbell).await?;
        Ok(Rig { worker, loaded, doorbell, spawner })
    }

    /// Runs the requests as one batch.
    async fn run(&mut self, requests: &[&[Tensor]]) -> BatchResult {
        let slot = self.worker.stage(BatchId(1), requests).unwrap();
        self.result(slot).await
    }

    async fn result(&mut self, slot: SlotId) -> BatchResult {
        let waited = async {
            loop {
                self.worker.set_waiting(Waiting::Done);
                if let SlotState::Done(result) = self.worker.poll(slot) {
                    return result;
                }
                self.doorbell.rung().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waited).await.expect("the batch is answered")
    }

    async fn close(self) {
        self.worker.close();
        let exited = tokio::time::timeout(Duration::from_secs(30), self.worker.exited()).await;
        assert_eq!(exited.expect("the worker ends").to_string(), "exited with status 0");
        drop(self.worker);
        self.spawner.close().await;
    }
}

fn outputs(result: BatchResult, rows: &[u32]) -> Vec<Vec<Tensor>> {
    let outputs = result.outcome.expect("the batch succeeds");
    outputs.split(rows).unwrap().into_iter().map(|tensors| tensors.into_vec()).collect()
}

#[tokio::test]
async fn requests_share_a_run_and_each_gets_its_rows() {
    let mut rig = Rig::start("affine", "auto").await.unwrap();
    assert_eq!(rig.loaded.signature.batching, Batching::On);
    assert_eq!(rig.loaded.facts["outputs_in_place"], "1 of 1");
    for round in 0..50 {
        let first = [floats(&[1, 4], &[round as f32; 4])];
        let second = [floats(&[2, 4], &[-1.0; 8])];
        let result = rig.run(&[&first, &second]).await;
        assert_eq!(result.rows, 3);
        assert!(result.execution > Duration::ZERO && result.execution < Duration::from_secs(5));
        let answers = outputs(result, &[1, 2]);
        assert_eq!(answers[0], [floats(&[1, 4], &[round as f32 * 2.0 + 1.0; 4])]);
        assert_eq!(answers[1], [floats(&[2, 4], &[-1.0; 8])]);
    }
    rig.close().await;
}

#[tokio::test]
async fn every_type_goes_through_the_arena() {
    let mut rig = Rig::start("every_type", "auto").await.unwrap();
    let make = |spec: &inferd_types::TensorSpec| match spec.datatype.size() {
        Some(size) => Tensor::new(spec.datatype, [2, 3].as_slice().into(), vec![1; 6 * size].into()).unwrap(),
        None => texts(&[2, 3], &[b"a\0b", b"", b"\xff", b"c", b"d", b"e"]),
    };
    let inputs: Vec<_> = rig.loaded.signature.inputs.iter().map(make).collect();
    let result = rig.run(&[&inputs]).await;
    assert_eq!(outputs(result, &[2]), [inputs]);
    rig.close().await;
}

#[tokio::test]
async fn outputs_that_the_model_sizes_itself_come_back_whole() {
    let mut rig = Rig::start("nonzero", "auto").await.unwrap();
    let result = rig.run(&[&[floats(&[4], &[0.0, 2.0, 0.0, 2.0])]]).await;
    assert_eq!(outputs(result, &[1]), [[integers(&[1, 2], &[1, 3])]]);
    rig.close().await;

    let mut rig = Rig::start("liar", "on").await.unwrap();
    let tensor = |values: &[i32]| {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(inferd_types::DataType::Int32, [values.len() as u64].as_slice().into(), data.into())
            .unwrap()
    };
    // Batched by the operator's setting, so a missing row is an error; the next batch is right again.
    assert_eq!(rig.loaded.signature.batching, Batching::On);
    let result = rig.run(&[&[tensor(&[1, 99, 3])]]).await;
    assert!(result.outcome.is_err() || result.outcome.is_ok_and(|outputs| outputs.split(&[3]).is_err()));
    let result = rig.run(&[&[tensor(&[1, 2, 3])]]).await;
    assert_eq!(outputs(result, &[3]), [[tensor(&[1, 2, 3])]]);
    rig.close().await;
}

#[tokio::test]
async fn a_failed_batch_says_why_and_the_worker_goes_on() {
    let mut rig = Rig::start("lookup", "auto").await.unwrap();
    let failure = rig.run(&[&[integers(&[1], &[99])]]).await.outcome.unwrap_err();
    assert_eq!(failure.kind, ErrorKind::InvalidInput);
    assert!(failure.message.contains("out of data bounds"), "{}", failure.message);
    assert!(failure.detail.contains("Gather"), "{}", failure.detail);
    let result = rig.run(&[&[integers(&[1], &[2])]]).await;
    assert_eq!(outputs(result, &[1]), [[floats(&[1, 2], &[4.0, 5.0])]]);
    rig.close().await;
}

#[tokio::test]
async fn a_run_that_does_not_end_is_stopped() {
    let mut rig = Rig::start("endless", "auto").await.unwrap();
    let slot = rig.worker.stage(BatchId(7), &[&[integers(&[], &[i64::MAX])]]).unwrap();
    // Before the worker has begun, a stop has no effect: it is repeated until the run ends.
    let result = loop {
        rig.worker.terminate_run();
        match tokio::time::timeout(Duration::from_millis(20), rig.doorbell.rung()).await {
            Ok(()) | Err(_) => {
                rig.worker.set_waiting(Waiting::Done);
                if let SlotState::Done(result) = rig.worker.poll(slot) {
                    break result;
                }
            }
        }
    };
    let failure = result.outcome.unwrap_err();
    assert_eq!(failure.kind, ErrorKind::ModelFailed);
    assert!(failure.message.contains("stopped"), "{}", failure.message);
    rig.close().await;
}

#[tokio::test]
async fn a_model_that_can_not_be_loaded_ends_its_worker_with_the_reason() {
    for (model, batching, reason) in
        [("missing", "auto", "missing.onnx does not exist"), ("fixed", "on", "help: set batching: auto")]
    {
        let error = Rig::start(model, batching).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ModelFailed);
        assert!(error.message().contains(reason), "{error}");
    }
}

#[test]
fn a_terminator_can_be_used_from_any_thread() {
    fn anywhere<T: Send + Sync + Clone + 'static>() {}
    anywhere::<Terminator>();
}

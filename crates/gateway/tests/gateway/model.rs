//! The model that the tests serve: `y = 2 · x` over rows of two floats, and a few ways to misbehave.
//!
//! Its first number chooses: [`FAIL`] raises an error, [`WAIT`] runs until the test lets it go on.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use inferd_transport::worker::Channel;
use inferd_types::settings::{Launch, LoadedModel, ModelSettings};
use inferd_types::{Batching, DataType, ErrorKind, Signature, TensorSpec};
use serde_json::{Value, json};

/// A first number that makes the model fail.
pub(crate) const FAIL: f32 = -1.0;
/// A first number that makes the model wait at its gate.
pub(crate) const WAIT: f32 = 1000.0;

/// Settings of a model `name` in `version`, whose gate is at `gate`. It waits there while it loads if `slow_load`.
pub(crate) fn settings(name: &str, version: u64, gate: &Gate, slow_load: bool) -> ModelSettings {
    let program = std::env::current_exe().unwrap();
    let command = [program.to_str().unwrap(), "--exact", "worker_process", "--ignored", "--nocapture"];
    ModelSettings {
        version,
        platform: "test_double".into(),
        launch: Launch::Exec { command: command.map(str::to_owned).to_vec() },
        load: json!({"gate": gate.path, "slow_load": slow_load}),
        batch_rows_max: 4,
        queue_rows_max: 100_000,
        ..inferd_testkit::settings(name)
    }
}

/// Where a waiting model stops until the test opens.
pub(crate) struct Gate {
    path: PathBuf,
    listener: Arc<tokio::net::UnixListener>,
}

impl Gate {
    pub(crate) fn at(path: PathBuf) -> Gate {
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        Gate { path, listener: Arc::new(tokio::net::UnixListener::from_std(listener).unwrap()) }
    }

    /// Waits until the model has come to the gate. It goes on when the value is dropped.
    pub(crate) async fn reached(&self) -> tokio::net::UnixStream {
        self.listener.accept().await.unwrap().0
    }

    /// Lets the model through from now on, whether or not it has come.
    pub(crate) fn open(&self) {
        let listener = self.listener.clone();
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    }
}

fn wait_at(gate: &Value) {
    let mut stream = UnixStream::connect(gate.as_str().unwrap()).unwrap();
    // Ends when the test drops its side.
    let _ = stream.read(&mut [0]);
}

/// The worker's life.
pub(crate) fn run() {
    let Some(fd) = std::env::args().next_back().and_then(|last| last.parse().ok()) else { return };
    let mut channel = Channel::from_fd(fd).unwrap();
    let load = channel.load().clone();
    if load["slow_load"] == true {
        wait_at(&load["gate"]);
    }
    let tensor = |name: &str| TensorSpec { name: name.into(), datatype: DataType::Fp32, shape: vec![-1, 2] };
    let signature = Signature {
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y")],
        batching: Batching::On,
        decoupled: false,
        extras: Default::default(),
    };
    channel.loaded(&LoadedModel::new(signature, [("kind".into(), "double".into())].into())).unwrap();
    // Unsafe code lives in the transport alone; the kernel reads and writes addresses just as well.
    let memory = std::fs::File::options().read(true).write(true).open("/proc/self/mem").unwrap();
    while let Some(mut batch) = channel.next().unwrap() {
        let input = batch.inputs()[0].clone();
        let mut bytes = vec![0; input.len];
        memory.read_exact_at(&mut bytes, input.ptr as u64).unwrap();
        let numbers: Vec<f32> =
            bytes.chunks(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect();
        if numbers.contains(&FAIL) {
            batch.fail(ErrorKind::ModelFailed, "the model raised an error", "a secret traceback");
            continue;
        }
        if numbers.contains(&WAIT) {
            wait_at(&load["gate"]);
        }
        let doubled: Vec<u8> = numbers.iter().flat_map(|number| (number * 2.0).to_le_bytes()).collect();
        let output = batch.output(0, DataType::Fp32, &input.shape).unwrap();
        memory.write_all_at(&doubled, output as u64).unwrap();
        batch.finish(Duration::from_micros(100));
    }
}

//! A worker with a model of two inputs a row, whose first value says what is to go wrong.
//!
//! A row `[a, b]` gives `[a + 1, b + 1]`; with `add` of `load`, what that says in place of 1. With `renamed` of `load` its
//! output has another name.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use inferd_transport::worker::{Batch, Channel};
use inferd_types::settings::LoadedModel;
use inferd_types::{Batching, DataType, Decider, ErrorKind, Signature, TensorSpec, Verdict};
use serde_json::Value;

/// The worker dies.
pub(crate) const CRASH: f32 = -666.0;
/// The run never ends.
pub(crate) const HANG: f32 = -777.0;
/// The run ends only when it is asked to stop.
pub(crate) const HANG_POLITELY: f32 = -778.0;
/// The model calls the input invalid.
pub(crate) const INVALID: f32 = -888.0;
/// The worker dies where more than two rows run together.
pub(crate) const CROWDED: f32 = -999.0;
/// The worker dies where the row runs alone.
pub(crate) const LONELY: f32 = -555.0;
/// The run lasts until the file `hold` (of `load`) is gone.
pub(crate) const HELD: f32 = -500.0;

pub(crate) fn signature(batched: bool) -> Signature {
    let spec = |name: &str| TensorSpec { name: name.into(), datatype: DataType::Fp32, shape: vec![-1, 2] };
    let batching = if batched { Batching::On } else { Batching::Off { reason: "the test says so".into() } };
    Signature {
        inputs: vec![spec("x")],
        outputs: vec![spec("y")],
        batching,
        decoupled: false,
        extras: Default::default(),
    }
}

pub(crate) fn run(fd: i32) -> ! {
    let mut channel = Channel::from_fd(fd).unwrap();
    let load = channel.load().clone();
    let path = |key: &str| load.get(key).and_then(Value::as_str).map(str::to_owned);
    if let Some(message) = path("fail") {
        channel.failed(&message, "a traceback");
        std::process::exit(1);
    }
    if path("fail_while").is_some_and(|file| Path::new(&file).exists()) {
        channel.failed("the file is there", "");
        std::process::exit(1);
    }
    if load.get("exit").is_some() {
        std::process::exit(7);
    }
    wait_while(path("load_while").as_deref());
    let batched = load.get("batched").and_then(Value::as_bool).unwrap_or(true);
    let mut signature = signature(batched);
    if load.get("renamed").is_some() {
        signature.outputs[0].name = "z".into();
    }
    if load.get("probed").is_some() {
        signature.extras.verdict =
            Some(Verdict { by: Decider::Probe, why: "the test says so".into(), rows: 4 });
    }
    channel.loaded(&LoadedModel::new(signature, Default::default())).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    channel.on_terminate(Box::new(move || asked.store(true, Ordering::SeqCst)));
    while let Some(batch) = channel.next().unwrap() {
        run_batch(batch, &load, &stop);
    }
    std::process::exit(0)
}

fn run_batch(mut batch: Batch, load: &Value, stop: &AtomicBool) {
    stop.store(false, Ordering::SeqCst);
    let values = read(&batch);
    let has = |marker: f32| values.chunks(2).any(|row| row[0] == marker);
    if has(CRASH) || (has(CROWDED) && batch.rows() > 2) || (has(LONELY) && batch.rows() == 1) {
        std::process::abort();
    }
    while has(HANG) || (has(HANG_POLITELY) && !stop.load(Ordering::SeqCst)) {
        pause();
    }
    if has(HANG_POLITELY) {
        return batch.fail(ErrorKind::ModelFailed, "it was stopped", "");
    }
    if has(INVALID) || (load.get("refuse_zeros").is_some() && has(0.0)) {
        return batch.fail(ErrorKind::InvalidInput, "this value is not liked", "a traceback");
    }
    if has(HELD) {
        wait_while(load.get("hold").and_then(Value::as_str));
    }
    let shape: Vec<u64> = batch.inputs()[0].shape.to_vec();
    let out = batch.output(0, DataType::Fp32, &shape).unwrap();
    // Past a threshold rows see each other.
    let above = load.get("mixes_above").and_then(Value::as_f64).unwrap_or(f64::INFINITY);
    let mixed = values.iter().any(|value| f64::from(*value) > above);
    let seen = if mixed { batch.rows() as f32 } else { 1.0 };
    let add = load.get("add").and_then(Value::as_f64).unwrap_or(1.0) as f32;
    let bytes: Vec<u8> = values.iter().flat_map(|value| (value + add * seen).to_le_bytes()).collect();
    write(out, &bytes);
    batch.finish(Duration::from_micros(50));
}

#[expect(unsafe_code, reason = "the worker's end of the arena is raw memory")]
fn read(batch: &Batch) -> Vec<f32> {
    let view = &batch.inputs()[0];
    // SAFETY: the view is `len` bytes of the arena, which stay readable until the batch ends.
    let bytes = unsafe { std::slice::from_raw_parts(view.ptr, view.len) };
    bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

#[expect(unsafe_code, reason = "the worker's end of the arena is raw memory")]
fn write(out: *mut u8, bytes: &[u8]) {
    // SAFETY: `out` has room for the shape that was asked for, which is that of `bytes`.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), out, bytes.len()) };
}

fn wait_while(file: Option<&str>) {
    while file.is_some_and(|file| Path::new(file).exists()) {
        pause();
    }
}

fn pause() {
    std::thread::park_timeout(Duration::from_millis(1));
}

//! Measures the cost of a batch between gateway and worker: `cargo run --release --example round_trip`.
//!
//! Starts itself as a worker that copies one small input to its output. Prints the time of a round trip with one
//! batch in flight (both sides sleep in between), then the gateway's CPU time per batch and per request with two in
//! flight.
#![allow(unsafe_code, reason = "the worker copies between addresses in the arena")]

use std::time::Duration;

use bytes::Bytes;
use inferd_transport::worker::Channel;
use inferd_transport::{Doorbell, SlotId, SlotState, Spawner, Waiting, Worker};
use inferd_types::settings::{Launch, LoadedModel, ModelSettings, Placement};
use inferd_types::{BatchId, Clock, DataType, Signature, Tensor};
use serde_json::json;

const ROUNDS: u64 = 100_000;

fn main() {
    match std::env::args().nth(1) {
        Some(fd) => work(fd.parse().expect("the gateway appends a number")),
        None => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(measure());
        }
    }
}

fn work(fd: i32) {
    let mut channel = Channel::from_fd(fd).expect("started by the gateway");
    let signature: Signature = serde_json::from_value(channel.load().clone()).expect("sent by the gateway");
    channel.loaded(&LoadedModel::new(signature, Default::default())).expect("the arena");
    while let Some(mut batch) = channel.next().expect("a batch") {
        let input = batch.inputs()[0].clone();
        let output = batch.output(0, input.datatype, &input.shape).expect("room");
        // SAFETY: both are `len` bytes long, inside the arena, and apart.
        unsafe { std::ptr::copy_nonoverlapping(input.ptr, output, input.len) };
        batch.finish(Duration::ZERO);
    }
}

fn settings() -> ModelSettings {
    let exe = std::env::current_exe().expect("this program").to_string_lossy().into_owned();
    let tensor = json!([{ "name": "x", "datatype": "FP32", "shape": [-1, 4] }]);
    ModelSettings {
        launch: Launch::Exec { command: vec![exe] },
        load: json!({ "inputs": tensor, "outputs": tensor, "batching": "on" }),
        ..inferd_testkit::settings("copy")
    }
}

async fn done(worker: &mut Worker, bell: &Doorbell, slot: SlotId, requests: usize) {
    loop {
        for look in 0..2 {
            if let SlotState::Done(result) = worker.poll(slot) {
                let outputs = result.outcome.expect("a copy does not fail");
                assert_eq!(outputs.split(&vec![1; requests]).expect("as many rows").len(), requests);
                return;
            }
            if look == 0 {
                worker.set_waiting(Waiting::Done);
            }
        }
        bell.rung().await;
    }
}

async fn measure() {
    let (spawner, bell) = (Spawner::new().expect("a thread"), Doorbell::new().expect("an eventfd"));
    let started = Worker::start(&spawner, &settings(), Placement::ALONE, &bell).await;
    let (mut worker, _) = started.expect("a worker");
    let shape = [1u64, 4].into_iter().collect();
    let tensor = Tensor::new(DataType::Fp32, shape, Bytes::from_static(&[0; 16])).expect("16 bytes");
    let request: &[Tensor] = std::slice::from_ref(&tensor);
    let clock = Clock::start();
    for requests in [1, 32] {
        let batch = vec![request; requests];
        let begun = clock.now();
        for round in 0..ROUNDS {
            let slot = worker.stage(BatchId(round), &batch).expect("a free slot");
            done(&mut worker, &bell, slot, requests).await;
        }
        let took = clock.now().since(begun) / ROUNDS as u32;
        println!("{requests:>2} requests a batch, one in flight: {took:?} a round trip");

        let (begun, cpu) = (clock.now(), cpu_time());
        let mut last = worker.stage(BatchId(0), &batch).expect("a free slot");
        for round in 1..ROUNDS {
            let next = worker.stage(BatchId(round), &batch).expect("a free slot");
            done(&mut worker, &bell, last, requests).await;
            last = next;
        }
        done(&mut worker, &bell, last, requests).await;
        let (took, cpu) = (clock.now().since(begun) / ROUNDS as u32, (cpu_time() - cpu) / ROUNDS as u32);
        println!(
            "{requests:>2} requests a batch, two in flight: {took:?} a batch, {cpu:?} of the gateway's core, {:?} a request",
            cpu / requests as u32
        );
    }
}

/// CPU time of this process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

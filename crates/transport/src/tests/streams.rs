//! Batches of several responses.

use inferd_types::{DataType, ErrorKind, Signature};
use serde_json::json;

use super::support::{Bench, PATIENCE, floats, model};
use crate::layout::tests::{signature, spec};
use crate::{Outputs, SlotId, SlotState, Waiting};

async fn bench(responses: u64) -> Bench {
    let numbers = || vec![spec(DataType::Fp32, &[-1])];
    let signature = Signature { decoupled: true, ..signature(numbers(), numbers(), false) };
    Bench::new(&model(&signature, json!({ "mode": "count", "responses": responses }))).await
}

/// Waits until a response is ready; false: the batch is done, with its result in `then`.
async fn partial(bench: &mut Bench, slot: SlotId) -> bool {
    let waiting = async {
        loop {
            bench.worker.set_waiting(Waiting::Done);
            match bench.worker.poll(slot) {
                SlotState::Partial => return true,
                SlotState::Done(result) => {
                    result.outcome.unwrap();
                    return false;
                }
                _ => bench.bell.rung().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("something comes in time")
}

fn first_byte(outputs: &Outputs) -> (u8, usize) {
    let tensor = &outputs.split(&[1]).unwrap()[0][0];
    (tensor.data[0], tensor.data.len())
}

#[tokio::test]
async fn responses_come_one_by_one_whatever_room_they_need() {
    let mut bench = bench(22).await;
    for batch in 0..3 {
        let slot = bench.stage(batch, &[vec![floats(&[1.0], 1)]]);
        for number in 0..22u8 {
            assert!(partial(&mut bench, slot).await);
            // A second poll still finds it.
            assert!(matches!(bench.worker.poll(slot), SlotState::Partial));
            let outputs = bench.worker.take_partial(slot).unwrap().unwrap();
            assert_eq!(first_byte(&outputs), (number, 4 << number.min(18)));
        }
        assert!(!partial(&mut bench, slot).await);
        assert!(bench.worker.take_partial(slot).unwrap().is_none());
    }
}

#[tokio::test]
async fn a_worker_that_is_stopped_ends_its_batch_and_takes_the_next() {
    let mut bench = bench(5).await;
    let slot = bench.stage(1, &[vec![floats(&[1.0], 1)]]);
    let behind = bench.stage(2, &[vec![floats(&[1.0], 1)]]);
    assert!(partial(&mut bench, slot).await);
    bench.worker.take_partial(slot).unwrap().unwrap();
    assert!(partial(&mut bench, slot).await);
    bench.worker.stop_stream(slot);
    let result = bench.done(slot).await;
    let failure = result.outcome.unwrap_err();
    assert_eq!((failure.kind, &*failure.message), (ErrorKind::ModelFailed, "stopped at 1"));
    assert!(partial(&mut bench, behind).await);
}

#[tokio::test]
async fn a_worker_that_streams_for_a_model_that_does_not_is_ended() {
    let numbers = || vec![spec(DataType::Fp32, &[-1])];
    let settings = model(&signature(numbers(), numbers(), false), json!({ "mode": "count", "responses": 1 }));
    let mut bench = Bench::new(&settings).await;
    let slot = bench.stage(1, &[vec![floats(&[1.0], 1)]]);
    let ended = async {
        while !bench.worker.slots.broken() {
            bench.worker.set_waiting(Waiting::Done);
            if !matches!(bench.worker.poll(slot), SlotState::Open | SlotState::Taken) {
                panic!("a rejected result");
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    bench.exited().await;
}

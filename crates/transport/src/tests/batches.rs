//! Batches that succeed.

use bytes::Bytes;
use inferd_types::{BatchId, DataType, Tensor};
use serde_json::json;

use super::support::{Bench, Gate, floats, model, named, pair, pairs, values};
use crate::layout::tests::{signature, spec};
use crate::{AppendOutcome, SlotState, StageError};

#[tokio::test]
async fn requests_run_together_and_each_gets_its_own_rows() {
    let mut bench = Bench::pairs("double").await;
    for batch in 0..300 {
        let first = batch as f32;
        let requests = [pair(&[first, 2.0]), pair(&[3.0, 4.0, 5.0, 6.0])];
        let result = bench.run(batch, &requests).await;
        assert_eq!((result.batch, result.rows, result.execution.as_nanos()), (BatchId(batch), 3, 3));
        let outputs = result.outcome.unwrap();
        let answers = outputs.split(&[1, 2]).unwrap();
        assert_eq!(values(&answers[0][0]), [2.0 * first, 4.0]);
        assert_eq!(values(&answers[1][0]), [6.0, 8.0, 10.0, 12.0]);
        assert_eq!(&answers[1][0].shape[..], [2, 2]);
    }
}

#[tokio::test]
async fn a_batch_stays_open_behind_the_one_that_runs_and_takes_more_rows() {
    let gate = Gate::new("append");
    let mut bench = Bench::new(&gate.settings()).await;
    let running = bench.stage(1, &[pair(&[1.0, 1.0])]);
    bench.taken(running).await;
    let open = bench.stage(2, &[pair(&[2.0, 2.0])]);
    assert_eq!(bench.worker.stage(BatchId(3), &[&pair(&[0.0, 0.0])]), Err(StageError::NoSlot));
    assert_eq!(bench.worker.append(open, &[&pair(&[3.0, 3.0]), &pair(&[4.0, 4.0])]), AppendOutcome::Appended);
    assert_eq!(bench.worker.append(running, &[&pair(&[9.0, 9.0])]), AppendOutcome::TakenAlready);
    assert_eq!(bench.worker.append(open, &[&[floats(&[1.0], 1)]]), AppendOutcome::NoRoom);
    assert_eq!(bench.worker.append(open, &[&pair(&[0.0; 60])]), AppendOutcome::NoRoom);
    assert!(matches!(bench.worker.poll(open), SlotState::Open));
    assert!(!bench.worker.withdraw(running));

    gate.open().await;
    assert_eq!(bench.done(running).await.rows, 1);
    // With the ring of the first one, the second is taken: it can't grow any more.
    assert!(matches!(bench.worker.poll(open), SlotState::Taken));
    assert_eq!(bench.worker.append(open, &[&pair(&[9.0, 9.0])]), AppendOutcome::TakenAlready);
    gate.open().await;
    let result = bench.done(open).await;
    assert_eq!(result.rows, 3);
    let answers = result.outcome.unwrap().split(&[1, 1, 1]).unwrap();
    let got: Vec<_> = answers.iter().map(|answer| values(&answer[0])[0]).collect();
    assert_eq!(got, [4.0, 6.0, 8.0]);
}

#[tokio::test]
async fn a_withdrawn_batch_is_never_run_and_its_slot_is_free() {
    let gate = Gate::new("withdraw");
    let mut bench = Bench::new(&gate.settings()).await;
    let running = bench.stage(1, &[pair(&[1.0, 1.0])]);
    bench.taken(running).await;
    let open = bench.stage(2, &[pair(&[2.0, 2.0])]);
    assert!(bench.worker.withdraw(open));
    assert!(!bench.worker.withdraw(open));
    assert!(matches!(bench.worker.poll(open), SlotState::Free));
    assert_eq!(bench.stage(3, &[pair(&[3.0, 3.0])]), open);
    gate.open().await;
    bench.done(running).await;
    gate.open().await;
    let result = bench.done(open).await;
    assert_eq!(result.batch, BatchId(3));
    assert_eq!(values(&result.outcome.unwrap().split(&[1]).unwrap()[0][0]), [6.0, 6.0]);
}

#[tokio::test]
async fn the_race_for_an_open_batch_has_one_winner_and_no_row_is_lost_or_doubled() {
    let mut bench = Bench::pairs("double").await;
    let (mut appended, mut withdrawn) = (0, 0);
    for batch in 0..3000u64 {
        let slot = bench.stage(batch, &[pair(&[batch as f32, 0.0])]);
        let mut rows = vec![1u32];
        // The worker runs meanwhile; sooner or later it is faster.
        for extra in 1..(batch % 7) {
            match bench.worker.append(slot, &[&pair(&[extra as f32, 1.0])]) {
                AppendOutcome::Appended => rows.push(1),
                outcome => {
                    assert_eq!(outcome, AppendOutcome::TakenAlready);
                    break;
                }
            }
        }
        appended += rows.len() - 1;
        if batch % 11 == 0 && bench.worker.withdraw(slot) {
            withdrawn += 1;
            continue;
        }
        let result = bench.done(slot).await;
        assert_eq!(result.rows as usize, rows.len());
        let answers = result.outcome.unwrap().split(&rows).unwrap();
        assert_eq!(values(&answers[0][0]), [2.0 * batch as f32, 0.0]);
        for (extra, answer) in answers.iter().enumerate().skip(1) {
            assert_eq!(values(&answer[0]), [2.0 * extra as f32, 2.0]);
        }
    }
    assert!(appended > 0 && withdrawn > 0, "{appended} appended, {withdrawn} withdrawn");
}

#[tokio::test]
async fn two_batches_run_in_the_order_they_were_opened() {
    let mut bench = Bench::pairs("double").await;
    for round in 0..500 {
        let one = bench.stage(2 * round, &[pair(&[1.0, 1.0])]);
        let other = bench.stage(2 * round + 1, &[pair(&[2.0, 2.0])]);
        let second = bench.done(other).await;
        let SlotState::Done(first) = bench.worker.poll(one) else {
            panic!("the second was done before the first")
        };
        assert_eq!((first.batch, second.batch), (BatchId(2 * round), BatchId(2 * round + 1)));
    }
}

#[tokio::test]
async fn a_request_larger_than_a_batch_and_tensors_larger_than_the_arena_run_as_well() {
    let mut bench = Bench::pairs("double").await;
    // Larger and smaller by turns: segments are created, kept, replaced.
    for (batch, rows) in [100usize, 400_000, 1, 900_000, 33, 900_000].into_iter().enumerate() {
        let data: Vec<f32> = (0..2 * rows).map(|value| (value % 1000) as f32).collect();
        let result = bench.run(batch as u64, &[pair(&data)]).await;
        let answers = result.outcome.unwrap().split(&[rows as u32]).unwrap();
        let want: Vec<f32> = data.iter().map(|value| 2.0 * value).collect();
        assert_eq!(values(&answers[0][0]), want);
    }
}

#[tokio::test]
async fn a_batch_that_can_never_fit_is_refused_with_the_size_that_would_do() {
    let mut settings = model(&pairs(), json!({ "mode": "double" }));
    settings.arena_max_bytes = 1 << 20;
    let mut bench = Bench::new(&settings).await;
    let big = pair(&vec![0.0; 200_000]);
    let Err(StageError::TooLarge { needed, max }) = bench.worker.stage(BatchId(1), &[&big]) else { panic!() };
    assert_eq!(max, 1 << 20);
    assert!(needed > 1_600_000, "{needed}");
    // Nothing has changed: the slots still work.
    assert!(bench.run(2, &[pair(&[1.0, 2.0])]).await.outcome.is_ok());
}

#[tokio::test]
async fn shapes_known_only_at_run_time_and_bytes_are_batched_too() {
    let signature = signature(
        named(vec![spec(DataType::Fp32, &[-1, -1]), spec(DataType::Bytes, &[-1, 1])]),
        named(vec![spec(DataType::Fp32, &[-1, -1]), spec(DataType::Bytes, &[-1, 1])]),
        true,
    );
    let mut bench = Bench::new(&model(&signature, json!({ "mode": "double" }))).await;
    let text = |bytes: &'static [u8]| {
        Tensor::new(DataType::Bytes, [1, 1].into_iter().collect(), Bytes::from_static(bytes)).unwrap()
    };
    let requests = [
        vec![floats(&[1.0, 2.0, 3.0], 3), text(b"\x02\0\0\0a\0")],
        vec![floats(&[4.0, 5.0, 6.0], 3), text(b"\x01\0\0\0\xff")],
    ];
    let slot = bench.stage(1, &requests);
    let outcome = bench.worker.append(slot, &[&requests[0]]);
    assert!(matches!(outcome, AppendOutcome::NoRoom | AppendOutcome::TakenAlready));
    let answers = bench.done(slot).await.outcome.unwrap().split(&[1, 1]).unwrap();
    assert_eq!(values(&answers[1][0]), [8.0, 10.0, 12.0]);
    assert_eq!(answers[0][1].data, b"\x02\0\0\0a\0"[..]);
    assert_eq!(answers[1][1].data, b"\x01\0\0\0\xff"[..]);
    // Another width in the next batch, none at all in the one after.
    let result = bench.run(2, &[vec![floats(&[1.0, 2.0], 2), text(b"\0\0\0\0")]]).await;
    assert_eq!(values(&result.outcome.unwrap().split(&[1]).unwrap()[0][0]), [2.0, 4.0]);
    let mixed: [&[Tensor]; 2] = [&[floats(&[1.0], 1), text(b"\0\0\0\0")], &requests[0]];
    assert_eq!(bench.worker.stage(BatchId(3), &mixed), Err(StageError::Mixed));
}

#[tokio::test]
async fn a_model_that_is_not_batched_runs_one_request_at_a_time_as_it_came() {
    let signature =
        signature(vec![spec(DataType::Fp32, &[3, 2])], vec![spec(DataType::Fp32, &[3, 2])], false);
    let mut bench = Bench::new(&model(&signature, json!({ "mode": "double" }))).await;
    let request = vec![floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2)];
    let twice: [&[Tensor]; 2] = [&request, &request];
    assert_eq!(bench.worker.stage(BatchId(1), &twice), Err(StageError::Mixed));
    let result = bench.run(2, std::slice::from_ref(&request)).await;
    assert_eq!(result.rows, 1);
    let answers = result.outcome.unwrap().split(&[1]).unwrap();
    assert_eq!(values(&answers[0][0]), [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
}

#[tokio::test]
async fn outputs_that_need_more_room_get_it() {
    let inputs = named(vec![spec(DataType::Fp32, &[-1, 2]); 3]);
    let wide = signature(inputs, named(vec![spec(DataType::Fp32, &[-1, -1]); 3]), true);
    let mut bench = Bench::new(&model(&wide, json!({ "mode": "grow", "width": 100_000 }))).await;
    for batch in 0..6 {
        let request: Vec<Tensor> = (0..3).map(|_| floats(&[batch as f32, 0.0, 7.0, 0.0], 2)).collect();
        let answers = bench.run(batch, &[request]).await.outcome.unwrap().split(&[2]).unwrap();
        for output in &answers[0] {
            let got = values(output);
            assert_eq!(got.len(), 200_000);
            assert!(got[..100_000].iter().all(|value| *value == batch as f32));
            assert!(got[100_000..].iter().all(|value| *value == 7.0));
        }
    }
}

#[tokio::test]
async fn outputs_beyond_the_limit_fail_the_batch_with_the_setting_to_raise() {
    let wide = signature(vec![spec(DataType::Fp32, &[-1, 2])], vec![spec(DataType::Fp32, &[-1, -1])], true);
    let mut settings = model(&wide, json!({ "mode": "grow", "width": 1_000_000 }));
    settings.arena_max_bytes = 4 << 20;
    let mut bench = Bench::new(&settings).await;
    let failure = bench.run(1, &[pair(&[1.0, 2.0])]).await.outcome.unwrap_err();
    assert!(failure.message.contains("raise arena_max_bytes (4194304)"), "{}", failure.message);
    assert!(bench.run(2, &[pair(&[1.0, 2.0])]).await.outcome.is_err(), "the worker lives on");
}

//! Batches that fail while the worker stays alive.

use inferd_types::ErrorKind;

use super::support::{Bench, pair};

#[tokio::test]
async fn a_failure_arrives_with_its_kind_its_message_and_its_traceback() {
    let mut bench = Bench::pairs("fail").await;
    for batch in 0..3 {
        let failure = bench.run(batch, &[pair(&[1.0, 2.0])]).await.outcome.unwrap_err();
        assert_eq!(failure.kind, ErrorKind::InvalidInput);
        assert_eq!(failure.message, "row 1 is out of range");
        assert_eq!(failure.detail, "Traceback: line 9");
    }
}

#[tokio::test]
async fn a_wrong_number_of_rows_fails_the_batch_and_shifts_none() {
    let mut bench = Bench::pairs("short").await;
    let failure = bench.run(1, &[pair(&[1.0, 2.0]), pair(&[3.0, 4.0])]).await.outcome.unwrap_err();
    assert_eq!(failure.kind, ErrorKind::ModelFailed);
    assert!(failure.message.contains("1 rows of output 'x' for a batch of 2"), "{}", failure.message);
}

#[tokio::test]
async fn an_output_of_another_type_or_none_at_all_fails_the_batch() {
    for (mode, text) in [("wrong_type", "as INT32, not FP32"), ("none", "gave no output 'x'")] {
        let mut bench = Bench::pairs(mode).await;
        for batch in 0..2 {
            let failure = bench.run(batch, &[pair(&[1.0, 2.0])]).await.outcome.unwrap_err();
            assert!(failure.message.contains(text), "{}", failure.message);
        }
    }
}

#[tokio::test]
async fn a_batch_that_is_dropped_unfinished_has_failed() {
    let mut bench = Bench::pairs("drop").await;
    let failure = bench.run(1, &[pair(&[1.0, 2.0])]).await.outcome.unwrap_err();
    assert_eq!(failure.kind, ErrorKind::ModelFailed);
}

#[tokio::test]
async fn a_run_is_stopped_when_the_runtime_can() {
    let mut bench = Bench::pairs("until_stopped").await;
    let slot = bench.stage(1, &[pair(&[1.0, 2.0])]);
    bench.taken(slot).await;
    bench.worker.terminate_run();
    assert_eq!(bench.done(slot).await.outcome.unwrap_err().message, "stopped");
}

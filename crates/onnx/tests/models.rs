//! Real models in the real runtime.
#![allow(unsafe_code, reason = "an owner of outputs promises room for them, in tests too")]

mod common;

use std::sync::mpsc;

use common::{floats, integers, library, load, path, settings, texts};
use inferd_onnx::{BatchingMode, Device, Input, LoadSettings, OnnxModel, Outputs};
use inferd_types::{Batching, DataType, Decider, ErrorKind, Result, Tensor};

fn reason(model: &str) -> String {
    match &load(model).loaded().signature.batching {
        Batching::On => panic!("batching of {model} is on"),
        Batching::Off { reason } => reason.clone(),
    }
}

#[test]
fn a_model_with_independent_rows_is_batched_and_says_what_it_takes_and_gives() {
    let mut model = load("affine");
    let loaded = model.loaded().clone();
    assert_eq!(loaded.signature.batching, Batching::On);
    assert_eq!(loaded.signature.inputs[0].shape, [-1, 4]);
    assert_eq!(&*loaded.signature.outputs[0].name, "y");
    assert!(loaded.facts["runtime"].starts_with("onnxruntime 1."), "{:?}", loaded.facts);
    let verdict = loaded.signature.extras.verdict.as_ref().unwrap();
    assert_eq!(verdict.by, Decider::Analysis, "{verdict:?}");
    assert_eq!(loaded.facts["outputs_in_place"], "1 of 1");
    for rows in [1u64, 3, 2, 3] {
        let values: Vec<f32> = (0..rows * 4).map(|value| value as f32).collect();
        let expected: Vec<f32> = values.iter().map(|value| value * 2.0 + 1.0).collect();
        let answers = model.run_tensors(&[floats(&[rows, 4], &values)]).unwrap();
        assert_eq!(answers, [floats(&[rows, 4], &expected)]);
    }
}

#[test]
fn every_type_of_the_protocol_passes_through_unchanged() {
    let mut model = load("every_type");
    let signature = model.loaded().signature.clone();
    let types: Vec<_> = signature.inputs.iter().map(|input| input.datatype).collect();
    assert_eq!(types, signature.outputs.iter().map(|output| output.datatype).collect::<Vec<_>>());
    assert!(DataType::ALL.iter().all(|datatype| types.contains(datatype)), "{types:?}");
    assert_eq!(signature.batching, Batching::On);
    let tensor = |datatype: &DataType| match datatype.size() {
        Some(size) => Tensor::new(*datatype, [2, 3].as_slice().into(), vec![1; 6 * size].into()).unwrap(),
        None => texts(&[2, 3], &[b"a\0b", b"", b"\xff\xfe", b"c", b"d", "\u{1f980}".as_bytes()]),
    };
    let inputs: Vec<_> = types.iter().map(tensor).collect();
    assert_eq!(model.run_tensors(&inputs).unwrap(), inputs);
}

#[test]
fn a_tensor_without_rows_passes_through() {
    let mut model = load("every_type");
    let empty =
        |datatype: DataType| Tensor::new(datatype, [0, 3].as_slice().into(), Vec::new().into()).unwrap();
    let inputs: Vec<_> = model.loaded().signature.inputs.iter().map(|input| empty(input.datatype)).collect();
    assert_eq!(model.run_tensors(&inputs).unwrap(), inputs);
}

#[test]
fn a_first_dimension_that_is_not_a_batch_is_found_out() {
    assert_eq!(reason("running_sum"), "CumSum 'y' runs along the rows");
    assert!(reason("similarity").contains("'batch' is a later dimension of output 'y' too"));
    assert_eq!(reason("noisy"), "RandomNormalLike 'y' is random");
    assert_eq!(reason("branch"), "ReduceMax 'top' reduces over the rows");
    assert!(reason("fixed").contains("fixed at 1"));
    assert!(reason("scalar").contains("scalar"));
}

#[test]
fn without_batching_the_signature_keeps_the_models_own_shape() {
    assert_eq!(load("fixed").loaded().signature.inputs[0].shape, [1, 3]);
    assert_eq!(load("running_sum").loaded().signature.inputs[0].shape, [-1, 2]);
    let mut model = load("scalar");
    assert!(model.loaded().signature.inputs[0].shape.is_empty());
    assert_eq!(model.run_tensors(&[floats(&[], &[3.0])]).unwrap(), [floats(&[], &[-3.0])]);
}

#[test]
fn the_setting_overrides_the_proof_and_the_probe() {
    let with = |model, batching| {
        let mut settings = settings(model);
        settings.batching = batching;
        OnnxModel::load(&settings)
    };
    let batching = |model, mode| with(model, mode).unwrap().loaded().signature.batching.clone();
    assert_eq!(batching("running_sum", BatchingMode::On), Batching::On);
    assert_ne!(batching("affine", BatchingMode::Off), Batching::On);
    let error = with("fixed", BatchingMode::On).err().unwrap();
    assert!(error.message().contains("help: set batching: auto"), "{error}");
}

#[test]
fn rows_that_are_answered_alike_show_nothing_and_are_left_to_those_that_come_where_these_may_decide() {
    let decided = |mode| {
        let mut settings = settings("alike");
        settings.batching = mode;
        let signature = OnnxModel::load(&settings).unwrap().loaded().signature.clone();
        (signature.batched(), signature.extras.verdict.unwrap())
    };
    let (batched, verdict) = decided(BatchingMode::Auto);
    assert_eq!((batched, verdict.by), (false, Decider::Probe));
    assert!(verdict.why.contains("answers every generated row alike"), "{verdict:?}");
    let (batched, verdict) = decided(BatchingMode::Verify);
    assert_eq!((batched, verdict.by), (true, Decider::Traffic));
    assert!(verdict.why.contains("answers every generated row alike"), "{verdict:?}");
}

#[test]
fn a_batch_of_one_row_needs_no_batching() {
    let mut settings = settings("affine");
    settings.batch_rows_max = 1;
    let model = OnnxModel::load(&settings).unwrap();
    let verdict = model.loaded().signature.extras.verdict.clone().unwrap();
    assert_eq!((verdict.by, &*verdict.why), (Decider::Setting, "batch_rows_max is 1"));
}

#[test]
fn an_output_whose_size_depends_on_the_data_is_copied() {
    let mut model = load("nonzero");
    assert_eq!(model.loaded().signature.outputs[0].shape, [1, -1]);
    assert_eq!(model.loaded().facts["outputs_in_place"], "0 of 1");
    let mut found = |values: &[f32]| model.run_tensors(&[floats(&[4], values)]).unwrap();
    assert_eq!(found(&[0.0, 5.0, 0.0, 1.0]), [integers(&[1, 2], &[1, 3])]);
    assert_eq!(found(&[0.0; 4]), [integers(&[1, 0], &[])]);
}

#[test]
fn a_model_that_breaks_its_declared_shape_is_still_served() {
    let mut model = load("liar");
    let tensor = |values: &[i32]| {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(DataType::Int32, [values.len() as u64].as_slice().into(), data.into()).unwrap()
    };
    assert_eq!(model.loaded().facts["outputs_in_place"], "1 of 1");
    assert_eq!(model.run_tensors(&[tensor(&[1, 2, 3])]).unwrap(), [tensor(&[1, 2, 3])]);
    assert_eq!(model.run_tensors(&[tensor(&[1, 99, 3])]).unwrap(), [tensor(&[1, 3])]);
    assert_eq!(model.run_tensors(&[tensor(&[99, 7])]).unwrap(), [tensor(&[7])]);
}

#[test]
fn an_output_without_a_declared_shape_gets_its_rank_from_a_trial() {
    let mut model = load("shapeless");
    assert_eq!(model.loaded().signature.outputs[0].shape, [-1, -1]);
    let answers = model.run_tensors(&[floats(&[1, 3], &[-1.0, 0.0, 1.0])]).unwrap();
    assert_eq!(answers, [floats(&[1, 3], &[0.0, 0.0, 1.0])]);
}

#[test]
fn a_model_that_declares_one_row_for_good_is_served_with_the_shapes_that_it_has() {
    let mut model = load("one_row");
    let signature = &model.loaded().signature;
    assert_eq!(
        (&signature.outputs[0].shape[..], &signature.outputs[1].shape[..]),
        (&[-1][..], &[-1, -1][..])
    );
    assert_eq!(signature.batching, Batching::On);
    let answers = model.run_tensors(&[floats(&[2, 2], &[1.0, 2.0, -3.0, 4.0])]).unwrap();
    assert_eq!(answers, [floats(&[2], &[3.0, 1.0]), floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0])]);
}

#[test]
fn an_output_made_in_a_subgraph_is_right_whether_bound_or_not() {
    let mut model = load("branch");
    for rows in [1u64, 2, 5] {
        let values = vec![-1.5; rows as usize * 3];
        let answers = model.run_tensors(&[floats(&[rows, 3], &values)]).unwrap();
        assert_eq!(answers, [floats(&[rows, 3], &vec![0.0; rows as usize * 3])]);
    }
}

#[test]
fn strings_are_batched_and_answered() {
    let mut model = load("greeting");
    assert_eq!(model.loaded().signature.batching, Batching::On);
    let answers = model.run_tensors(&[texts(&[2, 1], &[b"you", b"\0"])]).unwrap();
    assert_eq!(answers, [texts(&[2, 1], &[b"hello you", b"hello \0"])]);
}

#[test]
fn small_ranges_are_tried_where_larger_numbers_fail_and_symbols_may_differ() {
    let mut model = load("segments");
    assert_eq!(model.loaded().signature.batching, Batching::On);
    assert_eq!(model.loaded().facts["outputs_in_place"], "1 of 1");
    let answers = model.run_tensors(&[integers(&[2, 2], &[0, 1, 1, 1])]).unwrap();
    assert_eq!(answers, [floats(&[2, 2], &[4.0, 7.0, 6.0, 10.0])]);
}

#[test]
fn what_a_request_did_wrong_is_its_own_fault_and_names_no_path() {
    let mut model = load("lookup");
    for (input, expected) in [
        (integers(&[1], &[99]), "out of data bounds"),
        (integers(&[1, 1], &[1]), "Invalid rank for input: id"),
        (floats(&[1], &[1.0]), "input 'id' is INT64 but FP32 was given"),
    ] {
        let error = model.run_tensors(&[input]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.message().contains(expected), "{error}");
        assert!(!error.message().contains('/'), "{error}");
    }
    assert!(model.run_tensors(&[]).unwrap_err().message().contains("takes 1 inputs but 0"));
    assert_eq!(model.run_tensors(&[integers(&[1], &[3])]).unwrap(), [floats(&[1, 2], &[6.0, 7.0])]);
}

#[test]
fn external_data_is_found() {
    let answers = load("external").run_tensors(&[floats(&[1, 4], &[1.0, 0.0, 0.0, 1.0])]).unwrap();
    assert_eq!(answers, [floats(&[1, 2], &[6.0, 8.0])]);
}

#[test]
fn a_run_can_be_stopped_from_another_thread_and_the_next_one_is_whole() {
    let mut model = load("endless");
    let stopper = model.terminator();
    stopper.stop();
    assert_eq!(model.run_tensors(&[integers(&[], &[3])]).unwrap(), [floats(&[1], &[3.0])]);
    let (ended, end) = mpsc::channel::<()>();
    // Repeatedly, so that it does not matter when the run begins.
    let asking = std::thread::spawn(move || {
        while end
            .recv_timeout(std::time::Duration::from_millis(1))
            .is_err_and(|e| e == mpsc::RecvTimeoutError::Timeout)
        {
            stopper.stop();
        }
    });
    let error = model.run_tensors(&[integers(&[], &[i64::MAX])]).unwrap_err();
    drop(ended);
    asking.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::ModelFailed);
    assert!(error.message().contains("stopped"), "{error}");
    assert_eq!(model.run_tensors(&[integers(&[], &[3])]).unwrap(), [floats(&[1], &[3.0])]);
}

#[test]
fn several_threads_give_the_same_outputs() {
    let mut settings = settings("external");
    settings.threads = 2;
    let mut model = OnnxModel::load(&settings).unwrap();
    assert_eq!(model.loaded().facts["threads"], "2");
    let answers = model.run_tensors(&[floats(&[1, 4], &[0.0, 1.0, 0.0, 0.0])]).unwrap();
    assert_eq!(answers, [floats(&[1, 2], &[2.0, 3.0])]);
}

#[test]
fn a_model_that_can_not_be_loaded_says_why_and_what_to_do() {
    let error = |change: &dyn Fn(&mut inferd_onnx::LoadSettings)| {
        let mut settings = settings("affine");
        change(&mut settings);
        OnnxModel::load(&settings).err().unwrap().message().to_owned()
    };
    assert!(error(&|s| s.path = path("missing")).contains("missing.onnx does not exist"));
    let garbage = error(&|s| s.path = path("make_models").with_file_name("external.weights"));
    assert!(
        garbage.contains("external.weights can't be loaded") && !garbage.contains("/tests/"),
        "{garbage}"
    );
    let gpu = error(&|s| s.device = Device::Cuda(0));
    assert!(gpu.contains("onnxruntime-gpu"), "{gpu}");
    let missing = error(&|s| s.library = library().with_file_name("libnothing.so"));
    assert!(
        missing.contains("libnothing.so can't be loaded\nhelp: install the package onnxruntime>="),
        "{missing}"
    );
    let other = error(&|s| s.library = "libc.so.6".into());
    assert!(other.contains("is not ONNX Runtime"), "{other}");
}

/// Memory at fixed addresses, as in the arena.
struct Fixed {
    room: Vec<f32>,
    places: usize,
}

// SAFETY: the room is larger than any output of the test, aligned for floats, and outlives the runs.
unsafe impl Outputs for Fixed {
    fn place(&mut self, _: usize, _: DataType, shape: &[u64]) -> Result<*mut u8> {
        assert!(shape.iter().product::<u64>() <= self.room.len() as u64);
        self.places += 1;
        Ok(self.room.as_mut_ptr().cast())
    }

    fn place_bytes(&mut self, _: usize, _: &[u64], _: usize) -> Result<*mut u8> {
        unreachable!("there are no strings")
    }
}

#[test]
fn outputs_are_written_to_the_callers_memory_however_often_batches_change() {
    let mut model = load("affine");
    let mut outputs = Fixed { room: vec![0.0; 32], places: 0 };
    for round in 0..200u64 {
        let rows = round % 8 + 1;
        let input = floats(&[rows, 4], &vec![round as f32; rows as usize * 4]);
        model.run(&[Input::of(&input)], &mut outputs).unwrap();
        let expected = vec![round as f32 * 2.0 + 1.0; rows as usize * 4];
        assert_eq!(outputs.room[..rows as usize * 4], expected);
    }
    assert_eq!(outputs.places, 200, "bound once per run, never copied");
}

#[test]
fn an_error_of_the_outputs_owner_ends_the_run_with_it() {
    struct Full;
    // SAFETY: it never returns an address.
    unsafe impl Outputs for Full {
        fn place(&mut self, _: usize, _: DataType, _: &[u64]) -> Result<*mut u8> {
            Err(inferd_types::Error::new(ErrorKind::TooLarge, "no room"))
        }
        fn place_bytes(&mut self, _: usize, _: &[u64], _: usize) -> Result<*mut u8> {
            Err(inferd_types::Error::new(ErrorKind::TooLarge, "no room"))
        }
    }
    let input = floats(&[1, 4], &[0.0; 4]);
    let error = load("affine").run(&[Input::of(&input)], &mut Full).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let name = texts(&[1, 1], &[b"x"]);
    assert_eq!(load("greeting").run(&[Input::of(&name)], &mut Full).unwrap_err().message(), "no room");
}

#[test]
fn clients_may_see_other_shapes_than_the_model() {
    let reshape = |input: &str, own: &[i64]| {
        let one = serde_json::json!({"seen": [-1, 2, 2], "own": own});
        let value = serde_json::json!({
            "path": path("affine"), "library": library(),
            "reshape": {"inputs": {input: one}, "outputs": {"y": one}},
        });
        OnnxModel::load(&LoadSettings::from_json(&value).unwrap())
    };
    let mut model = reshape("x", &[-1, 4]).unwrap();
    let signature = model.loaded().signature.clone();
    assert_eq!(
        (&signature.inputs[0].shape[..], &signature.outputs[0].shape[..]),
        (&[-1, 2, 2][..], &[-1, 2, 2][..])
    );
    assert_eq!(signature.batching, Batching::On);
    assert_eq!(model.loaded().facts["outputs_in_place"], "1 of 1");
    let answers = model.run_tensors(&[floats(&[1, 2, 2], &[0.0, 1.0, 2.0, 3.0])]).unwrap();
    assert_eq!(answers, [floats(&[1, 2, 2], &[1.0, 3.0, 5.0, 7.0])]);
    let error = model.run_tensors(&[floats(&[1, 4], &[0.0; 4])]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    for (input, own, words) in [("x", [-1, 5], "the model has [-1, 4]"), ("q", [-1, 4], "no such input")] {
        let error = reshape(input, &own).map(|_| ()).unwrap_err();
        assert!(error.message().contains(words), "{error}");
    }
}

//! Inputs and outputs that are not tensors of the protocol's types: they are served as such tensors, or reported as
//! left out.

mod common;

use common::{floats, integers, load, settings, texts};
use inferd_onnx::{LoadSettings, OnnxModel};
use inferd_types::{Batching, DataType, ErrorKind};

fn names(model: &OnnxModel) -> Vec<(String, DataType, Vec<i64>)> {
    let outputs = &model.loaded().signature.outputs;
    outputs.iter().map(|spec| (spec.name.to_string(), spec.datatype, spec.shape.clone())).collect()
}

fn labels(model: &OnnxModel, index: usize) -> Vec<String> {
    let labels = model.loaded().signature.labels_of(index);
    labels.map(|labels| labels.names.iter().map(|name| name.to_string()).collect()).unwrap_or_default()
}

fn load_error(model: &str) -> String {
    let error = OnnxModel::load(&settings(model)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ModelFailed);
    error.message().to_owned()
}

#[test]
fn a_map_of_classes_is_a_score_for_each_class_and_the_classes_have_names() {
    let mut model = load("zipmap");
    assert_eq!(
        names(&model),
        [("label".into(), DataType::Int64, vec![-1]), ("probability".into(), DataType::Fp32, vec![-1, 3]),]
    );
    assert_eq!(labels(&model, 1), ["3", "1", "20"]);
    assert!(labels(&model, 0).is_empty());
    let facts = &model.loaded().facts;
    assert_eq!(facts["as_tensors"], "'probability' (a map of 3 keys) as a column for each key");
    assert_eq!(facts["labels"], "'probability': 3, 1, 20");
    assert!(!facts.contains_key("left_out"), "{facts:?}");
    let answers = model.run_tensors(&[floats(&[2, 2], &[3.0, 0.5, -1.0, 2.0])]).unwrap();
    assert_eq!(answers[0], integers(&[2], &[3, 1]));
    let length = |row: [f32; 3]| row.iter().map(|value| value * value).sum::<f32>().sqrt();
    let rows = [[3.0, 0.5, -3.0], [-1.0, 2.0, -0.5]];
    let expected: Vec<f32> = rows.iter().flat_map(|row| row.map(|value| value / length(*row))).collect();
    for (found, wanted) in answers[1].data.as_chunks::<4>().0.iter().zip(&expected) {
        assert!((f32::from_le_bytes(*found) - wanted).abs() < 1e-6, "{answers:?}");
    }
}

#[test]
fn several_maps_are_served_with_tensors_in_the_models_order_and_texts_are_names_too() {
    let mut model = load("zipmaps");
    let names: Vec<_> = names(&model).into_iter().map(|(name, _, _)| name).collect();
    assert_eq!(names, ["probability", "label", "raw", "scores"]);
    assert_eq!(labels(&model, 0), ["setosa", "versicolor", "v, é"]);
    assert_eq!(labels(&model, 2), ["3", "1", "20"]);
    let answers = model.run_tensors(&[floats(&[1, 2], &[3.0, 0.0])]).unwrap();
    assert_eq!(answers[1], texts(&[1], &[b"setosa"]));
    assert_eq!(answers[2], floats(&[1, 3], &[3.0, 0.0, -2.5]));
    assert_eq!(answers[2], answers[3]);
}

#[test]
fn a_model_whose_only_output_is_a_map_is_served_and_batched() {
    let mut model = load("zipmap_only");
    assert_eq!(names(&model), [("maps".into(), DataType::Fp32, vec![-1, 2])]);
    assert_eq!(model.loaded().signature.batching, Batching::On);
    let answers = model.run_tensors(&[floats(&[2, 2], &[-1.0, 1.0, 2.0, -3.0])]).unwrap();
    assert_eq!(answers, [floats(&[2, 2], &[0.0, 1.0, 2.0, 0.0])]);
}

#[test]
fn external_data_is_found_where_the_model_was_changed() {
    let mut model = load("zipmap_external");
    let answers = model.run_tensors(&[floats(&[1, 2], &[1.0, 10.0])]).unwrap();
    assert_eq!(answers, [floats(&[1, 3], &[30.0, 41.0, 52.0])]);
}

#[test]
fn classes_that_are_not_as_many_as_the_scores_are_refused_as_the_runtime_does() {
    assert!(load_error("zipmap_misfit").contains("output 'maps' has 3 classes and the shape"));
}

#[test]
fn a_sequence_of_a_fixed_length_is_an_output_for_each_tensor() {
    let mut model = load("constant_sequence");
    let served: Vec<_> = names(&model).into_iter().map(|(name, _, _)| name).collect();
    assert_eq!(served, ["pieces_0_", "pieces_1", "count", "lone_0"]);
    let said = &model.loaded().facts["as_tensors"];
    assert_eq!(said, "'pieces' (a sequence) as 'pieces_0_', 'pieces_1'; 'lone' (a sequence) as 'lone_0'");
    let x = floats(&[1, 2], &[-1.0, 2.0]);
    let answers = model.run_tensors(std::slice::from_ref(&x)).unwrap();
    let (relu, negative) = (floats(&[1, 2], &[0.0, 2.0]), floats(&[1, 2], &[1.0, -2.0]));
    assert_eq!(answers, [x, relu, integers(&[], &[2]), negative]);
}

#[test]
fn what_can_not_be_served_is_left_out_and_reported() {
    let mut model = load("partly_sequence");
    assert_eq!(model.loaded().signature.outputs.len(), 1);
    let left = &model.loaded().facts["left_out"];
    assert_eq!(left, "'pieces' (a sequence of tensors, whose number is not fixed)");
    assert_eq!(model.run_tensors(&[floats(&[1, 2], &[-1.0, 1.0])]).unwrap(), [floats(&[1, 2], &[0.0, 1.0])]);
    let error = load_error("only_sequence");
    assert!(error.contains("'pieces' (a sequence of tensors") && error.contains("\nhelp: "), "{error}");
    assert_eq!(load("short_output").loaded().facts["left_out"], "'short' (the protocol has no FLOAT8E4M3FN)");
}

#[test]
fn an_input_that_can_not_be_sent_ends_the_load_and_names_the_remedy() {
    for (model, what, remedy) in [
        ("sequence_input", "input 'pieces' is a sequence of tensors", "an input for each tensor"),
        ("any_map", "input 'x' is a map", "a column for each key"),
        (
            "short_input",
            "input 'short' is a tensor of FLOAT8E4M3FN",
            "a Cast to FLOAT8E4M3FN after the input",
        ),
    ] {
        let error = load_error(model);
        assert!(
            error.contains(what) && error.contains("help: export the model") && error.contains(remedy),
            "{error}"
        );
    }
}

#[test]
fn an_input_that_may_have_no_value_is_a_tensor_that_must_be_sent() {
    let mut model = load("optional_input");
    assert_eq!(model.loaded().signature.inputs[0].shape, [-1, 2]);
    assert!(model.loaded().facts["required_inputs"].starts_with("'x' (the model can do without"));
    let x = floats(&[1, 2], &[-1.0, 2.0]);
    assert_eq!(model.run_tensors(std::slice::from_ref(&x)).unwrap(), [x]);
}

#[test]
fn a_map_of_fixed_keys_is_sent_as_a_column_for_each_key() {
    let mut model = load("dictionary");
    let signature = model.loaded().signature.clone();
    assert_eq!(
        (signature.inputs[0].datatype, &signature.inputs[0].shape[..]),
        (DataType::Fp32, &[-1, 2][..])
    );
    let columns: Vec<_> =
        signature.schema_of(0).unwrap().columns.iter().map(|name| name.to_string()).collect();
    assert_eq!(columns, ["b", "a"]);
    let answers = model.run_tensors(&[floats(&[2, 2], &[1.0, 2.0, 5.0, 3.0])]).unwrap();
    assert_eq!(answers, [floats(&[2, 2], &[-1.0, -2.0, -5.0, -3.0])]);
}

#[test]
fn constants_that_a_request_could_replace_are_reported_however_many_they_are() {
    let said = load("replaceable").loaded().facts["constants_to_replace"].clone();
    assert_eq!(
        said,
        "'w0', 'w1', 'w2', 'w3' and 2 more (requests may send them if they are named: optional: {w0: null})"
    );
    let value = serde_json::json!({
        "path": common::path("replaceable"), "library": common::library(), "initializers": ["w5"],
    });
    let model = OnnxModel::load(&LoadSettings::from_json(&value).unwrap()).unwrap();
    assert_eq!(model.loaded().signature.extras.defaults[0].data[..], [0, 0, 128, 63].repeat(2));
}

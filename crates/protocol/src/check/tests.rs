//! The rules for a request's tensors, and their messages.

use inferd_types::{Batching, ErrorKind, InputDefault};
use smallvec::smallvec;

use super::*;

fn signature(batched: bool) -> Signature {
    let spec = |name: &str, datatype, shape: &[i64]| TensorSpec {
        name: name.into(),
        datatype,
        shape: shape.to_vec(),
    };
    Signature {
        inputs: vec![spec("a", DataType::Fp32, &[-1, 2]), spec("b", DataType::Bool, &[-1])],
        outputs: vec![],
        batching: if batched { Batching::On } else { Batching::Off { reason: "a test".into() } },
        decoupled: false,
        extras: Default::default(),
    }
}

/// A claim on the input at `index` in its own type.
fn whole(signature: &Signature, index: usize) -> Claim {
    Claim { index, sent: signature.inputs[index].datatype, count: 0 }
}

fn message<T: fmt::Debug>(result: Result<T>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    error.message().to_owned()
}

#[test]
fn an_unknown_name_gets_the_list_of_known_ones() {
    let signature = signature(true);
    let message = message(Inputs::new(&signature).claim("c"));
    assert_eq!(message, "unknown input 'c'; the model takes 'a' (FP32 [-1, 2]), 'b' (BOOL [-1])");
}

#[test]
fn a_long_name_is_cut_in_the_message() {
    let signature = signature(true);
    assert!(message(Inputs::new(&signature).claim(&"é".repeat(10_000))).len() < 300);
}

#[test]
fn an_input_given_twice_is_named() {
    let signature = signature(true);
    let mut inputs = Inputs::new(&signature);
    inputs.claim("a").unwrap();
    assert!(message(inputs.claim("a")).contains("'a' is given twice"));
}

#[test]
fn a_missing_input_is_named_with_what_was_expected() {
    let signature = signature(true);
    let mut inputs = Inputs::new(&signature);
    inputs.put(whole(&signature, 0), smallvec![1, 2], Bytes::from_static(&[0; 8])).unwrap();
    assert_eq!(message(inputs.finish()), "input 'b' is missing; BOOL [-1] is expected");
}

#[test]
fn an_input_with_a_default_may_be_left_out_and_has_as_many_rows_as_the_others() {
    let mut signature = signature(true);
    let optional = serde_json::json!(true);
    signature.extras.defaults.push(InputDefault::of_value(signature.input(1), &optional).unwrap());
    let mut inputs = Inputs::new(&signature);
    inputs.put(whole(&signature, 0), smallvec![3, 2], Bytes::from_static(&[0; 24])).unwrap();
    let tensors = inputs.finish().unwrap().tensors;
    assert_eq!((&tensors[1].shape[..], &tensors[1].data[..]), (&[3][..], &[1, 1, 1][..]));
    let mut inputs = Inputs::new(&signature);
    inputs.put(whole(&signature, 1), smallvec![1], Bytes::from_static(&[0])).unwrap();
    assert!(message(inputs.finish()).starts_with("input 'a' is missing"));
}

#[test]
fn a_wrong_type_or_shape_says_which_and_what_was_expected() {
    let signature = signature(true);
    let inputs = Inputs::new(&signature);
    assert_eq!(
        message(inputs.check(0, "FP64", &[1, 2])),
        "input 'a' has datatype FP64 but FP32 is expected (or one that is widened to it without loss: BOOL, UINT8, \
         UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, BF16)"
    );
    assert_eq!(message(inputs.check(1, "INT8", &[1])), "input 'b' has datatype INT8 but BOOL is expected");
    assert!(message(inputs.check(0, "FLOAT", &[1, 2])).contains("unknown datatype 'FLOAT'"));
    let wrong = message(inputs.check(0, "FP32", &[1, 3]));
    assert!(wrong.contains("[1, 3]") && wrong.contains("[-1, 2]"), "{wrong}");
    assert!(message(inputs.check(0, "FP32", &[u64::MAX, 2])).contains("more elements than can be counted"));
}

#[test]
fn inputs_of_a_batched_model_must_agree_in_rows_of_which_there_may_be_none() {
    let mut signature = signature(true);
    // Whether the response to no rows is known without a run depends on the output's shape.
    for shape in [vec![-1, 2], vec![-1, -1]] {
        signature.outputs = vec![TensorSpec { name: "y".into(), datatype: DataType::Fp32, shape }];
        assert_eq!(Inputs::new(&signature).check(0, "FP32", &[0, 2]).unwrap().count, 0);
    }
    let mut inputs = Inputs::new(&signature);
    inputs.put(whole(&signature, 0), smallvec![1, 2], Bytes::from_static(&[0; 8])).unwrap();
    inputs.put(whole(&signature, 1), smallvec![2], Bytes::from_static(&[0; 2])).unwrap();
    assert!(message(inputs.finish()).contains("'b' has 2 rows but input 'a' has 1"));
}

#[test]
fn a_model_without_batching_takes_what_its_shapes_allow() {
    let signature = signature(false);
    let mut inputs = Inputs::new(&signature);
    assert_eq!(inputs.check(0, "FP32", &[0, 2]).unwrap().count, 0);
    inputs.put(whole(&signature, 0), smallvec![0, 2], Bytes::new()).unwrap();
    inputs.put(whole(&signature, 1), smallvec![2], Bytes::from_static(&[0; 2])).unwrap();
    assert_eq!(inputs.finish().unwrap().tensors.len(), 2);
}

#[test]
fn a_bool_is_zero_or_one() {
    let signature = signature(true);
    let mut inputs = Inputs::new(&signature);
    assert!(
        message(inputs.put(whole(&signature, 1), smallvec![2], Bytes::from_static(&[1, 2])))
            .contains("neither 0 nor 1")
    );
}

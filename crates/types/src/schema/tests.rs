//! What schemas accept and refuse, and the messages.

use proptest::prelude::*;

use super::*;
use crate::{Batching, Extras, Signature};

fn signature(datatype: DataType, shape: &[i64], schema: Option<InputSchema>) -> Signature {
    Signature {
        inputs: vec![TensorSpec { name: "x".into(), datatype, shape: shape.to_vec() }],
        outputs: Vec::new(),
        batching: Batching::On,
        decoupled: false,
        extras: Extras { schemas: schema.into_iter().collect(), ..Extras::default() },
    }
}

fn schema(columns: &[&str], missing: bool, largest: Option<f64>) -> InputSchema {
    let columns = columns.iter().map(|name| (*name).into()).collect();
    InputSchema { input: "x".into(), columns, missing, largest }
}

fn fp64(values: &[f64]) -> Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The message with which a matrix of two columns is refused.
fn refusal(schema: InputSchema, values: &[f64]) -> Option<String> {
    let signature = signature(DataType::Fp64, &[-1, 2], Some(schema));
    let shape = Shape::from_slice(&[values.len() as u64 / 2, 2]);
    signature.input(0).tensor(shape, fp64(values)).err().map(|error| error.message().to_owned())
}

#[test]
fn what_is_missing_or_too_large_is_named_by_row_and_column() {
    let named = |missing, largest| schema(&["age", "income"], missing, largest);
    let (nan, infinity) = (f64::NAN, f64::INFINITY);
    let said = refusal(named(false, None), &[0.0, 1.0, 2.0, nan]).unwrap();
    assert!(
        said.starts_with(
            "row 1, column 1 ('income') of input 'x' is missing (NaN); the model takes no missing"
        )
    );
    assert!(said.ends_with("fill it in, or leave the row out"), "{said}");
    let said = refusal(schema(&[], true, Some(10.0)), &[nan, 11.5]).unwrap();
    assert!(
        said.starts_with("row 0, column 1 of input 'x' is 11.5, and the model takes no magnitude above 10.0")
    );
    assert!(refusal(named(true, Some(10.0)), &[-infinity, 0.0]).unwrap().contains("is -inf, and"));
    assert!(refusal(named(false, Some(10.0)), &[0.0, nan]).unwrap().contains("missing (NaN)"));
    assert_eq!(refusal(named(true, Some(10.0)), &[nan, -10.0]), None);
    assert_eq!(refusal(named(false, None), &[infinity, -infinity]), None);
    assert_eq!(refusal(named(true, None), &[nan, infinity]), None);
}

#[test]
fn floats_of_every_size_are_held_to_the_schema() {
    let limited = |missing| Some(schema(&[], missing, Some(100.0)));
    for (datatype, good, nan, large) in [
        (
            DataType::Fp16,
            f16::ONE.to_le_bytes().to_vec(),
            f16::NAN.to_le_bytes().to_vec(),
            f16::from_f32(101.0).to_le_bytes().to_vec(),
        ),
        (
            DataType::Bf16,
            bf16::ONE.to_le_bytes().to_vec(),
            bf16::NAN.to_le_bytes().to_vec(),
            bf16::INFINITY.to_le_bytes().to_vec(),
        ),
        (
            DataType::Fp32,
            1f32.to_le_bytes().to_vec(),
            f32::NAN.to_le_bytes().to_vec(),
            101f32.to_le_bytes().to_vec(),
        ),
    ] {
        let taken = |missing, elements: [&Vec<u8>; 2]| {
            let signature = signature(datatype, &[-1], limited(missing));
            let data = elements.into_iter().flatten().copied().collect();
            signature.input(0).tensor(Shape::from_slice(&[2]), data).is_ok()
        };
        assert!(taken(false, [&good, &good]) && taken(true, [&good, &nan]), "{datatype}");
        assert!(!taken(false, [&good, &nan]) && !taken(true, [&good, &large]), "{datatype}");
    }
}

#[test]
fn text_is_missing_only_where_the_schema_takes_that() {
    let data = Bytes::from_static(b"\x01\0\0\0a\xff\xff\xff\xff");
    let tensor = |schema| {
        let signature = signature(DataType::Bytes, &[-1], schema);
        signature.input(0).tensor(Shape::from_slice(&[2]), data.clone())
    };
    assert!(tensor(Some(schema(&[], true, None))).is_ok());
    for none in [None, Some(schema(&[], false, None))] {
        let said = tensor(none).unwrap_err().message().to_owned();
        assert!(said.starts_with("row 1 of input 'x' is missing (its length is 0xffffffff)"), "{said}");
    }
    let wide = signature(DataType::Bytes, &[-1, 2], None);
    let cut = wide.input(0).tensor(Shape::from_slice(&[1, 2]), Bytes::from_static(b"\x02\0\0\0a"));
    assert!(cut.unwrap_err().message().starts_with("input 'x': BYTES element 0 runs past the end"));
}

#[test]
fn null_says_what_may_be_sent_instead() {
    let null = |datatype, sent, schema| {
        let signature = signature(datatype, &[-1, 2], schema);
        signature.input(0).null(sent, &[2, 2], 2).message().to_owned()
    };
    let (whole, float, text) = (DataType::Int64, DataType::Fp64, DataType::Bytes);
    assert!(
        null(whole, whole, Some(schema(&["a", "b"], true, None)))
            .starts_with("row 1, column 0 ('a') of input 'x' is null, which is not a valid INT64; fill")
    );
    assert!(null(float, whole, None).contains("send the input as FP64, whose null is NaN"));
    assert!(null(text, text, None).contains("write \"null\" in quotes"));
    assert!(null(text, text, Some(schema(&[], false, None))).contains("takes no missing values"));
}

#[test]
fn a_place_is_named_as_far_as_the_shape_goes() {
    let signature = signature(DataType::Fp32, &[], None);
    let place = |shape: &[u64], element| signature.input(0).place(shape, element);
    assert_eq!(place(&[], 0), "input 'x'");
    assert_eq!(place(&[4], 3), "row 3 of input 'x'");
    assert_eq!(place(&[4, 3], 7), "row 2, column 1 of input 'x'");
    assert_eq!(place(&[2, 2, 2], 5), "row 1, element 1 of input 'x'");
    assert_eq!(place(&[0, 0], 0), "row 0, column 0 of input 'x'");
}

#[test]
fn a_schema_fits_its_input() {
    let fit = |datatype, shape: &[i64], schema: InputSchema| {
        schema.fit(&signature(datatype, shape, None).inputs[0]).map_err(|error| error.message().to_owned())
    };
    assert!(fit(DataType::Bytes, &[-1, 2], schema(&["a", "b"], true, None)).is_ok());
    assert!(fit(DataType::Fp16, &[-1], schema(&[], false, Some(0.0))).is_ok());
    for shape in [&[-1][..], &[-1, 3], &[-1, -1], &[-1, 2, 1]] {
        let said = fit(DataType::Fp32, shape, schema(&["a", "b"], true, None)).unwrap_err();
        assert!(said.contains("names 2 columns"), "{said}");
    }
    for (datatype, largest) in
        [(DataType::Int64, 1.0), (DataType::Fp32, -1.0), (DataType::Fp32, f64::INFINITY)]
    {
        assert!(fit(datatype, &[-1], schema(&[], true, Some(largest))).is_err(), "{datatype} {largest}");
    }
}

#[test]
fn of_many_names_a_few_are_listed() {
    assert_eq!(listed([].into_iter()), "none");
    assert_eq!(listed(["a", "b"].into_iter()), "'a', 'b'");
    let many = vec!["name"; 1000];
    assert!(listed(many.iter().copied()).ends_with("'name', 980 more"));
}

proptest! {
    #[test]
    fn the_first_element_that_is_refused_is_found(values in prop::collection::vec(any::<f64>(), 0..70), limit in any::<f64>()) {
        let largest = limit.is_finite().then(|| limit.abs());
        for missing in [false, true] {
            let takes = |value: &f64| match value.is_nan() {
                true => missing,
                false => largest.is_none_or(|largest| value.abs() <= largest),
            };
            let expected = values.iter().position(|value| !takes(value));
            let signature = signature(DataType::Fp64, &[-1], Some(schema(&[], missing, largest)));
            let tensor = signature.input(0).tensor(Shape::from_slice(&[values.len() as u64]), fp64(&values));
            let found = tensor.err().map(|error| error.message().to_owned());
            prop_assert_eq!(found.is_some(), expected.is_some());
            if let (Some(found), Some(expected)) = (found, expected) {
                let begin = format!("row {expected} of input");
                prop_assert!(found.starts_with(&begin), "{}", found);
            }
        }
    }
}

//! Whether a step runs, by the value of a tensor.
//!
//! Reads one tensor, hands back yes or no. Knows nothing of steps.

use inferd_types::settings::Test;
use inferd_types::{DataType, Error, ErrorKind, Result, Tensor, texts};

/// What a tensor is asked.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    /// The tensor as it is written in the settings, for messages.
    pub(crate) tensor: String,
    pub(crate) test: Test,
}

impl Condition {
    /// Whether every element passes, or none does.
    ///
    /// # Errors
    /// `InvalidInput` where some do and some don't: one request can't go both ways.
    pub(crate) fn holds(&self, tensor: &Tensor) -> Result<bool> {
        let passed = match tensor.datatype {
            // Text that is missing is none of any list.
            DataType::Bytes => {
                texts(&tensor.data).map(|text| text.is_some_and(|text| self.text(text))).collect::<Vec<_>>()
            }
            _ => numbers(tensor)?.into_iter().map(|number| self.number(number)).collect(),
        };
        let all = passed.iter().all(|passed| *passed);
        if all || passed.iter().all(|passed| !passed) {
            return Ok(all && !passed.is_empty());
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "the rows of this request disagree on '{}', which decides where they go; send them as separate requests",
                self.tensor
            ),
        ))
    }

    fn number(&self, number: f64) -> bool {
        match &self.test {
            Test::In(values) => values.iter().any(|value| value.as_f64() == Some(number)),
            Test::Above(limit) => number > *limit,
            Test::Below(limit) => number < *limit,
        }
    }

    fn text(&self, text: &[u8]) -> bool {
        match &self.test {
            Test::In(values) => {
                values.iter().any(|value| value.as_str().is_some_and(|value| value.as_bytes() == text))
            }
            Test::Above(_) | Test::Below(_) => false,
        }
    }
}

/// The elements as numbers; exact up to 2⁵³.
fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    macro_rules! read {
        ($($kind:ident => $number:ty),*) => {
            match tensor.datatype {
                DataType::Bool => tensor.data.iter().map(|byte| f64::from(u8::from(*byte != 0))).collect(),
                $(DataType::$kind => tensor
                    .data
                    .as_chunks()
                    .0
                    .iter()
                    .map(|bytes| <$number>::from_le_bytes(*bytes) as f64)
                    .collect(),)*
                other => return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("a tensor of {other} can't decide which step runs; give one of INT64, FP32 or BYTES"),
                )),
            }
        };
    }
    Ok(read!(
        Int8 => i8, Int16 => i16, Int32 => i32, Int64 => i64, Uint8 => u8, Uint16 => u16, Uint32 => u32,
        Uint64 => u64, Fp32 => f32, Fp64 => f64
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tensor(values: &[i64]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = [values.len() as u64].into_iter().collect();
        Tensor::new(DataType::Int64, shape, bytes.into()).expect("as many elements as its shape says")
    }

    fn asked(test: Test, values: &[i64]) -> Result<bool> {
        Condition { tensor: "kind.label".to_owned(), test }.holds(&tensor(values))
    }

    #[test]
    fn a_value_is_in_a_list_above_or_below() {
        assert!(asked(Test::In(vec![json!(3), json!(5)]), &[5]).unwrap());
        assert!(!asked(Test::In(vec![json!(3), json!("5")]), &[5]).unwrap());
        assert!(asked(Test::Above(0.5), &[1, 2]).unwrap() && !asked(Test::Above(2.0), &[1, 2]).unwrap());
        assert!(asked(Test::Below(0.0), &[-1]).unwrap() && !asked(Test::Below(0.0), &[0]).unwrap());
    }

    #[test]
    fn missing_text_is_in_no_list() {
        let of = |data: &'static [u8], count| {
            let shape = [count].into_iter().collect();
            let tensor = Tensor::with_missing(DataType::Bytes, shape, data.into()).unwrap();
            Condition { tensor: "kind".to_owned(), test: Test::In(vec![json!("a"), json!("")]) }
                .holds(&tensor)
        };
        assert!(of(b"\x01\0\0\0a\0\0\0\0", 2).unwrap());
        assert!(!of(b"\xff\xff\xff\xff", 1).unwrap());
        assert!(of(b"\xff\xff\xff\xff\x01\0\0\0a", 2).unwrap_err().message().contains("disagree"));
    }

    #[test]
    fn no_element_decides_for_no() {
        assert!(!asked(Test::Above(0.0), &[]).unwrap());
    }

    #[test]
    fn rows_that_disagree_are_sent_back() {
        let error = asked(Test::Above(1.0), &[1, 2]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.message().contains("kind.label") && error.message().contains("separate"), "{error}");
    }
}

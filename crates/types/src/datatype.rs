//! The element types of the Open Inference Protocol.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind};

/// An element type, by its protocol name. Elements in memory are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[repr(u8)]
pub enum DataType {
    /// One byte, 0 or 1.
    Bool = 1,
    /// Unsigned, 1 byte.
    Uint8 = 2,
    /// Unsigned, 2 bytes.
    Uint16 = 3,
    /// Unsigned, 4 bytes.
    Uint32 = 4,
    /// Unsigned, 8 bytes.
    Uint64 = 5,
    /// Signed, 1 byte.
    Int8 = 6,
    /// Signed, 2 bytes.
    Int16 = 7,
    /// Signed, 4 bytes.
    Int32 = 8,
    /// Signed, 8 bytes.
    Int64 = 9,
    /// IEEE 754 binary16.
    Fp16 = 10,
    /// IEEE 754 binary32.
    Fp32 = 11,
    /// IEEE 754 binary64.
    Fp64 = 12,
    /// The upper half of a binary32. Raw form only.
    Bf16 = 13,
    /// Arbitrary bytes, each element prefixed with its length (four bytes, little-endian).
    Bytes = 14,
}

impl DataType {
    /// Every type.
    pub const ALL: [DataType; 14] = [
        DataType::Bool,
        DataType::Uint8,
        DataType::Uint16,
        DataType::Uint32,
        DataType::Uint64,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Fp16,
        DataType::Fp32,
        DataType::Fp64,
        DataType::Bf16,
        DataType::Bytes,
    ];

    /// The protocol's name: `FP32`, `INT64`, `BYTES` …
    pub const fn name(self) -> &'static str {
        match self {
            DataType::Bool => "BOOL",
            DataType::Uint8 => "UINT8",
            DataType::Uint16 => "UINT16",
            DataType::Uint32 => "UINT32",
            DataType::Uint64 => "UINT64",
            DataType::Int8 => "INT8",
            DataType::Int16 => "INT16",
            DataType::Int32 => "INT32",
            DataType::Int64 => "INT64",
            DataType::Fp16 => "FP16",
            DataType::Fp32 => "FP32",
            DataType::Fp64 => "FP64",
            DataType::Bf16 => "BF16",
            DataType::Bytes => "BYTES",
        }
    }

    /// Size of one element in bytes; `None` for [`DataType::Bytes`].
    pub const fn size(self) -> Option<usize> {
        match self {
            DataType::Bool | DataType::Uint8 | DataType::Int8 => Some(1),
            DataType::Uint16 | DataType::Int16 | DataType::Fp16 | DataType::Bf16 => Some(2),
            DataType::Uint32 | DataType::Int32 | DataType::Fp32 => Some(4),
            DataType::Uint64 | DataType::Int64 | DataType::Fp64 => Some(8),
            DataType::Bytes => None,
        }
    }

    /// The type with this code (`datatype as u8`), as in worker frames.
    pub fn from_code(code: u8) -> Option<DataType> {
        Self::ALL.into_iter().find(|datatype| *datatype as u8 == code)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DataType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|datatype| datatype.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(DataType::name).join(", ");
            Error::new(
                ErrorKind::InvalidInput,
                format!("unknown datatype '{name}'; one of {known} is expected"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_its_name_and_by_its_code() {
        for datatype in DataType::ALL {
            assert_eq!(datatype.name().parse::<DataType>().unwrap(), datatype);
            assert_eq!(DataType::from_code(datatype as u8), Some(datatype));
        }
        assert_eq!(DataType::from_code(0), None);
        let message = "FLOAT".parse::<DataType>().unwrap_err().message().to_owned();
        assert!(message.contains("'FLOAT'") && message.contains("FP32"), "{message}");
    }
}

//! Tensors that stand in shared memory beside the request, and the calls that register it.
//!
//! Reads names and numbers, hands on values; the rules for them are the same over REST and gRPC.
//! Does not know what memory is there, nor whether a client may use it: the server does.

use std::collections::HashMap;

use bytes::Bytes;
use inferd_types::{DataType, Error, ErrorKind, Result, Signature};
use serde_json::{Value, json};

use crate::check::invalid;
use crate::options;
use crate::pb::inference as pb;
use crate::rest::Scanner;
use crate::{Decoded, Limits};

/// A part of a region: where an input is, or an output shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionSlice {
    /// The region, by the name that it was registered with.
    pub region: String,
    /// From the region's own beginning.
    pub offset: u64,
    /// What is read, or may at most be written.
    pub bytes: u64,
}

/// An input whose bytes are not in the request. In [`Decoded::inputs`] its tensor has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideInput {
    /// Its place in the signature.
    pub index: usize,
    /// The type that its elements have there: the signature's, or one that is widened to it.
    pub sent: DataType,
    /// Where its bytes are.
    pub slice: RegionSlice,
}

/// A region as it was registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// What requests call it.
    pub name: String,
    /// What the system calls the memory.
    pub key: String,
    /// Where in it the region begins.
    pub offset: u64,
    /// How long it is.
    pub byte_size: u64,
}

impl Decoded {
    /// Whether any of its tensors is or shall be in shared memory.
    pub fn uses_regions(&self) -> bool {
        !self.outside.is_empty() || !self.options.placed.is_empty()
    }

    /// Takes over the bytes of the input at `index`, which stood outside, in elements of `sent`.
    ///
    /// # Errors
    /// As for bytes that came in the request.
    pub fn fill(&mut self, signature: &Signature, index: usize, sent: DataType, data: Bytes) -> Result<()> {
        let Some(tensor) = self.inputs.get_mut(index).filter(|_| index < signature.inputs.len()) else {
            return Err(Error::new(ErrorKind::Internal, "an input outside the request has no place in it"));
        };
        *tensor = signature.input(index).receive(sent, tensor.shape.clone(), data)?;
        Ok(())
    }
}

/// The error for shared memory where the server has none.
pub(crate) fn is_off(parameter: &str) -> Error {
    Error::new(
        ErrorKind::Unimplemented,
        format!(
            "shared memory between client and server (parameter '{parameter}') is off; send tensors in the request, \
             or set shared_memory: true for the server"
        ),
    )
}

/// Decodes the body of `POST /v2/systemsharedmemory/region/{name}/register`.
///
/// # Errors
/// `InvalidInput` where it is not JSON of that form.
pub fn decode_register(name: &str, body: &[u8], limits: &Limits) -> Result<Region> {
    let mut region = Region { name: name.to_owned(), ..Region::default() };
    let (mut has_key, mut has_size) = (false, false);
    let mut scanner = Scanner::new(body, limits.json_depth_max);
    let mut first = true;
    scanner.open(b'{')?;
    while let Some(member) = scanner.key(&mut first)? {
        let number = |value: options::Value<'_>| {
            value.as_u64().ok_or_else(|| invalid(format!("'{member}' must be a number of bytes, 0 or more")))
        };
        match &*member {
            "key" => {
                region.key = scanner.string().map_err(|error| error.within("key"))?.into_owned();
                has_key = true;
            }
            "offset" => region.offset = number(scanner.value()?)?,
            "byte_size" => {
                region.byte_size = number(scanner.value()?)?;
                has_size = true;
            }
            _ => scanner.skip_value()?,
        }
    }
    scanner.end()?;
    if has_key && has_size {
        return Ok(region);
    }
    Err(invalid("'key' and 'byte_size' of the region are expected"))
}

/// The answer to `GET /v2/systemsharedmemory[/region/{name}]/status`, and to the same of CUDA.
pub fn regions_json(regions: &[Region]) -> Vec<u8> {
    let region = |region: &Region| {
        json!({
            "name": region.name, "key": region.key, "offset": region.offset, "byte_size": region.byte_size,
        })
    };
    Value::Array(regions.iter().map(region).collect()).to_string().into_bytes()
}

/// The answer to `SystemSharedMemoryStatus`.
pub fn regions_pb(regions: &[Region]) -> pb::SystemSharedMemoryStatusResponse {
    let region = |region: &Region| {
        let status = pb::system_shared_memory_status_response::RegionStatus {
            name: region.name.clone(),
            key: region.key.clone(),
            offset: region.offset,
            byte_size: region.byte_size,
        };
        (region.name.clone(), status)
    };
    pb::SystemSharedMemoryStatusResponse { regions: regions.iter().map(region).collect::<HashMap<_, _>>() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_registered_by_key_and_size() {
        let decode = |body: &str| decode_register("r", body.as_bytes(), &Limits::default());
        let region = decode(r#"{"key": "/k", "offset": 4, "byte_size": 16, "more": [1]}"#).unwrap();
        assert_eq!(region, Region { name: "r".into(), key: "/k".into(), offset: 4, byte_size: 16 });
        assert_eq!(decode(r#"{"byte_size": 16, "key": "k"}"#).unwrap().offset, 0);
        for (body, said) in [
            ("", "expected"),
            (r#"{"key": "k"}"#, "'byte_size'"),
            (r#"{"byte_size": 1}"#, "'key'"),
            (r#"{"key": 3, "byte_size": 1}"#, "key"),
            (r#"{"key": "k", "byte_size": -1}"#, "'byte_size' must be"),
            (r#"{"key": "k", "byte_size": 1, "offset": 0.5}"#, "'offset' must be"),
        ] {
            let error = decode(body).unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidInput && error.message().contains(said), "{error}");
        }
    }
}

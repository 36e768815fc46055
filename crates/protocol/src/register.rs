//! The calls that register shared memory and list what is registered.
//!
//! Reads bodies, hands on regions; encodes regions as JSON and as messages.

use std::collections::HashMap;

use inferd_types::Result;
use serde_json::{Value, json};

use crate::invalid::invalid;
use crate::limits::Limits;
use crate::options;
use crate::pb::inference as pb;
use crate::region::Region;
use crate::rest::Scanner;

/// Decodes the body of `POST /v2/systemsharedmemory/region/{name}/register`.
///
/// # Errors
/// `InvalidInput` if it is not JSON of that form.
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

/// The response of `GET /v2/systemsharedmemory[/region/{name}]/status`, and of the same for CUDA.
pub fn regions_json(regions: &[Region]) -> Vec<u8> {
    let region = |region: &Region| {
        json!({
            "name": region.name, "key": region.key, "offset": region.offset, "byte_size": region.byte_size,
        })
    };
    Value::Array(regions.iter().map(region).collect()).to_string().into_bytes()
}

/// The response of `SystemSharedMemoryStatus`.
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
    use inferd_types::ErrorKind;

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

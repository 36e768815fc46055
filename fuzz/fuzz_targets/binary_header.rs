//! A body with raw tensors behind its JSON; the first byte chooses the signature, the next two the length of
//! the JSON.
#![no_main]

use bytes::Bytes;
use inferd_protocol::{Limits, rest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [choice, low, high, body @ ..] = data else { return };
    let signature = inferd_fuzz::signature(*choice);
    let length = usize::from(u16::from_le_bytes([*low, *high]));
    let body = Bytes::copy_from_slice(body);
    if let Ok(decoded) = rest::decode_infer(body, Some(length), signature, &Limits::default()) {
        inferd_fuzz::check(&decoded, signature);
    }
});

//! A `ModelInferRequest` as it comes off the wire; the first byte chooses the signature.
#![no_main]

use bytes::Bytes;
use inferd_protocol::pb::inference::ModelInferRequest;
use inferd_protocol::{Limits, grpc};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let signature = inferd_fuzz::signature(*choice);
    let Ok(message) = ModelInferRequest::decode(Bytes::copy_from_slice(body)) else { return };
    if let Ok(decoded) = grpc::decode_infer(message, signature, &Limits::default()) {
        inferd_fuzz::check(&decoded, signature);
    }
});

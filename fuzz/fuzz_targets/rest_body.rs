//! The JSON body of an inference request, of tensors or of plain values; the first byte chooses the signature.
#![no_main]

use bytes::Bytes;
use inferd_protocol::{Limits, plain, rest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let signature = inferd_fuzz::signature(*choice);
    let limits = Limits { json_depth_max: 16, ..Limits::default() };
    if let Ok(decoded) = rest::decode_infer(Bytes::copy_from_slice(body), None, signature, &limits) {
        inferd_fuzz::check(&decoded, signature);
    }
    for decoded in
        [plain::decode(body, signature, &limits), plain::decode_instances(body, signature, &limits)]
    {
        if let Ok(decoded) = decoded {
            inferd_fuzz::check_elements(&decoded.inputs, signature);
        }
    }
    let _ = rest::decode_index_ready(body, &limits);
});

//! One inference over gRPC: `ModelInferRequest` in, `ModelInferResponse` out.
//!
//! Reads messages that tonic decoded, hands back messages. Knows nothing of frames or compression.

use std::future::ready;

use inferd_protocol::pb::inference::{ModelInferRequest, ModelInferResponse};
use inferd_protocol::{Decoded, Limits, grpc as protocol};
use inferd_types::{InferResponse, Result, Signature};
use prost::Message;

use crate::admit::inflight::HeldBytes;
use crate::infer::wire::{Reply, Wire};
use crate::offload::LARGE_BYTES;
use crate::server_state::ServerState;

/// The form. Its headers say nothing of messages.
#[derive(Clone, Copy)]
pub(super) struct MessageForm;

impl Wire for MessageForm {
    type Body = ModelInferRequest;
    type Message = ModelInferRequest;
    type Answer = ModelInferResponse;

    fn read(
        &self,
        _: &ServerState,
        message: ModelInferRequest,
        _: &HeldBytes,
    ) -> impl Future<Output = Result<ModelInferRequest>> + Send {
        ready(Ok(message))
    }

    /// Raw contents are only sliced; typed ones are turned into bytes one by one, which may take long.
    fn is_large(message: &ModelInferRequest) -> bool {
        message.raw_input_contents.is_empty() && message.encoded_len() > LARGE_BYTES
    }

    fn decode(
        &mut self,
        message: ModelInferRequest,
        signature: &Signature,
        limits: &Limits,
    ) -> Result<Decoded> {
        protocol::decode_infer(message, signature, limits)
    }

    /// Outputs are raw contents: their bytes are referred to, not copied.
    fn is_large_answer(_: &InferResponse) -> bool {
        false
    }

    fn encode(&self, reply: &Reply<'_>) -> Result<ModelInferResponse> {
        protocol::encode_infer(reply.model, reply.id, reply.signature, reply.options, reply.response)
    }
}

/// Messages have empty text for none.
pub(super) fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

//! What a form of the protocol must be able to do.
//!
//! Implemented by `rest` and `grpc`, used by `inference` and `stream`. Knows nothing of when a request runs.

use inferd_protocol::{Decoded, Limits, RequestOptions};
use inferd_types::{InferResponse, Result, Signature};

use crate::admit::inflight::HeldBytes;
use crate::offload::LARGE_BYTES;
use crate::server_state::ServerState;

/// One form of the protocol: turns the body of a request into tensors, and a response into an answer. The value holds
/// what the headers said, so that it can move to another thread with a large body.
pub(crate) trait Wire: Clone + Send + Sync + 'static {
    /// The body as the connection hands it over.
    type Body: Send;
    /// The body once it has come whole.
    type Message: Send + 'static;
    /// The answer.
    type Answer: Send + 'static;

    /// Reads `body` whole. `held` counts its bytes before they are kept.
    fn read(
        &self,
        server: &ServerState,
        body: Self::Body,
        held: &HeldBytes,
    ) -> impl Future<Output = Result<Self::Message>> + Send;

    /// Whether decoding `message` may take long.
    fn is_large(message: &Self::Message) -> bool;

    /// Turns `message` into tensors that fit `signature`. Pure: it may run off the reactor.
    fn decode(&mut self, message: Self::Message, signature: &Signature, limits: &Limits) -> Result<Decoded>;

    /// Whether encoding `response` may take long: by default, over [`LARGE_BYTES`].
    fn is_large_answer(response: &InferResponse) -> bool {
        response.outputs.iter().map(|tensor| tensor.data.len()).sum::<usize>() > LARGE_BYTES
    }

    /// Writes the answer. Pure: it may run off the reactor.
    fn encode(&self, reply: &Reply<'_>) -> Result<Self::Answer>;
}

/// One response with what its encoding needs.
#[derive(Clone, Copy)]
pub(crate) struct Reply<'a> {
    /// Name and version.
    pub(crate) model: (&'a str, u64),
    /// The client's id of the request.
    pub(crate) id: Option<&'a str>,
    pub(crate) signature: &'a Signature,
    pub(crate) options: &'a RequestOptions,
    pub(crate) response: &'a InferResponse,
}

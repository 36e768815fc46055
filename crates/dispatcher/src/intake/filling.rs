//! The stage before the last: puts what no client sends into a request, then submits it.
//!
//! Reads requests and the state of their sequences, hands on requests with every input of the worker's signature.
//! Knows nothing of where state is kept.

use std::sync::Arc;

use inferd_types::{Clock, Error, InferRequest, InferResponse, Tensor};

use crate::generation::published::Published;
use crate::intake::implicit::{ImplicitTensors, SequenceState};
use crate::intake::stream::Responses;
use crate::intake::submission::Submitter;
use crate::intake::ticket::Ticket;

/// See the module.
pub(crate) struct Filler {
    /// `None`: clients send every input themselves.
    tensors: Option<ImplicitTensors>,
    clock: Clock,
    submitter: Arc<Submitter>,
}

impl Filler {
    pub(crate) fn new(tensors: Option<ImplicitTensors>, clock: Clock, submitter: Arc<Submitter>) -> Filler {
        Filler { tensors, clock, submitter }
    }

    /// What the model's task publishes.
    pub(crate) fn published(&self) -> &Published {
        &self.submitter.published
    }

    pub(crate) fn tensors(&self) -> Option<&ImplicitTensors> {
        self.tensors.as_ref()
    }

    /// Submits `request`, whose sequence has come to `state`.
    #[inline]
    pub(crate) fn submit(&self, mut request: InferRequest, state: &[Tensor]) -> Ticket {
        match self.fill(&mut request, state) {
            Ok(()) => self.submitter.submit(request),
            Err(error) => Ticket::refused(error),
        }
    }

    /// The same for a model that may give many responses, and so has no sequences.
    pub(crate) fn stream(&self, mut request: InferRequest) -> Responses {
        match self.fill(&mut request, &[]) {
            Ok(()) => self.submitter.stream(request),
            Err(error) => Responses::one(Ticket::refused(error)),
        }
    }

    /// Takes the state out of a response, which is not for the client.
    pub(crate) fn take_state(&self, response: &mut InferResponse) -> SequenceState {
        self.tensors.as_ref().map(|tensors| tensors.take_state(response)).unwrap_or_default()
    }

    fn fill(&self, request: &mut InferRequest, state: &[Tensor]) -> Result<(), Error> {
        let Some(tensors) = &self.tensors else { return Ok(()) };
        let timeout = request.timeout.filter(|_| tensors.wants_context());
        // On the clock that all processes of this machine share.
        let deadline_ns = timeout.map(|timeout| {
            let ahead = u64::try_from(timeout.since(self.clock.now()).as_nanos()).unwrap_or(u64::MAX);
            inferd_transport::machine_nanos().saturating_add(ahead)
        });
        tensors.fill(request, state, deadline_ns)
    }
}

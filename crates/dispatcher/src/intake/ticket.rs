//! The caller's side of one request.
//!
//! Reads the answer from the model's task, hands it to the caller that awaits it; dropped before, it cancels.
//! Knows nothing of why an answer is what it is.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use inferd_types::{Error, ErrorKind, InferResponse, RequestId};
use tokio::sync::oneshot;

use crate::intake::inbox::{Inbox, InferResult};

/// The answer to come of one submitted request. Dropping it cancels the request.
#[must_use = "a ticket that is dropped cancels its request"]
pub struct Ticket(TicketState);

enum TicketState {
    /// Refused before it reached the task.
    Refused(Error),
    Waiting {
        id: RequestId,
        answer: oneshot::Receiver<InferResult>,
        inbox: Arc<Inbox>,
    },
    /// Runs as it is awaited: a pipeline.
    Running(Pin<Box<dyn Future<Output = InferResult> + Send>>),
    Done,
}

impl Ticket {
    pub(crate) fn refused(error: Error) -> Ticket {
        Ticket(TicketState::Refused(error))
    }

    pub(crate) fn running(future: Pin<Box<dyn Future<Output = InferResult> + Send>>) -> Ticket {
        Ticket(TicketState::Running(future))
    }

    pub(crate) fn waiting(
        id: RequestId,
        answer: oneshot::Receiver<InferResult>,
        inbox: Arc<Inbox>,
    ) -> Ticket {
        Ticket(TicketState::Waiting { id, answer, inbox })
    }
}

impl Future for Ticket {
    type Output = Result<InferResponse, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &mut self.0 {
            TicketState::Waiting { answer, .. } => {
                ready!(Pin::new(answer).poll(context)).unwrap_or_else(|_| Err(gone()))
            }
            TicketState::Running(future) => ready!(future.as_mut().poll(context)),
            TicketState::Refused(error) => Err(error.clone()),
            TicketState::Done => Err(gone()),
        };
        self.0 = TicketState::Done;
        Poll::Ready(answer)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let TicketState::Waiting { id, inbox, .. } = &self.0 {
            inbox.cancel(*id);
        }
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Internal, "the model's dispatcher ended without an answer; try again")
}

//! The caller's side of one request.
//!
//! Reads the answer from the model's task, hands it to whoever awaits; dropped before, it cancels.
//! Knows nothing of why an answer is what it is.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use inferd_types::{Error, ErrorKind, InferResponse, RequestId};
use tokio::sync::oneshot;

use crate::inbox::Inbox;

pub(crate) type Answer = Result<InferResponse, Error>;

/// The answer to come of one submitted request. Dropping it cancels the request.
#[must_use = "a ticket that is dropped cancels its request"]
pub struct Ticket(State);

enum State {
    /// Refused before it reached the task.
    Refused(Error),
    Waiting {
        id: RequestId,
        answer: oneshot::Receiver<Answer>,
        inbox: Arc<Inbox>,
    },
    /// Runs as it is awaited: a pipeline.
    Running(Pin<Box<dyn Future<Output = Answer> + Send>>),
    Done,
}

impl Ticket {
    pub(crate) fn refused(error: Error) -> Ticket {
        Ticket(State::Refused(error))
    }

    pub(crate) fn running(future: Pin<Box<dyn Future<Output = Answer> + Send>>) -> Ticket {
        Ticket(State::Running(future))
    }

    pub(crate) fn waiting(id: RequestId, answer: oneshot::Receiver<Answer>, inbox: Arc<Inbox>) -> Ticket {
        Ticket(State::Waiting { id, answer, inbox })
    }
}

impl Future for Ticket {
    type Output = Result<InferResponse, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &mut self.0 {
            State::Waiting { answer, .. } => {
                ready!(Pin::new(answer).poll(context)).unwrap_or_else(|_| Err(gone()))
            }
            State::Running(future) => ready!(future.as_mut().poll(context)),
            State::Refused(error) => Err(error.clone()),
            State::Done => Err(gone()),
        };
        self.0 = State::Done;
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
        if let State::Waiting { id, inbox, .. } = &self.0 {
            inbox.cancel(*id);
        }
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Internal, "the model's dispatcher ended without an answer; try again")
}

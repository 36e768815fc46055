//! The caller's side of one request that may get many responses.
//!
//! Reads responses as the model's task takes them out of the worker, hands them to the caller one by one; dropped
//! before the end, it cancels. Knows nothing of why a response is what it is.

use std::sync::Arc;

use inferd_types::{Error, InferResponse};
use tokio::sync::mpsc;

use crate::intake::inbox::Inbox;
use crate::intake::ticket::Ticket;

/// The responses to come of one request: one for an ordinary model, any number for a decoupled one.
#[derive(Debug)]
#[must_use = "responses that are dropped cancel their request"]
pub struct Responses {
    /// `None`: an ordinary model's.
    parts: Option<(mpsc::Receiver<InferResponse>, Arc<Inbox>)>,
    /// The answer, which for a decoupled model only says how the stream ended. `None`: it was handed on.
    end: Option<Ticket>,
}

impl Responses {
    /// Most responses of one request that wait for their caller; one more may wait in the worker's memory. Enough that a
    /// caller that is as fast as the model never makes it wait, and little memory where it is slower.
    pub const WAITING_MAX: usize = 4;

    pub(crate) fn one(ticket: Ticket) -> Responses {
        Responses { parts: None, end: Some(ticket) }
    }

    pub(crate) fn many(parts: mpsc::Receiver<InferResponse>, inbox: Arc<Inbox>, end: Ticket) -> Responses {
        Responses { parts: Some((parts, inbox)), end: Some(end) }
    }

    /// The next response; `None` after the last, and after an error. Dropped while it waits, it loses nothing.
    pub async fn next(&mut self) -> Option<Result<InferResponse, Error>> {
        if let Some((parts, inbox)) = &mut self.parts {
            if let Some(response) = parts.recv().await {
                // There is room again: the worker may be waiting for it.
                inbox.room();
                return Some(Ok(response));
            }
            self.end.as_mut()?;
        }
        let answer = self.end.as_mut()?.await;
        self.end = None;
        match answer {
            Ok(_) if self.parts.is_some() => None,
            answer => Some(answer),
        }
    }
}

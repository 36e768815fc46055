//! The last stage of the way in: hands a request to the model's task.
//!
//! Reads requests that are complete, refuses what the model's state forbids, puts the rest into the inbox.
//! Knows nothing of caches, sequences or what was filled in.

use std::sync::Arc;

use inferd_types::{Error, ErrorKind, InferRequest, InferResponse};
use tokio::sync::{mpsc, oneshot};

use crate::generation::published::Published;
use crate::intake::inbox::{Inbox, Refused};
use crate::intake::stream::Responses;
use crate::intake::ticket::Ticket;

/// See the module.
pub(crate) struct Submitter {
    pub(crate) published: Arc<Published>,
    pub(crate) inbox: Arc<Inbox>,
}

impl Submitter {
    #[inline]
    pub(crate) fn submit(&self, request: InferRequest) -> Ticket {
        self.send(request, None)
    }

    /// The same for a model that may give many responses.
    pub(crate) fn stream(&self, request: InferRequest) -> Responses {
        let (sender, parts) = mpsc::channel(Responses::WAITING_MAX);
        let end = self.send(request, Some(sender));
        Responses::many(parts, self.inbox.clone(), end)
    }

    fn send(&self, request: InferRequest, parts: Option<mpsc::Sender<InferResponse>>) -> Ticket {
        if let Some(refusal) = self.published.refusal() {
            self.published.observer.refused(refusal.kind().label());
            return Ticket::refused(refusal);
        }
        let (reply, answer) = oneshot::channel();
        match self.inbox.submit(request, reply, parts) {
            Ok(id) => Ticket::waiting(id, answer, self.inbox.clone()),
            Err(Refused::Closed(error)) => Ticket::refused(error),
            Err(Refused::Full) => {
                self.published.observer.refused("inbox_full");
                Ticket::refused(Error::new(
                    ErrorKind::Overloaded,
                    format!(
                        "model '{}' has more requests than it can admit; send fewer, or raise queue_rows_max",
                        self.published.settings.name
                    ),
                ))
            }
        }
    }
}

//! The bounded way from handles to the model's task.
//!
//! Reads requests, cancellations and commands from any thread, hands them to the task all at once.
//! Knows nothing of what they mean.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use inferd_types::{Error, InferRequest, InferResponse, RequestId};
use tokio::sync::{mpsc, oneshot};

/// What a caller gets.
pub(crate) type InferResult = Result<InferResponse, Error>;

/// One request on its way to the task.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) id: RequestId,
    pub(crate) request: InferRequest,
    pub(crate) reply: oneshot::Sender<InferResult>,
    /// Where the responses of a decoupled model go; the reply is its end.
    pub(crate) parts: Option<mpsc::Sender<InferResponse>>,
}

/// What a handle or the registry wants of the task.
#[derive(Debug)]
pub(crate) enum Command {
    /// Report what the scheduler knows.
    Explain(oneshot::Sender<serde_json::Value>),
    /// Admit nothing more, answer what was admitted, then end the workers. Answered when that is done.
    Drain(oneshot::Sender<()>),
    /// Have so many replicas from now on; answered when that is decided, not when they are ready.
    Scale(u32, oneshot::Sender<Result<(), Error>>),
    /// Kill and reap every worker now; answered with the number of requests that got no inference.
    Stop(oneshot::Sender<usize>),
}

/// Everything that came since the task last looked.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) submissions: Vec<Submission>,
    /// Bounded by the number of admitted requests: each is cancelled at most once.
    pub(crate) cancelled: Vec<RequestId>,
    pub(crate) commands: Vec<Command>,
    /// A caller has taken a response, so that there is room for another.
    pub(crate) room: bool,
}

impl Received {
    pub(crate) fn is_empty(&self) -> bool {
        self.submissions.is_empty() && self.cancelled.is_empty() && self.commands.is_empty() && !self.room
    }
}

#[derive(Debug, Default)]
struct InboxState {
    received: Received,
    next_id: u64,
    /// The task, while it sleeps.
    sleeper: Option<Waker>,
    /// Set once, when the task ends: what later submissions are answered with.
    closed: Option<Error>,
}

/// The queue before one task. A plain lock, held for a push or a swap, is cheaper here than a channel: the
/// task empties it in one go, and ids are given in the order of arrival under the same lock.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<InboxState>,
    /// Most submissions that wait here; more are refused, since the task is too far behind to admit them.
    submissions_max: usize,
}

/// Why a submission did not get in.
#[derive(Debug)]
pub(crate) enum Refused {
    /// `submissions_max` are waiting.
    Full,
    /// The task has ended.
    Closed(Error),
}

impl Inbox {
    pub(crate) fn new(submissions_max: usize) -> Inbox {
        Inbox { state: Mutex::default(), submissions_max }
    }

    fn lock(&self) -> MutexGuard<'_, InboxState> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn submit(
        &self,
        request: InferRequest,
        reply: oneshot::Sender<InferResult>,
        parts: Option<mpsc::Sender<InferResponse>>,
    ) -> Result<RequestId, Refused> {
        let mut state = self.lock();
        if let Some(error) = &state.closed {
            return Err(Refused::Closed(error.clone()));
        }
        if state.received.submissions.len() >= self.submissions_max {
            return Err(Refused::Full);
        }
        let id = RequestId(state.next_id);
        state.next_id += 1;
        state.received.submissions.push(Submission { id, request, reply, parts });
        wake(state);
        Ok(id)
    }

    pub(crate) fn cancel(&self, id: RequestId) {
        let mut state = self.lock();
        if state.closed.is_none() {
            state.received.cancelled.push(id);
            wake(state);
        }
    }

    /// Says that a caller has taken a response.
    pub(crate) fn room(&self) {
        let mut state = self.lock();
        if state.closed.is_none() {
            state.received.room = true;
            wake(state);
        }
    }

    /// Gives the command back where the task has ended.
    pub(crate) fn command(&self, command: Command) -> Result<(), Command> {
        let mut state = self.lock();
        if state.closed.is_some() {
            return Err(command);
        }
        state.received.commands.push(command);
        wake(state);
        Ok(())
    }

    /// Exchanges what came with `emptied`, whose memory is used again.
    pub(crate) fn take(&self, emptied: &mut Received) {
        debug_assert!(emptied.is_empty());
        std::mem::swap(&mut self.lock().received, emptied);
    }

    /// Refuses all that comes later and hands out what came last.
    pub(crate) fn close(&self, error: Error) -> Received {
        let mut state = self.lock();
        state.closed = Some(error);
        std::mem::take(&mut state.received)
    }

    /// Ready when something has come.
    pub(crate) async fn arrived(&self) {
        poll_fn(|context| {
            let mut state = self.lock();
            if !state.received.is_empty() {
                return Poll::Ready(());
            }
            state.sleeper = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Wakes the task if it sleeps; the lock is let go before, so that the task does not run into it.
fn wake(mut state: MutexGuard<'_, InboxState>) {
    let sleeper = state.sleeper.take();
    drop(state);
    if let Some(sleeper) = sleeper {
        sleeper.wake();
    }
}

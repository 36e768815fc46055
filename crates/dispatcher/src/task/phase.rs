//! The phases of a model's life, and who waits for their ends.
//!
//! Reads nothing, hands the end to those who wait for it. Knows nothing of how a phase comes to its end.

use inferd_types::{Error, Result};
use tokio::sync::oneshot;

/// Where the model is in its life.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Replicas start for the first time; the caller that loads waits for this.
    Loading(oneshot::Sender<Result<()>>),
    Serving,
    /// Nothing is admitted; these wait until all is answered and ended.
    Draining(Vec<oneshot::Sender<()>>),
    /// Replicas end, then the task.
    Stopping(EndListeners),
}

/// Who gets an answer when everything has ended.
#[derive(Debug, Default)]
pub(crate) struct EndListeners {
    pub(crate) load: Option<(oneshot::Sender<Result<()>>, Error)>,
    pub(crate) drains: Vec<oneshot::Sender<()>>,
    pub(crate) stops: Vec<oneshot::Sender<usize>>,
    pub(crate) unanswered: usize,
}

impl EndListeners {
    pub(crate) fn notify(self) {
        // Those who have gone meanwhile get nothing.
        if let Some((loaded, error)) = self.load {
            let _gone = loaded.send(Err(error));
        }
        for done in self.drains {
            let _gone = done.send(());
        }
        for done in self.stops {
            let _gone = done.send(self.unanswered);
        }
    }
}

//! The states of a generation and of its replicas, as handles, events and metrics show them.

/// Whether a model version serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// Its first replicas start.
    Loading,
    /// Every replica was ready once, and it serves (perhaps after a restart that is under way).
    Ready,
    /// No replica is ready and the latest start failed, for this reason.
    Unavailable(String),
    /// It admits nothing more.
    Draining,
}

/// What one replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaState {
    /// Loading or warming up.
    Starting,
    /// Serving.
    Ready,
    /// In a run that takes far longer than usual.
    Stalled,
    /// Running suspects only.
    Quarantine,
    /// Waiting before the next start.
    Backoff,
    /// Ending, as it was asked to.
    Closing,
}

impl ReplicaState {
    /// The value of metric and log labels.
    pub const fn label(self) -> &'static str {
        match self {
            ReplicaState::Starting => "starting",
            ReplicaState::Ready => "ready",
            ReplicaState::Stalled => "stalled",
            ReplicaState::Quarantine => "quarantine",
            ReplicaState::Backoff => "backoff",
            ReplicaState::Closing => "closing",
        }
    }
}

/// One replica as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Its number among the model's replicas; a restarted one keeps it.
    pub index: usize,
    /// The worker process, where there is one.
    pub pid: Option<u32>,
    /// What it does.
    pub state: ReplicaState,
}

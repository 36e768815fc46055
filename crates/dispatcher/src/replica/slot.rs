//! Room for one replica, which outlives its incarnations.
//!
//! Reads starts, ends and waits, hands back when the next start is due. Knows nothing of what a replica does.

use inferd_types::{ReplicaId, Time};
use tokio::task::AbortHandle;

use crate::replica::backoff::Backoff;

/// Names a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SlotKey {
    /// One of those that were asked for. A replica that is started again keeps it.
    Regular(usize),
    /// The one for suspects, and for the time in which a run stalls.
    Spare,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ReplicaSlot {
    pub(crate) state: SlotState,
    pub(crate) backoff: Backoff,
}

#[derive(Debug, Default)]
pub(crate) enum SlotState {
    #[default]
    Empty,
    /// By a task, which reports under this number: a report of an earlier start is none.
    Starting {
        task: AbortHandle,
        start: u64,
        since: Time,
    },
    Filled(ReplicaId),
    /// Before the next start.
    Waiting {
        until: Time,
    },
}

impl ReplicaSlot {
    pub(crate) fn holds(&self, id: ReplicaId) -> bool {
        matches!(self.state, SlotState::Filled(filled) if filled == id)
    }

    pub(crate) fn wait_until(&mut self, until: Time) {
        self.state = SlotState::Waiting { until };
    }

    /// Ends a start that is under way.
    pub(crate) fn clear(&mut self) {
        if let SlotState::Starting { task, .. } = &self.state {
            task.abort();
        }
        self.state = SlotState::Empty;
    }

    /// When the next start is due.
    pub(crate) fn due(&self) -> Time {
        if let SlotState::Waiting { until } = self.state { until } else { Time::MAX }
    }

    /// Whether a replica is on its way into it.
    pub(crate) fn is_coming(&self) -> bool {
        matches!(self.state, SlotState::Starting { .. } | SlotState::Waiting { .. })
    }
}

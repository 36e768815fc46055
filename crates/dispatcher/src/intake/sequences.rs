//! Sequences: requests that a model answers one after the other, with what it remembers in between.
//!
//! Reads requests before the model's task sees them, and holds each until those before it are answered. What a model
//! names as its state is kept here and handed to whichever replica runs the next request, so that it outlives workers;
//! a model that remembers by itself has one replica, and its sequences end with that.
//! Knows nothing of batches: requests of different sequences share them as any others do.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use inferd_types::settings::SequenceSettings;
use inferd_types::{
    Clock, Error, ErrorKind, InferRequest, ReplicaId, Result, Sequence, SequenceId, Tenant, Time,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::generation::published::draining;
use crate::intake::filling::Filler;
use crate::intake::implicit::SequenceState;
use crate::intake::inbox::InferResult;
use crate::intake::ticket::Ticket;

/// The sequences of one load of a model.
pub(crate) struct Sequences {
    model: String,
    idle_max: Duration,
    sequences_max: usize,
    /// Most requests that wait for those before them, of all sequences.
    waiting_max: usize,
    /// Whether the model remembers by itself.
    kept_by_model: bool,
    clock: Clock,
    table: Mutex<Table>,
    /// Requests that have a place; closed when the model is drained: they are answered, nobody else gets one.
    under_way: TaskTracker,
}

/// What a sequence is found by: two tenants that give theirs one name don't meet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct SequenceKey {
    tenant: u32,
    id: SequenceId,
}

#[derive(Default)]
struct Table {
    live: HashMap<SequenceKey, Live>,
    /// Those without a request, by the time since when: the one that is idle longest stands first.
    idle: BTreeSet<(Time, SequenceKey)>,
    waiting: usize,
}

/// One sequence.
struct Live {
    /// `None` until its first request is answered.
    begun: Option<Begun>,
    /// Since when it has no request; `None` while one has its turn.
    idle_since: Option<Time>,
    /// Those that wait for their turn, in the order of arrival.
    line: VecDeque<oneshot::Sender<Turn>>,
}

/// What the next request goes on from.
#[derive(Clone)]
struct Begun {
    state: SequenceState,
    /// The replica that answered last.
    replica: ReplicaId,
}

impl Sequences {
    pub(crate) fn new(
        model: &str,
        settings: &SequenceSettings,
        waiting_max: usize,
        clock: Clock,
    ) -> Sequences {
        Sequences {
            model: model.to_owned(),
            idle_max: settings.idle_max_s.0,
            sequences_max: settings.sequences_max,
            waiting_max,
            kept_by_model: settings.state.is_empty(),
            clock,
            table: Mutex::default(),
            under_way: TaskTracker::new(),
        }
    }

    /// Admits nothing more, and returns when all that was admitted is answered: a request that waits for its turn has not
    /// reached the model's task yet, which drains what it knows.
    pub(crate) async fn drain(&self) {
        self.under_way.close();
        self.under_way.wait().await;
    }

    /// How many there are, for people.
    pub(crate) fn status(&self) -> Value {
        let mut table = self.lock();
        table.forget_idle(self.clock.now(), self.idle_max);
        json!({
            "live": table.live.len(),
            "waiting": table.waiting,
            "sequences_max": self.sequences_max,
            "idle_max_s": self.idle_max.as_secs_f64(),
            "kept_by": if self.kept_by_model { "model" } else { "server" },
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // What can panic in between is not reached with a change half done.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the model remembers its sequences by itself.
    pub(crate) fn are_kept_by_model(&self) -> bool {
        self.kept_by_model
    }

    /// Answers `request` of `sequence` when those before it are answered. The place in the line is taken now.
    pub(crate) fn submit(
        self: &Arc<Self>,
        sequence: &Arc<Sequence>,
        request: InferRequest,
        next: &Arc<Filler>,
    ) -> Ticket {
        // Counted before it is looked whether they are closed: draining closes first, and then counts.
        let under_way = self.under_way.token();
        let published = next.published();
        if self.under_way.is_closed() {
            return Ticket::refused(draining(&self.model));
        }
        if let Some(refusal) = published.refusal() {
            return Ticket::refused(refusal);
        }
        if let Some(tensors) = next.tensors()
            && let Err(error) = tensors.check_sequence(&request, &sequence.id)
        {
            return Ticket::refused(error);
        }
        match self.enter(request.tenant, sequence) {
            Ok(entered) => {
                let answer = answer(entered, sequence.clone(), request, next.clone());
                Ticket::running(Box::pin(async move {
                    let _under_way = under_way;
                    answer.await
                }))
            }
            Err(error) => {
                if error.kind() == ErrorKind::Overloaded {
                    published.observer.refused("sequences");
                }
                Ticket::refused(error)
            }
        }
    }

    /// A place in the line of the sequence, in the order of these calls.
    fn enter(self: &Arc<Self>, tenant: Tenant, sequence: &Sequence) -> Result<Entered> {
        let now = self.clock.now();
        let mut table = self.lock();
        table.forget_idle(now, self.idle_max);
        let id = &SequenceKey { tenant: tenant.id, id: sequence.id.clone() };
        if !table.live.contains_key(id) {
            if !sequence.start {
                return Err(self.unknown(id));
            }
            if table.live.len() >= self.sequences_max {
                return Err(Error::new(
                    ErrorKind::Overloaded,
                    format!(
                        "model '{}' has {} sequences, and takes no more at once; end some, or raise sequences_max",
                        self.model, self.sequences_max
                    ),
                ));
            }
            table.live.insert(id.clone(), Live { begun: None, idle_since: None, line: VecDeque::new() });
            return Ok(Entered::Now(Turn { sequences: self.clone(), id: id.clone() }));
        }
        let full = table.waiting >= self.waiting_max;
        let Some(live) = table.live.get_mut(id) else { return Err(self.unknown(id)) };
        if let Some(since) = live.idle_since.take() {
            table.idle.remove(&(since, id.clone()));
            return Ok(Entered::Now(Turn { sequences: self.clone(), id: id.clone() }));
        }
        if full {
            return Err(Error::new(
                ErrorKind::Overloaded,
                format!(
                    "{} requests of sequences wait at model '{}' for those before them; send the next when the one \
                     before is answered, or raise queue_rows_max",
                    self.waiting_max, self.model
                ),
            ));
        }
        let (sender, receiver) = oneshot::channel();
        live.line.push_back(sender);
        table.waiting += 1;
        Ok(Entered::Later(receiver))
    }

    fn unknown(&self, key: &SequenceKey) -> Error {
        Error::new(
            ErrorKind::InvalidInput,
            format!(
                "model '{}' knows no sequence '{}': it was not begun, or it has ended, was lost or was idle for \
                 more than {:?}; begin it with sequence_start",
                self.model, key.id, self.idle_max
            ),
        )
    }
}

impl Table {
    fn forget_idle(&mut self, now: Time, idle_max: Duration) {
        while let Some((since, id)) = self.idle.first()
            && now.since(*since) >= idle_max
        {
            self.live.remove(id);
            self.idle.pop_first();
        }
    }
}

impl fmt::Debug for Sequences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequences").field("model", &self.model).finish_non_exhaustive()
    }
}

enum Entered {
    Now(Turn),
    Later(oneshot::Receiver<Turn>),
}

/// The right to run the next request of a sequence. Dropped, it goes to the next in line.
struct Turn {
    sequences: Arc<Sequences>,
    id: SequenceKey,
}

impl Turn {
    /// What the request goes on from; `None` where it begins.
    fn begin(&self, start: bool) -> Result<Option<Begun>> {
        let mut table = self.sequences.lock();
        let live = table.live.get_mut(&self.id);
        if start {
            if let Some(live) = live {
                live.begun = None;
            }
            return Ok(None);
        }
        live.and_then(|live| live.begun.clone()).map(Some).ok_or_else(|| self.sequences.unknown(&self.id))
    }

    /// Keeps what the next request goes on from; `None`: there is none.
    fn keep(&self, begun: Option<Begun>) {
        if let Some(live) = self.sequences.lock().live.get_mut(&self.id) {
            live.begun = begun;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut table = self.sequences.lock();
        let now = self.sequences.clock.now();
        loop {
            let Some(live) = table.live.get_mut(&self.id) else { return };
            let Some(next) = live.line.pop_front() else {
                if live.begun.is_none() {
                    table.live.remove(&self.id);
                } else {
                    live.idle_since = Some(now);
                    table.idle.insert((now, self.id.clone()));
                }
                return;
            };
            table.waiting -= 1;
            if next.is_closed() {
                continue;
            }
            // Sent without the lock: where the receiver went in this moment, the turn comes back here.
            drop(table);
            let turn = Turn { sequences: self.sequences.clone(), id: self.id.clone() };
            drop(next.send(turn));
            return;
        }
    }
}

async fn answer(
    entered: Entered,
    sequence: Arc<Sequence>,
    mut request: InferRequest,
    next: Arc<Filler>,
) -> InferResult {
    let turn = match entered {
        Entered::Now(turn) => turn,
        Entered::Later(receiver) => receiver.await.map_err(|_| {
            Error::new(ErrorKind::Internal, "the line of a sequence was lost; begin it again")
        })?,
    };
    let before = turn.begin(sequence.start)?;
    if turn.sequences.kept_by_model {
        request.home = before.as_ref().map(|begun| begun.replica);
    }
    let state = before.map_or_else(SequenceState::new, |begun| begun.state);
    let mut response = match next.submit(request, &state).await {
        Ok(response) => response,
        Err(error) => {
            // What a model that died remembered is gone with it; what is kept here is as it was.
            if turn.sequences.kept_by_model && error.kind() == ErrorKind::WorkerLost {
                turn.keep(None);
            }
            return Err(error);
        }
    };
    let state = next.take_state(&mut response);
    turn.keep((!sequence.end).then_some(Begun { state, replica: response.replica }));
    Ok(response)
}

#[cfg(test)]
mod tests;

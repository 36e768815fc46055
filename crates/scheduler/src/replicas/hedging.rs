//! Hedging: runs a copy of a slow batch on an idle replica; the first result counts (Dean and Barroso, "The tail at
//! scale", 2013).
//!
//! Reads the replicas and the latency model, hands on copies to run. Copies cost tokens that batches earn, so that
//! they stay a bounded fraction of all batches.

use std::time::Duration;

use inferd_types::{BatchId, ReplicaId, Time};

use super::Batch;
use crate::message::{Action, Hedging};
use crate::queue::table::Place;
use crate::scheduler::Scheduler;

/// Maximum number of saved tokens.
const TOKENS_MAX: f64 = 4.0;

impl Scheduler {
    /// Earns a batch's fraction of a token.
    pub(crate) fn earn_tokens(&mut self) {
        if let Some(hedging) = self.config.hedging {
            self.tokens = (self.tokens + hedging.budget).min(TOKENS_MAX);
        }
    }

    /// Hedges slow batches while replicas are idle and the queue is empty. `Some`: when the next may be due.
    pub(crate) fn hedge(&mut self, now: Time, actions: &mut Vec<Action>) -> Option<Time> {
        let hedging = self.config.hedging?;
        while self.tokens >= 1.0 {
            let to = self.idle_replica(now)?;
            let (from, due) = self.next_overdue(hedging)?;
            if due > now {
                return Some(due);
            }
            self.copy(now, from, to, actions);
        }
        None
    }

    /// The batch without a copy that is overdue first, and since when. A batch that its replica did not even take
    /// counts: the replica may have stopped.
    fn next_overdue(&self, hedging: Hedging) -> Option<(usize, Time)> {
        let running = self.replicas.iter().enumerate().filter_map(|(at, replica)| {
            let first = replica.first.as_ref()?;
            if first.withdrawing || first.twin.is_some() || first.requests.is_empty() {
                return None;
            }
            let usual = self.sizes.of(first.size).latency.at(first.rows, hedging.quantile)?;
            Some((at, first.started + usual + Duration::from_nanos(1)))
        });
        running.min_by_key(|(_, due)| *due)
    }

    fn copy(&mut self, now: Time, from: usize, to: usize, actions: &mut Vec<Action>) {
        let replica = self.replicas[to].id;
        let batch = BatchId(self.next_batch);
        let home = self.replicas[from].id;
        let Some(first) = self.replicas[from].first.as_mut() else { return };
        let of = (home, first.id);
        first.twin = Some((replica, batch));
        let copy = Batch {
            id: batch,
            requests: first.requests.clone(),
            started: now,
            taken: false,
            closed: true,
            withdrawing: false,
            twin: Some(of),
            ..*first
        };
        let requests = copy.requests.iter().map(|slot| self.table[*slot].id).collect();
        self.replicas[to].first = Some(copy);
        self.next_batch += 1;
        self.tokens -= 1.0;
        self.count.hedges += 1;
        actions.push(Action::Hedge { replica, batch, of, requests });
    }

    /// The other batch of a pair, if it still runs; dissolves the pair.
    fn unpair(&mut self, batch: &mut Batch) -> Option<(ReplicaId, &mut Batch)> {
        let (replica, id) = batch.twin.take()?;
        let other = self.replica_mut(replica)?.batch_mut(id)?;
        other.twin = None;
        Some((replica, other))
    }

    /// Cancels the copy of an answered batch: it has no requests left, and is withdrawn if it has not begun.
    pub(crate) fn cancel_twin(&mut self, batch: &mut Batch, actions: &mut Vec<Action>) {
        if let Some((replica, other)) = self.unpair(batch) {
            other.requests.clear();
            if other.is_open() {
                other.withdrawing = true;
                actions.push(Action::Withdraw { replica, batch: other.id });
            }
        }
    }

    /// Hands the requests of a failed batch to its copy, if that still runs.
    pub(crate) fn hand_to_twin(&mut self, batch: &mut Batch) {
        let Some((replica, other)) = self.unpair(batch) else { return };
        let home = Place::Batch(replica, other.id);
        for slot in batch.requests.drain(..) {
            self.table[slot].place = home;
        }
    }
}

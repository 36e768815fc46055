//! Copies of batches that take too long where they run: on another replica that has nothing to do, whoever is done
//! first answers (Dean and Barroso, "The tail at scale", 2013).
//!
//! Reads the replicas and the latency model, stages copies. Copies are paid for from a bucket of tokens that batches
//! fill, so that they stay a share of all batches whatever happens.

use std::time::Duration;

use inferd_types::{BatchId, ReplicaId, Time};

use crate::message::{Action, Hedging};
use crate::queue::table::Place;
use crate::replica::held::Batch;
use crate::state::scheduler::Scheduler;

/// Most copies that can be paid for at once.
const TOKENS_MAX: f64 = 4.0;

impl Scheduler {
    /// A batch was handed out: so much of a copy is earned.
    pub(crate) fn earn(&mut self) {
        if let Some(hedging) = self.config.hedging {
            self.tokens = (self.tokens + hedging.budget).min(TOKENS_MAX);
        }
    }

    /// Copies what takes too long, while replicas are idle and nothing waits. `Some`: when the next may be due.
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

    /// The batch without a copy that is overdue first, and since when. One that its replica has not even taken by
    /// then counts: the replica may have stopped.
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

    /// The other of a pair, where it still runs; they are no pair from now on.
    fn part(&mut self, batch: &mut Batch) -> Option<(ReplicaId, &mut Batch)> {
        let (replica, id) = batch.twin.take()?;
        let other = self.replica_mut(replica)?.batch_mut(id)?;
        other.twin = None;
        Some((replica, other))
    }

    /// A batch was answered: its copy is for nobody, and need not run if it has not begun.
    pub(crate) fn settle_twin(&mut self, batch: &mut Batch, actions: &mut Vec<Action>) {
        if let Some((replica, other)) = self.part(batch) {
            other.requests.clear();
            if other.is_open() {
                other.withdrawing = true;
                actions.push(Action::Withdraw { replica, batch: other.id });
            }
        }
    }

    /// A batch will not be answered: where a copy of it still runs, its requests are that one's.
    pub(crate) fn leave_to_twin(&mut self, batch: &mut Batch) {
        let Some((replica, other)) = self.part(batch) else { return };
        let home = Place::Batch(replica, other.id);
        for slot in batch.requests.drain(..) {
            self.table[slot].place = home;
        }
    }
}

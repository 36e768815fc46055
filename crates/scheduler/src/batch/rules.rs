//! Batches as published systems form them, so that ours can be compared with theirs.
//!
//! Reads the queue and the replicas, stages when a replica is idle. Predicts no lateness, sends nobody back, waits for
//! nobody, stages nothing behind a running batch: the order is by deadline, the size by the rule alone.

use inferd_types::Time;

use crate::batch::forming::Fill;
use crate::message::{Action, BatchRule};
use crate::state::scheduler::Scheduler;

impl Scheduler {
    /// Gives work to idle replicas, by the rule.
    pub(crate) fn fill_by_rule(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some(at) = self.idle_replica(now) {
            let Some(head) = self.settle_head(now, now, actions) else { return };
            let fill = self.gather_by_rule(head);
            self.hand_over(now, at, fill, actions);
        }
    }

    /// Picks `head` and those of its shape that the rule runs with it, in order, into `picked`.
    fn gather_by_rule(&mut self, head: u32) -> Fill {
        let most = match self.config.batch_rule {
            BatchRule::One => 1,
            BatchRule::Fixed(requests) => requests.max(1) as usize,
            BatchRule::LargestThatFits | BatchRule::Slack => usize::MAX,
        };
        // As published: what the head was given when it came, whatever it has waited since; the mean, no quantile.
        let fits = self.config.batch_rule == BatchRule::LargestThatFits;
        let (due, arrived) = (self.table[head].promised, self.table[head].arrived);
        let left = if fits && due < Time::MAX { due.since(arrived).as_nanos() as f64 } else { f64::INFINITY };
        let mut fill = Fill::new(&self.table[head], self.config.batch_rows_max);
        let latency = &self.sizes.of(fill.size).latency;
        self.picked.clear();
        for item in self.queue.iter().filter(|item| item.shape == fill.shape) {
            let entry = &self.table[item.slot];
            let rows = fill.rows.saturating_add(item.rows);
            let bytes = fill.bytes.saturating_add(entry.bytes);
            let full = entry.alone || rows > fill.cap || bytes > self.config.batch_max_bytes;
            if fill.rows > 0 && (full || latency.mean(rows).unwrap_or(0.0) > left) {
                break;
            }
            (fill.rows, fill.bytes, fill.limit) = (rows, bytes, fill.limit.min(entry.limit()));
            self.picked.push(item.slot);
            if entry.alone || self.picked.len() >= most {
                break;
            }
        }
        fill
    }
}

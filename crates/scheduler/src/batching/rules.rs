//! Batch forming by the rules of published systems, for comparison.
//!
//! Reads the queue and the replicas, hands on what to stage on idle replicas: ordered by deadline, sized by the
//! rule alone. Predicts no lateness, demotes nothing, does not linger, stages nothing behind a running batch.

use inferd_types::Time;

use super::forming::Fill;
use crate::message::{Action, BatchRule};
use crate::scheduler::Scheduler;

impl Scheduler {
    /// Stages batches on idle replicas, by the rule.
    pub(crate) fn fill_by_rule(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some(at) = self.idle_replica(now) {
            let Some(head) = self.next_head(now, now, actions) else { return };
            let fill = self.gather_by_rule(head);
            self.stage_picked(now, at, fill, actions);
        }
    }

    /// Picks `head` and the requests of its shape that the rule runs with it, in order, into `picked`.
    fn gather_by_rule(&mut self, head: u32) -> Fill {
        let most = match self.config.batch_rule {
            BatchRule::One => 1,
            BatchRule::Fixed(requests) => requests.max(1) as usize,
            BatchRule::LargestThatFits | BatchRule::Slack => usize::MAX,
        };
        // As published: the time that the head had on arrival, whatever it has waited since; the mean, no quantile.
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

//! Errors for refused requests: what failed, and a remedy.
//!
//! Reads the queue and the limits, hands on errors. Decides nothing.

use std::time::Duration;

use inferd_types::{Error, ErrorKind, RequestId, Time};

use crate::message::{Action, Arrival, Refusal};
use crate::scheduler::Scheduler;

impl Scheduler {
    pub(crate) fn refuse_short_timeout(&mut self, arrival: &Arrival, own: u64, actions: &mut Vec<Action>) {
        let takes = own as f64 / 1e6;
        let message = if own == 0 {
            "the timeout had passed when the request arrived; raise it".to_owned()
        } else {
            format!(
                "the timeout is shorter than the model takes ({takes:.1} ms); raise it to at least {:.0} ms",
                (takes * 1.5).ceil()
            )
        };
        self.answer(
            arrival.request,
            Refusal::TimeoutTooShort,
            Error::new(ErrorKind::DeadlineMissed, message),
            actions,
        );
    }

    pub(crate) fn refuse_full(
        &mut self,
        now: Time,
        arrival: &Arrival,
        reason: Refusal,
        actions: &mut Vec<Action>,
    ) {
        let message = match reason {
            Refusal::QueueBytes => format!(
                "the queue is full: {} bytes wait; try again later, or raise queue_max_bytes above {}",
                self.queue.bytes(),
                self.config.queue_max_bytes
            ),
            _ => format!(
                "the queue is full: {} rows wait; try again later, add replicas, or raise queue_rows_max above {}",
                self.queue.rows(),
                self.config.queue_rows_max
            ),
        };
        let error = Error::new(ErrorKind::Overloaded, message).with_retry_after(self.drain_time(now));
        self.answer(arrival.request, reason, error, actions);
    }

    pub(crate) fn refuse_late(
        &mut self,
        now: Time,
        arrival: &Arrival,
        late: Duration,
        actions: &mut Vec<Action>,
    ) {
        let message = format!(
            "the backlog would make the answer {:.1} ms late; try again later, allow more time, or add replicas",
            late.as_secs_f64() * 1e3
        );
        let error = Error::new(ErrorKind::Overloaded, message).with_retry_after(self.drain_time(now));
        self.answer(arrival.request, Refusal::PredictedLate, error, actions);
    }

    pub(crate) fn answer(
        &mut self,
        request: RequestId,
        reason: Refusal,
        error: Error,
        actions: &mut Vec<Action>,
    ) {
        self.count.refusals[reason as usize] += 1;
        actions.push(Action::Answer { request, reason, error });
    }
}

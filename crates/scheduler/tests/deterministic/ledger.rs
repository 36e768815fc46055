//! Every request and its state, and the rules that hold at each step.
//!
//! Reads the world's events and the scheduler's actions; fails where a rule is broken. Decides nothing.
//!
//! The order within a class, tenant and shape is by deadline. The one exception are demoted requests: the scheduler
//! counts them, so as many may be passed over as it says, and not one more.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use inferd_scheduler::{Arrival, Config, Refusal, Scheduler};
use inferd_types::{BatchId, Due, ReplicaId, RequestId, Time};

/// A batch and its replica.
pub(crate) type Home = (ReplicaId, BatchId);

/// A request that waited this long may have risen to a better class.
const AGEING: Duration = Duration::from_secs(1);
/// The deadline by which requests without one are ordered.
const PATIENCE: Duration = Duration::from_secs(10);
/// A request starves if it waits longer than this while so many full queues were served.
const STARVING: Duration = Duration::from_secs(20);
const STARVING_QUEUES: u64 = 64;

/// The state of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Not sent to the scheduler yet.
    New,
    Queued,
    Held,
    /// In a batch of a lost replica, until it is returned.
    Away,
    Done,
    Failed,
    Refused,
    Cancelled,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) arrival: Arrival,
    at: Time,
    pub(crate) fate: Fate,
    /// Its batch, and the copy of that batch.
    pub(crate) home: Option<Home>,
    pub(crate) copy: Option<Home>,
    /// Whether it must run in a batch of its own.
    pub(crate) alone: bool,
    pub(crate) caller: Option<u64>,
    /// Whether it arrived at an empty queue, and may be a probe of the latency model.
    first: bool,
    /// Whether it was passed over, so that it must have been demoted.
    passed: bool,
    /// Rows handed out before it arrived.
    served: u64,
}

type QueueKey = (u8, u32, u64);

/// See the module.
#[derive(Default)]
pub(crate) struct Ledger {
    known: Vec<Known>,
    /// Queued requests whose place is known from outside: by class, tenant and shape, (deadline, id).
    queues: HashMap<QueueKey, BTreeSet<(u64, u64)>>,
    objective: bool,
    most_rows: u64,
    queued: usize,
    rows: u64,
    bytes: usize,
    held: usize,
    served: u64,
    passed: u64,
    digest: u64,
}

impl Ledger {
    pub(crate) fn new(config: &Config) -> Ledger {
        let most_rows = config.queue_rows_max as u64;
        Ledger { objective: config.objective.is_some(), most_rows, ..Ledger::default() }
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    pub(crate) fn get(&self, request: RequestId) -> &Known {
        &self.known[request.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, request: RequestId) -> &mut Known {
        &mut self.known[request.0 as usize]
    }

    /// Rows of all of `requests`.
    pub(crate) fn rows(&self, requests: &[RequestId]) -> u32 {
        requests.iter().map(|request| self.get(*request).arrival.rows.max(1)).sum()
    }

    /// Whether it was not cancelled and the scheduler knows of it.
    pub(crate) fn waits(&self, request: RequestId) -> bool {
        matches!(self.get(request).fate, Fate::Queued | Fate::Held | Fate::Away)
    }

    pub(crate) fn open(&mut self, now: Time, arrival: Arrival, caller: Option<u64>) {
        assert_eq!(arrival.request.0 as usize, self.known.len());
        self.known.push(Known {
            arrival,
            at: now,
            fate: Fate::New,
            home: None,
            copy: None,
            alone: false,
            caller,
            first: self.queued == 0,
            passed: false,
            served: self.served,
        });
    }

    /// Queues those of `requests` that were not refused; the queue must not exceed its limit.
    pub(crate) fn admitted(&mut self, requests: &[RequestId]) {
        let before = self.rows;
        for request in requests {
            assert_eq!(self.get(*request).fate, Fate::New);
            self.enqueue(*request);
        }
        let most = self.most_rows;
        assert!(before == 0 || self.rows <= most, "{} rows are queued, {most} may be", self.rows);
    }

    pub(crate) fn enqueue(&mut self, request: RequestId) {
        self.leave(request);
        let place = self.place_of(request);
        let known = self.get_mut(request);
        (known.fate, known.home, known.copy) = (Fate::Queued, None, None);
        let (rows, bytes) = (u64::from(known.arrival.rows.max(1)), known.arrival.bytes);
        self.queued += 1;
        self.rows += rows;
        self.bytes += bytes;
        if let Some((queue, place)) = place {
            self.queues.entry(queue).or_default().insert(place);
        }
    }

    /// A batch is staged or appended to: its requests were queued, and none before them in their queue is left
    /// there.
    pub(crate) fn hand_out(&mut self, now: Time, requests: &[RequestId], home: Home) {
        assert!(!requests.is_empty());
        for request in requests {
            let known = self.get(*request);
            assert_eq!(known.fate, Fate::Queued, "{request} was handed out");
            let timeout = known.arrival.timeout;
            assert!(
                known.first || timeout.is_none_or(|timeout| timeout > now),
                "{request} was handed out past its timeout"
            );
            let (waited, served) = (now.since(known.at), self.served - known.served);
            assert!(
                waited < STARVING || served < STARVING_QUEUES * self.most_rows,
                "{request} starved: {waited:?}, {served} rows"
            );
            self.leave(*request);
            let known = self.get_mut(*request);
            (known.fate, known.home) = (Fate::Held, Some(home));
            self.held += 1;
        }
        for request in requests {
            self.served += u64::from(self.get(*request).arrival.rows.max(1));
            self.pass_over(now, *request);
        }
    }

    /// Marks queued requests before `chosen` as passed over.
    fn pass_over(&mut self, now: Time, chosen: RequestId) {
        let Some((queue, place)) = self.place_of(chosen) else { return };
        let known = self.get(chosen);
        if known.arrival.priority.0 > 0 && now.since(known.at) >= AGEING {
            return;
        }
        let Some(waiting) = self.queues.get_mut(&queue) else { return };
        while let Some(first) = waiting.first().copied().filter(|first| first.0 < place.0) {
            waiting.remove(&first);
            self.known[first.1 as usize].passed = true;
            self.passed += 1;
        }
    }

    /// Its queue and its place there; `None` if only the scheduler can know.
    fn place_of(&self, request: RequestId) -> Option<(QueueKey, (u64, u64))> {
        let known = self.get(request);
        let arrival = &known.arrival;
        let due = match arrival.due {
            Due::At(at) => at,
            Due::Objective if self.objective => return None,
            Due::Objective | Due::Never => Time::MAX,
        };
        if known.passed {
            return None;
        }
        let limit = due.min(arrival.timeout.unwrap_or(Time::MAX));
        let key = if limit == Time::MAX { known.at + PATIENCE } else { limit };
        let queue = (arrival.priority.0, arrival.tenant.id, arrival.shape.0);
        Some((queue, (key.as_nanos(), arrival.request.0)))
    }

    /// Whether `request` was held by this batch and by no copy that still runs.
    pub(crate) fn lost_its_last(&mut self, home: Home, request: RequestId) -> bool {
        let known = self.get_mut(request);
        if known.fate != Fate::Held {
            return false;
        }
        if known.copy == Some(home) {
            known.copy = None;
            false
        } else if known.home == Some(home) {
            known.home = known.copy.take();
            known.home.is_none()
        } else {
            false
        }
    }

    /// With the dispatcher, after a loss.
    pub(crate) fn away(&mut self, request: RequestId) {
        let known = self.get_mut(request);
        assert_eq!(known.fate, Fate::Held);
        (known.fate, known.home, known.copy) = (Fate::Away, None, None);
    }

    /// The scheduler answers it: it was queued, or at admission.
    pub(crate) fn refuse(&mut self, now: Time, request: RequestId, reason: Refusal) {
        let known = self.get(request);
        if reason == Refusal::TimedOut {
            assert_eq!(known.fate, Fate::Queued, "{request} was answered");
            assert!(known.arrival.timeout.is_some(), "{request} timed out without a timeout");
        } else if reason == Refusal::WaitedTooLong {
            assert_eq!(known.fate, Fate::Queued, "{request} was answered");
            assert!(self.objective && known.arrival.due == Due::Objective, "{request} has no objective");
        } else {
            assert_eq!(known.fate, Fate::New, "{request} was refused ({reason:?}) after admission");
        }
        self.end(now, request, Fate::Refused);
    }

    /// It ends, once.
    pub(crate) fn end(&mut self, now: Time, request: RequestId, fate: Fate) {
        self.leave(request);
        let known = self.get_mut(request);
        (known.fate, known.home, known.copy) = (fate, None, None);
        for part in [request.0, fate as u64, now.as_nanos()] {
            self.digest = (self.digest ^ part).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(17);
        }
    }

    /// Removes it from the counts of its present state.
    fn leave(&mut self, request: RequestId) {
        let known = self.get(request);
        match known.fate {
            Fate::New => {}
            Fate::Queued => {
                let (rows, bytes) = (u64::from(known.arrival.rows.max(1)), known.arrival.bytes);
                let place = self.place_of(request);
                self.queued -= 1;
                self.rows -= rows;
                self.bytes -= bytes;
                if let Some((queue, place)) = place {
                    self.queues.get_mut(&queue).expect("it is queued").remove(&place);
                }
            }
            Fate::Held | Fate::Away => self.held -= 1,
            Fate::Done | Fate::Failed | Fate::Refused | Fate::Cancelled => {
                panic!("{request} ended twice: {known:?}")
            }
        }
    }

    /// The scheduler's counts match the ledger's.
    pub(crate) fn check(&self, scheduler: &Scheduler, ready: usize) {
        let seen = scheduler.snapshot();
        let counted = (seen.queue_requests, seen.queue_rows as u64, seen.queue_bytes, seen.handed_out);
        assert_eq!(
            counted,
            (self.queued, self.rows, self.bytes, self.held),
            "the scheduler's counts, and the ledger's"
        );
        assert_eq!(seen.replicas_ready, ready);
        assert!(self.passed <= seen.demoted, "{} were passed over, {} demoted", self.passed, seen.demoted);
    }

    /// Every request has ended, and the scheduler holds nothing.
    pub(crate) fn check_rest(&self, scheduler: &Scheduler, ready: usize) {
        self.check(scheduler, ready);
        for known in &self.known {
            let waits = matches!(known.fate, Fate::New | Fate::Queued | Fate::Held | Fate::Away);
            assert!(!waits, "left behind: {known:?}");
        }
        assert!(scheduler.is_idle());
    }
}

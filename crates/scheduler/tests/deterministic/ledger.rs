//! Every request and what became of it, and the rules that hold at each step.
//!
//! Reads what the world does and what the scheduler asks for; fails where a rule is broken. Decides nothing.
//!
//! The order inside a class, tenant and shape is by deadline. The one exception is whoever the scheduler has sent back
//! behind those that can still be met: it counts them, so as many may be passed over as it says, and not one more.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use inferd_scheduler::{Arrival, Config, Refusal, Scheduler};
use inferd_types::{BatchId, Due, ReplicaId, RequestId, Time};

/// A batch, by the replica that holds it.
pub(crate) type Home = (ReplicaId, BatchId);

/// A request that waited this long may have risen to a better class.
const AGEING: Duration = Duration::from_secs(1);
/// As if due then are those without a deadline.
const PATIENCE: Duration = Duration::from_secs(10);
/// Who waits longer than this while so many queues full were handed out before it starves.
const STARVING: Duration = Duration::from_secs(20);
const STARVING_QUEUES: u64 = 64;

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Not told to the scheduler yet.
    New,
    Queued,
    Held,
    /// In a batch of a lost replica, until it is given back.
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
    /// The batch that it is in, and the copy of that batch.
    pub(crate) home: Option<Home>,
    pub(crate) copy: Option<Home>,
    /// It has to run in a batch of its own.
    pub(crate) alone: bool,
    pub(crate) caller: Option<u64>,
    /// It came to an empty queue, and may be there to try whether the model is as slow as it was.
    first: bool,
    /// It was passed over, so it must have been sent back.
    passed: bool,
    /// Rows handed out before it came.
    served: u64,
}

type Line = (u8, u32, u64);

/// See the module.
#[derive(Default)]
pub(crate) struct Ledger {
    known: Vec<Known>,
    /// Those in the queue whose place can be known from outside: by class, tenant and shape, (deadline, id).
    lines: HashMap<Line, BTreeSet<(u64, u64)>>,
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

    /// Whether its caller waits and the scheduler knows of it.
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

    /// Those of `requests` that were not refused are in the queue now; the queue is not above its limit for them.
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
        let line = self.line(request);
        let known = self.get_mut(request);
        (known.fate, known.home, known.copy) = (Fate::Queued, None, None);
        let (rows, bytes) = (u64::from(known.arrival.rows.max(1)), known.arrival.bytes);
        self.queued += 1;
        self.rows += rows;
        self.bytes += bytes;
        if let Some((line, place)) = line {
            self.lines.entry(line).or_default().insert(place);
        }
    }

    /// A batch is handed out, or added to: they were queued, and nobody before them in their line is left there.
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

    /// Marks those in the line of `chosen` that are due before it.
    fn pass_over(&mut self, now: Time, chosen: RequestId) {
        let Some((line, place)) = self.line(chosen) else { return };
        let known = self.get(chosen);
        if known.arrival.priority.0 > 0 && now.since(known.at) >= AGEING {
            return;
        }
        let Some(waiting) = self.lines.get_mut(&line) else { return };
        while let Some(first) = waiting.first().copied().filter(|first| first.0 < place.0) {
            waiting.remove(&first);
            self.known[first.1 as usize].passed = true;
            self.passed += 1;
        }
    }

    /// Its line and its place there; `None` where only the scheduler can know.
    fn line(&self, request: RequestId) -> Option<(Line, (u64, u64))> {
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
        let line = (arrival.priority.0, arrival.tenant.id, arrival.shape.0);
        Some((line, (key.as_nanos(), arrival.request.0)))
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

    /// The scheduler answers it: it was queued, or stood at the door.
    pub(crate) fn refuse(&mut self, now: Time, request: RequestId, reason: Refusal) {
        let known = self.get(request);
        if reason == Refusal::TimedOut {
            assert_eq!(known.fate, Fate::Queued, "{request} was answered");
            assert!(known.arrival.timeout.is_some(), "{request} timed out without a timeout");
        } else if reason == Refusal::WaitedTooLong {
            assert_eq!(known.fate, Fate::Queued, "{request} was answered");
            assert!(self.objective && known.arrival.due == Due::Objective, "{request} has no objective");
        } else {
            assert_eq!(known.fate, Fate::New, "{request} was refused ({reason:?}) after the door");
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

    /// Takes it off the counts of where it is.
    fn leave(&mut self, request: RequestId) {
        let known = self.get(request);
        match known.fate {
            Fate::New => {}
            Fate::Queued => {
                let (rows, bytes) = (u64::from(known.arrival.rows.max(1)), known.arrival.bytes);
                let line = self.line(request);
                self.queued -= 1;
                self.rows -= rows;
                self.bytes -= bytes;
                if let Some((line, place)) = line {
                    self.lines.get_mut(&line).expect("it stood there").remove(&place);
                }
            }
            Fate::Held | Fate::Away => self.held -= 1,
            Fate::Done | Fate::Failed | Fate::Refused | Fate::Cancelled => {
                panic!("{request} ended twice: {known:?}")
            }
        }
    }

    /// What the scheduler counts is what there is.
    pub(crate) fn check(&self, scheduler: &Scheduler, ready: usize) {
        let seen = scheduler.snapshot();
        let counted = (seen.queue_requests, seen.queue_rows as u64, seen.queue_bytes, seen.handed_out);
        assert_eq!(counted, (self.queued, self.rows, self.bytes, self.held), "counted, and there");
        assert_eq!(seen.replicas_ready, ready);
        assert!(self.passed <= seen.demoted, "{} were passed over, {} demoted", self.passed, seen.demoted);
    }

    /// Every request has an end, and the scheduler holds nothing.
    pub(crate) fn check_rest(&self, scheduler: &Scheduler, ready: usize) {
        self.check(scheduler, ready);
        for known in &self.known {
            let waits = matches!(known.fate, Fate::New | Fate::Queued | Fate::Held | Fate::Away);
            assert!(!waits, "left behind: {known:?}");
        }
        assert!(scheduler.is_idle());
    }
}

//! Whether requests of a model share runs at the moment, what that rests on, and the comparisons that may change it.
//!
//! Reads the verdict that the model was loaded with, requests that were answered, and what runs of copies of them gave;
//! hands back what to run next and whether batching is on. Time is an argument.
//! Knows nothing of replicas, nor of how a run is carried out.

use std::time::Duration;

use inferd_scheduler::ShapeKey;
use inferd_types::compare::Tolerance;
use inferd_types::settings::{LoadedModel, ModelSettings};
use inferd_types::{Batching, Decider, Error, ErrorKind, Result, Signature, Time, Verdict};
use serde_json::{Value, json};

use crate::batching::ring::Ring;
pub(crate) use crate::batching::trial::{AnsweredRequest, Change, Tensors};
use crate::batching::trial::{Finding, Trial};

/// Rows that must be compared without a difference before requests share runs: at most 0.75 % of the traffic differs then.
const ROWS_WANTED: u64 = 400;
/// What audits may take, as a share of the time that batches run.
const AUDIT_SHARE: f64 = 0.01;
/// What they may take before anything has run, so that the first comes early.
const AUDIT_FIRST: Duration = Duration::from_millis(100);
/// Largest batch that is kept for an audit, inputs and answers.
const AUDITED_MAX_BYTES: usize = 32 << 20;
/// Longest silence that a comparison waits for.
const QUIET_MAX: Duration = Duration::from_millis(20);
/// How long it waits for silence; then any moment will do in which nothing waits.
const AUDIT_PATIENCE: Duration = Duration::from_secs(5);
const VERIFY_PATIENCE: Duration = Duration::from_millis(100);
/// Trials of a model that shall earn batching without a decision after which it is given up: its answers are random.
const UNDECIDED_MAX: u64 = 20;
/// Workers that comparisons may end.
const LOSSES_MAX: u32 = 3;

/// What the machine does with what is answered.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// Batching is on; now and then a request of a shared run is run alone.
    Audits,
    /// Batching is off; requests that ran alone are run together.
    Verifies,
    /// Nothing is compared.
    Rests,
}

/// What of a batch that was answered is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Nothing,
    /// Every request of it, or none.
    Batch,
    /// Its one request.
    Lone,
}

/// What follows from a comparison.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Conclusion {
    Nothing,
    /// Enough rows were compared: requests share runs from now on.
    Verified,
    /// They don't, until the next load: batching changes answers.
    Differs(Change),
    /// Comparing has come to an end without a difference, and requests go on running alone.
    GivenUp,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct CrossRequestBatching {
    mode: Mode,
    on: bool,
    verdict: Option<Verdict>,
    tolerance: Tolerance,
    rows_max: u32,
    trial: Option<Trial>,
    /// When the trial could have begun, and what a run of it takes about.
    since: Time,
    expected: Duration,
    ring: Ring,
    /// What audits may take now, in seconds.
    credit: f64,
    audits: usize,
    compared: u64,
    differing: u64,
    undecided: u64,
    losses: u32,
}

/// Why what `verify` asks for is not possible.
fn refused(why: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("batching: verify {why}\nhelp: set batching: auto or off"))
}

/// What the start-up table shows while rows are compared.
fn verifying(before: Option<&Verdict>) -> Verdict {
    let unproven = before.map_or(String::new(), |verdict| format!(" ({})", verdict.why));
    let why = format!("requests run one at a time until {ROWS_WANTED} rows of them are compared{unproven}");
    Verdict { by: Decider::Traffic, why, rows: 0 }
}

/// Whether rows that come have to show that they may share runs: the operator wants it so, and nothing proves it.
fn must_verify(signature: &Signature, settings: &ModelSettings) -> bool {
    let proven = signature.extras.verdict.as_ref().is_some_and(|verdict| verdict.by == Decider::Analysis);
    settings.comparison.verify && signature.batched() && !proven
}

/// Checks that the settings can be met, and puts the verdict that the model begins with into its signature.
///
/// # Errors
/// `InvalidInput` where rows that come must not be run twice.
pub(crate) fn announce(loaded: &mut LoadedModel, settings: &ModelSettings) -> Result<()> {
    if settings.comparison.verify {
        if loaded.signature.decoupled {
            return Err(refused("compares answers, and the model streams its responses"));
        }
        if settings.sequence.is_some() || loaded.sequence.is_some() {
            return Err(refused(
                "runs requests twice, which sequences that the model remembers do not stand",
            ));
        }
        if !settings.retry_on_worker_loss {
            return Err(refused("runs requests twice, which retry_on_worker_loss: false forbids"));
        }
    }
    if must_verify(&loaded.signature, settings) {
        let verdict = verifying(loaded.signature.extras.verdict.as_ref());
        loaded.signature.extras.verdict = Some(verdict);
    }
    Ok(())
}

impl CrossRequestBatching {
    /// Of a model that [`announce`] has seen; `sequences`: it answers those.
    pub(crate) fn new(
        signature: &Signature,
        settings: &ModelSettings,
        sequences: bool,
    ) -> CrossRequestBatching {
        let mut verdict = signature.extras.verdict.clone();
        if let (None, Batching::Off { reason }) = (&verdict, &signature.batching) {
            verdict = Some(Verdict { by: Decider::Shapes, why: reason.clone(), rows: 0 });
        }
        let by = verdict.as_ref().map(|verdict| verdict.by);
        let once = sequences || signature.decoupled || !settings.retry_on_worker_loss;
        let mode = match by {
            _ if !signature.batched() || once => Mode::Rests,
            Some(Decider::Traffic) => Mode::Verifies,
            Some(Decider::Probe) => Mode::Audits,
            // A proof needs no audit, and the operator's word is above one.
            _ => Mode::Rests,
        };
        CrossRequestBatching {
            mode,
            on: signature.batched() && mode != Mode::Verifies,
            verdict,
            tolerance: settings.comparison.tolerance,
            rows_max: settings.batch_rows_max.max(1),
            trial: None,
            since: Time::ZERO,
            expected: Duration::ZERO,
            ring: Ring::default(),
            credit: AUDIT_FIRST.as_secs_f64(),
            audits: 0,
            compared: 0,
            differing: 0,
            undecided: 0,
            losses: 0,
        }
    }

    /// Of a model that is not known yet.
    pub(crate) fn unknown(settings: &ModelSettings) -> CrossRequestBatching {
        let signature = Signature {
            inputs: Vec::new(),
            outputs: Vec::new(),
            batching: Batching::Off { reason: "it is not loaded yet".into() },
            decoupled: false,
            extras: Default::default(),
        };
        CrossRequestBatching::new(&signature, settings, false)
    }

    /// Larger batches were found to break the worker.
    pub(crate) fn limit_rows(&mut self, rows: u32) {
        self.rows_max = self.rows_max.min(rows.max(1));
        self.ring.clear();
        self.trial = None;
    }

    /// Whether requests share runs.
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Who decided that.
    pub(crate) fn by(&self) -> Option<Decider> {
        self.verdict.as_ref().map(|verdict| verdict.by)
    }

    /// What that rests on.
    pub(crate) fn why(&self) -> &str {
        self.verdict.as_ref().map_or("", |verdict| &verdict.why)
    }

    /// A batch of `requests` requests ran for `execution`: what of it to hand to [`CrossRequestBatching::keep`]. Called once for each
    /// batch, so it must be quick.
    pub(crate) fn wants(&mut self, requests: usize, execution: Duration) -> Wanted {
        match self.mode {
            Mode::Rests => Wanted::Nothing,
            Mode::Audits => {
                let execution = execution.as_secs_f64();
                self.credit += execution * AUDIT_SHARE;
                if self.trial.is_none() && requests > 1 && self.credit >= execution {
                    Wanted::Batch
                } else {
                    Wanted::Nothing
                }
            }
            Mode::Verifies if self.trial.is_none() && requests == 1 => Wanted::Lone,
            Mode::Verifies => Wanted::Nothing,
        }
    }

    /// Takes what was wanted of a batch that ran for `execution`.
    pub(crate) fn keep(&mut self, now: Time, mut kept: Vec<AnsweredRequest>, execution: Duration) {
        let trial = match self.mode {
            Mode::Rests => None,
            Mode::Audits if kept.iter().map(AnsweredRequest::bytes).sum::<usize>() > AUDITED_MAX_BYTES => {
                None
            }
            Mode::Audits => {
                self.audits += 1;
                let suspect = self.audits % kept.len().max(1);
                (kept.len() > 1 && kept[suspect].rows > 0)
                    .then(|| Trial::of_shared(kept, suspect, self.tolerance))
            }
            Mode::Verifies => {
                let group = kept.pop().and_then(|one| self.ring.keep(one, self.rows_max));
                group.map(|group| Trial::of_lone(group, self.tolerance))
            }
        };
        if trial.is_some() {
            (self.trial, self.since, self.expected) = (trial, now, execution);
        }
    }

    /// How long nothing must have happened before the next run; `None`: there is none to make.
    pub(crate) fn quiet(&self, now: Time) -> Option<Duration> {
        self.trial.as_ref()?;
        let patience = if self.mode == Mode::Audits { AUDIT_PATIENCE } else { VERIFY_PATIENCE };
        // Who comes back within the time that it takes should not wait for it.
        let quiet = self.expected.min(QUIET_MAX);
        Some(if now.since(self.since) >= patience { Duration::ZERO } else { quiet })
    }

    /// When any moment will do for the next run.
    pub(crate) fn impatient(&self) -> Time {
        let patience = if self.mode == Mode::Audits { AUDIT_PATIENCE } else { VERIFY_PATIENCE };
        if self.trial.is_some() { self.since + patience } else { Time::MAX }
    }

    /// What to run together next; nothing: nothing.
    pub(crate) fn next(&self) -> &[AnsweredRequest] {
        self.trial.as_ref().map_or(&[], Trial::next)
    }

    /// What those of [`CrossRequestBatching::next`] were answered in a run of `execution`, or what the model said instead.
    pub(crate) fn ran(&mut self, execution: Duration, answers: Result<Vec<Tensors>, String>) -> Conclusion {
        self.credit -= execution.as_secs_f64();
        let Some(finding) = self.trial.as_mut().and_then(|trial| trial.ran(answers)) else {
            return Conclusion::Nothing;
        };
        self.trial = None;
        match finding {
            Finding::Same(rows) => {
                self.compared += rows;
                if self.mode == Mode::Verifies && self.compared >= ROWS_WANTED {
                    return self.verified();
                }
                Conclusion::Nothing
            }
            Finding::Undecided => {
                self.undecided += 1;
                if self.mode == Mode::Verifies && self.undecided >= UNDECIDED_MAX {
                    return self.give_up(format!(
                        "the answers of {UNDECIDED_MAX} rows differed from run to run, so that nothing can be compared"
                    ));
                }
                Conclusion::Nothing
            }
            Finding::Differs(rows, change) => {
                self.compared += rows;
                self.differing += 1;
                self.rest();
                Conclusion::Differs(change)
            }
        }
    }

    /// The worker ended while it ran what is compared, which is dropped.
    pub(crate) fn lost(&mut self) -> Conclusion {
        self.trial = None;
        self.losses += 1;
        match self.mode {
            Mode::Verifies if self.losses >= LOSSES_MAX => {
                self.give_up(format!("{LOSSES_MAX} workers ended while they compared rows"))
            }
            Mode::Audits if self.losses >= LOSSES_MAX => {
                self.mode = Mode::Rests;
                Conclusion::Nothing
            }
            _ => Conclusion::Nothing,
        }
    }

    /// What is compared can't be run: it is dropped.
    pub(crate) fn drop_trial(&mut self) {
        self.trial = None;
    }

    /// Why requests run alone from now on.
    pub(crate) fn differs(&mut self, why: String) {
        self.decide(why);
    }

    fn verified(&mut self) -> Conclusion {
        let compared = self.compared;
        self.decide(format!(
            "0 of {compared} rows that came differ when they share a run: at most {:.2} % do, with 95 % confidence",
            300.0 / compared as f64
        ));
        self.ring.clear();
        (self.mode, self.on) = (Mode::Audits, true);
        Conclusion::Verified
    }

    fn give_up(&mut self, why: String) -> Conclusion {
        self.rest();
        self.decide(why);
        Conclusion::GivenUp
    }

    fn rest(&mut self) {
        self.ring.clear();
        (self.mode, self.on) = (Mode::Rests, false);
    }

    fn decide(&mut self, why: String) {
        self.verdict = Some(Verdict { by: Decider::Traffic, why, rows: self.compared });
    }

    /// Rows that were compared, and how many requests differed.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.compared, self.differing)
    }

    /// For people. `bound`: the largest share of rows that differ, with 95 % confidence, after so many that did not
    /// (three in their number: Hanley and Lippman-Hand, "If nothing goes wrong, is everything all right?", 1983).
    pub(crate) fn status(&self) -> Value {
        let bound = (self.compared > 0 && self.differing == 0).then(|| (3.0 / self.compared as f64).min(1.0));
        json!({
            "by": self.by().map(Decider::name),
            "why": self.why(),
            "shared": self.on,
            "probed": self.verdict.as_ref().filter(|verdict| verdict.by == Decider::Probe).map(|verdict| verdict.rows),
            "rows": self.compared,
            "rows_wanted": (self.mode == Mode::Verifies).then_some(ROWS_WANTED),
            "differing": self.differing,
            "undecided": self.undecided,
            "bound": bound,
            "audited": self.mode == Mode::Audits,
        })
    }
}

/// A request that was answered, as it is kept.
pub(crate) fn kept(
    (inputs, answer): (&Tensors, &Tensors),
    rows: u32,
    length: u64,
    shape: ShapeKey,
) -> AnsweredRequest {
    // Their bytes are shared, not copied.
    AnsweredRequest { inputs: inputs.clone(), rows, length, shape, answer: answer.clone() }
}

#[cfg(test)]
mod tests;

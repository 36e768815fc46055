//! Runs copies of requests that were answered, alone or together, while nothing waits.
//!
//! Reads what was answered and how long nothing has happened; hands copies to an idle replica, and turns cross-request
//! batching on or off by what is found. Such a run is no request: it is in no metric of requests and teaches the scheduler
//! nothing, and a replica that ends in it condemns no request. Knows nothing of how answers are compared.

use std::time::Duration;

use inferd_scheduler::Event;
use inferd_types::{Error, ReplicaId, Tensor, Time};
use smallvec::SmallVec;

use crate::batching::cross_request::{AnsweredRequest, Change, Conclusion, Tensors, Wanted, kept};
use crate::replica::entry::{HeldBatch, Purpose, ReplicaEntry, Role};
use crate::replica::kind::{BatchOutputs, Launcher, Shares};
use crate::requests::in_flight::InFlightRequest;
use crate::task::Task;
use crate::task::phase::Phase;

/// What of one batch is kept, while it is shared out.
pub(super) struct Keeping {
    wanted: Wanted,
    requests: usize,
    kept: Vec<AnsweredRequest>,
}

impl<L: Launcher> Task<L> {
    /// Whether requests of a batch that ran are to be kept. Of most it is none, and then nothing is allocated.
    pub(super) fn keeping(&mut self, batch: &HeldBatch, execution: Duration) -> Keeping {
        let requests = batch.members.len();
        let wanted = match batch.purpose {
            Purpose::Ordinary => self.batching.wants(requests, execution),
            _ => Wanted::Nothing,
        };
        Keeping { wanted, requests, kept: Vec::new() }
    }

    /// Keeps one request with its answer.
    pub(super) fn keep(&self, keeping: &mut Keeping, pending: &InFlightRequest, answer: &Tensors) {
        if let (true, Some(validator)) = (keeping.wanted != Wanted::Nothing, &self.validator) {
            let shape = validator.shape_of(&pending.inputs, pending.rows, pending.bytes, pending.length);
            keeping.kept.push(kept((&pending.inputs, answer), pending.rows, pending.length, shape));
        }
    }

    /// Hands over what was kept of a batch. Of one whose requests are not all there any more it is nothing: they
    /// can't run together again.
    pub(super) fn kept(&mut self, now: Time, keeping: Keeping, execution: Duration) {
        if !keeping.kept.is_empty() && keeping.kept.len() == keeping.requests {
            self.batching.keep(now, keeping.kept, execution);
        }
    }

    /// When the next copy may run, if nothing happens until then.
    pub(super) fn comparing_due(&self) -> Time {
        match self.batching.quiet(self.clock.now()) {
            Some(quiet) if self.may_compare() => (self.active + quiet).min(self.batching.impatient()),
            _ => Time::MAX,
        }
    }

    /// Whether nothing waits, and a replica is idle that nobody needs.
    fn may_compare(&self) -> bool {
        matches!(self.phase, Phase::Serving)
            && self.quarantine.is_idle()
            && self.scheduler.has_room()
            && self.replicas.iter().all(|entry| entry.role != Role::Profiling)
            && self.replicas.iter().any(ReplicaEntry::is_idle)
    }

    pub(super) fn compare_if_idle(&mut self, now: Time) {
        let Some(quiet) = self.batching.quiet(now) else { return };
        if now < self.active + quiet || !self.may_compare() {
            return;
        }
        let Some(replica) = self.replicas.find(ReplicaEntry::is_idle) else { return };
        self.event(Event::DrainReplica(replica));
        self.replicas[replica].role = Role::Profiling;
        if let Err(error) = self.stage_copies(replica) {
            let settings = &self.published.settings;
            tracing::debug!(model = %settings.name, version = settings.version, %error, "rows can't be compared");
            self.batching.drop_trial();
            self.serve(replica);
        }
    }

    fn stage_copies(&mut self, replica: ReplicaId) -> Result<(), Error> {
        let copies = self.batching.next();
        let rows = copies.iter().map(|copy| copy.rows).sum();
        let length = copies.iter().map(|copy| copy.length).max().unwrap_or(0);
        let padding = self.validator.as_ref().and_then(|validator| validator.padding.as_ref());
        let inputs: Vec<SmallVec<[Tensor; 2]>> = copies
            .iter()
            .map(|copy| match padding {
                Some(padding) => padding.pad(&copy.inputs, length),
                None => copy.inputs.clone(),
            })
            .collect();
        let inputs: Vec<&[Tensor]> = inputs.iter().map(|inputs| &inputs[..]).collect();
        self.stage_inputs(replica, Purpose::Comparison, rows, &inputs)
    }

    /// Each copy's own rows, at its own length.
    pub(super) fn split_copies<O: BatchOutputs>(&self, outputs: &O) -> Result<Shares, Error> {
        let copies = self.batching.next();
        let rows: Vec<u32> = copies.iter().map(|copy| copy.rows).collect();
        let mut shares = outputs.split(&rows)?;
        let length = copies.iter().map(|copy| copy.length).max().unwrap_or(0);
        if let Some(padding) = self.validator.as_ref().and_then(|validator| validator.padding.as_ref()) {
            for (copy, share) in copies.iter().zip(&mut shares) {
                padding.cut(share, length, copy.length)?;
            }
        }
        Ok(shares)
    }

    /// Copies were run.
    pub(super) fn compared(
        &mut self,
        replica: ReplicaId,
        execution: Duration,
        result: Result<Shares, Error>,
    ) {
        if self.replicas[replica].role == Role::Profiling {
            self.serve(replica);
        }
        let before = self.batching.counts();
        let conclusion = self.batching.ran(execution, result.map_err(|error| error.message().to_owned()));
        let after = self.batching.counts();
        if after != before {
            self.published.observer.rows_compared(after.0 - before.0, after.1 - before.1);
        }
        self.follow(conclusion);
    }

    /// The worker ended while it ran copies.
    pub(super) fn comparison_lost(&mut self) {
        let conclusion = self.batching.lost();
        self.follow(conclusion);
    }

    fn follow(&mut self, conclusion: Conclusion) {
        let published = self.published.clone();
        let (model, version) = (&published.settings.name, published.settings.version);
        match conclusion {
            Conclusion::Nothing => return,
            Conclusion::Verified => {
                tracing::info!(%model, version, why = self.batching.why(), "requests share runs from now on");
            }
            Conclusion::GivenUp => {
                tracing::warn!(
                    %model, version, why = self.batching.why(),
                    "requests go on running one at a time until the next load: set batching: off to keep it so, or on if \
                     rows are independent"
                );
            }
            Conclusion::Differs(change) => {
                let (output, why) = self.describe(&change);
                self.batching.differs(why);
                let size = if let Change::Answer(change) = change { change.size } else { None };
                tracing::warn!(
                    %model, version, output, difference = size, why = self.batching.why(),
                    "requests no longer share runs until the next load: answers change with the rows that run beside; \
                     correct the model, or set batching: off (batching: on lets them share runs all the same)"
                );
            }
        }
        self.apply_batching();
    }

    /// What sharing a run did, and to which output.
    fn describe(&self, change: &Change) -> (String, String) {
        match change {
            Change::Failure(rows, message) => {
                (String::new(), format!("the model can't run {rows} rows together: {message}"))
            }
            Change::Answer(difference) => {
                let spec = self.published.signature().and_then(|known| known.outputs.get(difference.output));
                let output = spec.map_or_else(|| difference.output.to_string(), |spec| spec.name.to_string());
                let by = difference.size.map_or(String::new(), |size| format!(" by {size:.3e}"));
                let why = format!("output '{output}' of a row that came changed{by} when others ran with it");
                (output, why)
            }
        }
    }

    /// Has scheduler, validator and observer keep to what was decided.
    pub(super) fn apply_batching(&mut self) {
        let shares_runs = self.batching.is_on();
        if let Some(validator) = &mut self.validator {
            validator.shares_runs = shares_runs;
        }
        if self.published.signature().is_some_and(|signature| signature.batched()) {
            self.scheduler.set_batching(shares_runs, &mut self.actions);
            self.undecided = true;
        }
        if let Some(by) = self.batching.by() {
            self.published.observer.batching(by.name(), shares_runs);
        }
    }
}

//! Runs copies of requests that were answered, alone or in company, while nobody wants anything.
//!
//! Reads what was answered and how long nothing has happened; hands copies to an idle replica, and turns the sharing of
//! runs on or off by what is found. Such a run is no request: it is in no metric of requests and teaches the scheduler
//! nothing, and a worker that ends in it condemns nobody.

use std::time::Duration;

use inferd_scheduler::Event;
use inferd_types::{Error, Tensor, Time};
use smallvec::SmallVec;

use super::Task;
use super::ending::Phase;
use crate::company::{Change, News, Tensors, Wanted, kept};
use crate::flight::Flight;
use crate::replica::{Batch, Purpose, Replica, Role};
use crate::worker::{Launcher, Shares, Split};

/// What of one batch is kept, while it is shared out.
pub(super) struct Keeping {
    wanted: Wanted,
    requests: usize,
    kept: Vec<crate::company::Kept>,
}

impl<L: Launcher> Task<L> {
    /// Whether requests of a batch that ran are to be kept. Of most it is none, and then nothing is allocated.
    pub(super) fn keeping(&mut self, batch: &Batch, execution: Duration) -> Keeping {
        let requests = batch.members.len();
        let wanted = match batch.purpose {
            Purpose::Ordinary => self.company.wants(requests, execution),
            _ => Wanted::Nothing,
        };
        Keeping { wanted, requests, kept: Vec::new() }
    }

    /// Keeps one request with its answer.
    pub(super) fn keep(&self, keeping: &mut Keeping, flight: &Flight, answer: &Tensors) {
        if let (true, Some(door)) = (keeping.wanted != Wanted::Nothing, &self.door) {
            let shape = door.shape_of(&flight.inputs, flight.rows, flight.bytes, flight.length);
            keeping.kept.push(kept((&flight.inputs, answer), flight.rows, flight.length, shape));
        }
    }

    /// Hands over what was kept of a batch. Of one whose requests are not all there any more it is nothing: their company
    /// can't be had again.
    pub(super) fn kept(&mut self, now: Time, keeping: Keeping, execution: Duration) {
        if !keeping.kept.is_empty() && keeping.kept.len() == keeping.requests {
            self.company.keep(now, keeping.kept, execution);
        }
    }

    /// When the next copy may run, if nothing happens until then.
    pub(super) fn comparing_due(&self) -> Time {
        match self.company.quiet(self.clock.now()) {
            Some(quiet) if self.may_compare() => (self.active + quiet).min(self.company.impatient()),
            _ => Time::MAX,
        }
    }

    /// Whether nothing waits, and a replica is idle that nobody needs.
    fn may_compare(&self) -> bool {
        matches!(self.phase, Phase::Serving)
            && self.quarantine.is_idle()
            && self.scheduler.has_room()
            && self.replicas.iter().all(|replica| replica.role != Role::Profiling)
            && self.replicas.iter().any(is_idle)
    }

    pub(super) fn compare_if_idle(&mut self, now: Time) {
        let Some(quiet) = self.company.quiet(now) else { return };
        if now < self.active + quiet || !self.may_compare() {
            return;
        }
        let Some(place) = self.replicas.iter().position(is_idle) else { return };
        let id = self.replicas[place].id;
        self.event(Event::DrainReplica(id));
        self.replicas[place].role = Role::Profiling;
        if let Err(error) = self.stage_copies(place) {
            let settings = &self.shared.settings;
            tracing::debug!(model = %settings.name, version = settings.version, %error, "rows can't be compared");
            self.company.drop_trial();
            self.serve(place);
        }
    }

    fn stage_copies(&mut self, place: usize) -> Result<(), Error> {
        let copies = self.company.next();
        let rows = copies.iter().map(|copy| copy.rows).sum();
        let length = copies.iter().map(|copy| copy.length).max().unwrap_or(0);
        let padding = self.door.as_ref().and_then(|door| door.padding.as_ref());
        let inputs: Vec<SmallVec<[Tensor; 2]>> = copies
            .iter()
            .map(|copy| match padding {
                Some(padding) => padding.pad(&copy.inputs, length),
                None => copy.inputs.clone(),
            })
            .collect();
        let inputs: Vec<&[Tensor]> = inputs.iter().map(|inputs| &inputs[..]).collect();
        self.stage_nobodys(place, Purpose::Comparison, rows, &inputs)
    }

    /// Each copy's own rows, at its own length.
    pub(super) fn split_copies<O: Split>(&self, outputs: &O) -> Result<Shares, Error> {
        let copies = self.company.next();
        let rows: Vec<u32> = copies.iter().map(|copy| copy.rows).collect();
        let mut shares = outputs.split(&rows)?;
        let length = copies.iter().map(|copy| copy.length).max().unwrap_or(0);
        if let Some(padding) = self.door.as_ref().and_then(|door| door.padding.as_ref()) {
            for (copy, share) in copies.iter().zip(&mut shares) {
                padding.cut(share, length, copy.length)?;
            }
        }
        Ok(shares)
    }

    /// Copies were run.
    pub(super) fn compared(&mut self, place: usize, execution: Duration, result: Result<Shares, Error>) {
        if self.replicas[place].role == Role::Profiling {
            self.serve(place);
        }
        let before = self.company.counts();
        let news = self.company.ran(execution, result.map_err(|error| error.message().to_owned()));
        let after = self.company.counts();
        if after != before {
            self.shared.observer.rows_compared(after.0 - before.0, after.1 - before.1);
        }
        self.follow(news);
    }

    /// The worker ended while it ran copies.
    pub(super) fn comparison_lost(&mut self) {
        let news = self.company.lost();
        self.follow(news);
    }

    fn follow(&mut self, news: News) {
        let shared = self.shared.clone();
        let (model, version) = (&shared.settings.name, shared.settings.version);
        match news {
            News::Nothing => return,
            News::Verified => {
                tracing::info!(%model, version, why = self.company.why(), "requests share runs from now on");
            }
            News::GivenUp => {
                tracing::warn!(
                    %model, version, why = self.company.why(),
                    "requests go on running one at a time until the next load: set batching: off to keep it so, or on if \
                     rows are independent"
                );
            }
            News::Differs(change) => {
                let (output, why) = self.describe(&change);
                self.company.differs(why);
                let size = if let Change::Answer(change) = change { change.size } else { None };
                tracing::warn!(
                    %model, version, output, difference = size, why = self.company.why(),
                    "requests no longer share runs until the next load: answers change with the rows that run beside; \
                     correct the model, or set batching: off (batching: on lets them share runs all the same)"
                );
            }
        }
        self.apply_company();
    }

    /// What company did, and to which output.
    fn describe(&self, change: &Change) -> (String, String) {
        match change {
            Change::Failure(rows, message) => {
                (String::new(), format!("the model can't run {rows} rows together: {message}"))
            }
            Change::Answer(difference) => {
                let spec = self.shared.signature().and_then(|known| known.outputs.get(difference.output));
                let output = spec.map_or_else(|| difference.output.to_string(), |spec| spec.name.to_string());
                let by = difference.size.map_or(String::new(), |size| format!(" by {size:.3e}"));
                let why = format!("output '{output}' of a row that came changed{by} when others ran with it");
                (output, why)
            }
        }
    }

    /// Has scheduler, door and watchers keep to what was decided.
    pub(super) fn apply_company(&mut self) {
        let company = self.company.is_shared();
        if let Some(door) = &mut self.door {
            door.company = company;
        }
        if self.shared.signature().is_some_and(|signature| signature.batched()) {
            self.scheduler.set_batched(company, &mut self.actions);
            self.undecided = true;
        }
        if let Some(by) = self.company.by() {
            self.shared.observer.batching(by.name(), company);
        }
    }
}

fn is_idle<W: crate::worker::Worker>(replica: &Replica<W>) -> bool {
    replica.role == Role::Serving && replica.batches.is_empty() && replica.hang.is_none()
}

//! Finds the request that kills workers among those that were running when one died.
//!
//! Reads which batch was executing when a worker ended and how its next runs went, hands back what to run next and
//! who is to be answered with what. A function of values: time arrives as an argument.
//! Knows nothing of replicas: it runs one group at a time, and where is not its concern.

use std::collections::VecDeque;
use std::time::Duration;

use inferd_types::{RequestId, Time};

/// How far back the kill budget looks.
const BUDGET_WINDOW: Duration = Duration::from_secs(60);
/// Deaths of a worker with nothing but this request that condemn it. One may be chance.
const DEATHS_ALONE_MAX: u32 = 2;

/// A request that was running when its worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suspect {
    pub(crate) request: RequestId,
    pub(crate) rows: u32,
}

/// How a run ended that gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The worker died by itself.
    Death,
    /// The run took too long and was ended.
    Hang,
}

/// How a suspect's story ends, other than with its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It killed two workers alone.
    Condemned,
    /// It hung alone.
    Hung,
    /// The kill budget is used up.
    BudgetSpent,
}

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuarantineVerdict {
    /// Answer this request.
    Answer(RequestId, Fate),
    /// No request was at fault but their number: run at most so many rows together.
    LimitRows(u32),
}

/// What runs together next.
#[derive(Clone, Debug)]
struct Group {
    members: Vec<Suspect>,
    deaths_alone: u32,
    /// False for the first run after the death, which takes everything once more.
    bisecting: bool,
    family: u64,
}

/// All groups that descend from one batch.
#[derive(Clone, Debug)]
struct Family {
    id: u64,
    groups: usize,
    /// Fewest rows of several requests that killed a worker here in quarantine.
    died_rows: Option<u32>,
    /// Most rows that passed.
    passed_rows: u32,
    /// A single request killed or hung: the batch's size is not the fault.
    single_at_fault: bool,
}

/// The suspects of one model.
#[derive(Debug)]
pub(crate) struct Quarantine {
    waiting: VecDeque<Group>,
    running: Option<Group>,
    families: Vec<Family>,
    next_family: u64,
    /// When suspects killed workers, in the last minute.
    kills: VecDeque<Time>,
    kills_max: usize,
}

impl Quarantine {
    pub(crate) fn new(kills_per_minute_max: u32) -> Quarantine {
        Quarantine {
            waiting: VecDeque::new(),
            running: None,
            families: Vec::new(),
            next_family: 0,
            kills: VecDeque::new(),
            kills_max: usize::try_from(kills_per_minute_max).unwrap_or(usize::MAX),
        }
    }

    /// Whether there is nothing to run and nothing running.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_none()
    }

    /// Whether a group waits for its run.
    pub(crate) fn is_waiting(&self) -> bool {
        self.running.is_none() && !self.waiting.is_empty()
    }

    /// Whether what runs next (or now) has killed twice: it must not take the place of a replica that serves.
    pub(crate) fn is_bisecting(&self) -> bool {
        self.running.as_ref().or(self.waiting.front()).is_some_and(|group| group.bisecting)
    }

    /// Everyone in here.
    pub(crate) fn requests(&self) -> impl Iterator<Item = RequestId> {
        self.running
            .iter()
            .chain(&self.waiting)
            .flat_map(|group| group.members.iter().map(|member| member.request))
    }

    /// A worker ended while it ran `suspects` for the first time; `alone`: nothing else was in that batch.
    pub(crate) fn suspect(
        &mut self,
        now: Time,
        suspects: Vec<Suspect>,
        alone: bool,
        cause: Cause,
        verdicts: &mut Vec<QuarantineVerdict>,
    ) {
        if alone && cause == Cause::Hang {
            verdicts.extend(
                suspects.iter().map(|suspect| QuarantineVerdict::Answer(suspect.request, Fate::Hung)),
            );
        } else if self.budget_spent(now) {
            verdicts.extend(
                suspects.iter().map(|suspect| QuarantineVerdict::Answer(suspect.request, Fate::BudgetSpent)),
            );
        } else if !suspects.is_empty() {
            let family = self.next_family;
            self.next_family += 1;
            self.families.push(Family {
                id: family,
                groups: 1,
                died_rows: None,
                passed_rows: 0,
                single_at_fault: false,
            });
            self.waiting.push_back(Group {
                members: suspects,
                deaths_alone: u32::from(alone),
                bisecting: false,
                family,
            });
        }
    }

    /// What to run now, alone. Those whose caller is not `waiting` any more are left out.
    pub(crate) fn next(
        &mut self,
        waiting: impl Fn(RequestId) -> bool,
        verdicts: &mut Vec<QuarantineVerdict>,
    ) -> Option<Vec<Suspect>> {
        debug_assert!(self.running.is_none(), "one group at a time");
        while let Some(mut group) = self.waiting.pop_front() {
            group.members.retain(|member| waiting(member.request));
            if group.members.is_empty() {
                self.settle(group.family, verdicts);
                continue;
            }
            let members = group.members.clone();
            self.running = Some(group);
            return Some(members);
        }
        None
    }

    /// The run gave a result: its members are answered with it.
    pub(crate) fn passed(&mut self, verdicts: &mut Vec<QuarantineVerdict>) {
        let Some(group) = self.running.take() else { return };
        if let Some(family) = self.family(group.family) {
            family.passed_rows = family.passed_rows.max(rows(&group.members));
        }
        self.settle(group.family, verdicts);
    }

    /// The model gave an error for the run. A lone request gets that error (false); several are run one by one,
    /// so that only those at fault get theirs (true).
    pub(crate) fn failed(&mut self, verdicts: &mut Vec<QuarantineVerdict>) -> bool {
        match self.running.take() {
            Some(group) if group.members.len() > 1 => {
                let singles = group.members.iter().map(|member| vec![*member]).collect();
                self.replace(&group, singles);
                true
            }
            group => {
                self.running = group;
                self.passed(verdicts);
                false
            }
        }
    }

    /// The run did not begin: the worker ended before it took the group.
    pub(crate) fn returned(&mut self) {
        if let Some(group) = self.running.take() {
            self.waiting.push_front(group);
        }
    }

    /// The run ended its worker.
    pub(crate) fn died(&mut self, now: Time, cause: Cause, verdicts: &mut Vec<QuarantineVerdict>) {
        let Some(mut group) = self.running.take() else { return };
        self.kills.push_back(now);
        if let [only] = group.members[..] {
            group.deaths_alone += 1;
            if let Some(family) = self.family(group.family) {
                family.single_at_fault = true;
            }
            let fate = match cause {
                Cause::Hang => Some(Fate::Hung),
                Cause::Death if group.deaths_alone >= DEATHS_ALONE_MAX => Some(Fate::Condemned),
                Cause::Death => None,
            };
            match fate {
                Some(fate) => {
                    verdicts.push(QuarantineVerdict::Answer(only.request, fate));
                    self.settle(group.family, verdicts);
                }
                None => self.waiting.push_front(Group { bisecting: true, ..group }),
            }
        } else {
            let died = rows(&group.members);
            if let Some(family) = self.family(group.family) {
                family.died_rows = Some(family.died_rows.map_or(died, |fewest| fewest.min(died)));
            }
            let (first, second) = group.members.split_at(group.members.len() / 2);
            self.replace(&group, vec![first.to_vec(), second.to_vec()]);
        }
        if self.budget_spent(now) {
            let fates = self
                .give_up()
                .into_iter()
                .map(|request| QuarantineVerdict::Answer(request, Fate::BudgetSpent));
            verdicts.extend(fates);
        }
    }

    /// Lets everyone go, unanswered.
    pub(crate) fn give_up(&mut self) -> Vec<RequestId> {
        let everyone = self.requests().collect();
        self.waiting.clear();
        self.running = None;
        self.families.clear();
        everyone
    }

    /// Puts `parts` where `group` was, in order.
    fn replace(&mut self, group: &Group, parts: Vec<Vec<Suspect>>) {
        if let Some(family) = self.family(group.family) {
            family.groups += parts.len() - 1;
        }
        for members in parts.into_iter().rev() {
            self.waiting.push_front(Group {
                members,
                deaths_alone: 0,
                bisecting: true,
                family: group.family,
            });
        }
    }

    /// One group of `family` is through; says what its end shows when it was the last.
    fn settle(&mut self, family: u64, verdicts: &mut Vec<QuarantineVerdict>) {
        let Some(place) = self.families.iter().position(|known| known.id == family) else { return };
        self.families[place].groups -= 1;
        if self.families[place].groups > 0 {
            return;
        }
        let ended = self.families.swap_remove(place);
        if let (Some(died), false) = (ended.died_rows, ended.single_at_fault)
            && ended.passed_rows > 0
        {
            verdicts.push(QuarantineVerdict::LimitRows(ended.passed_rows.min(died - 1).max(1)));
        }
    }

    fn family(&mut self, id: u64) -> Option<&mut Family> {
        self.families.iter_mut().find(|family| family.id == id)
    }

    fn budget_spent(&mut self, now: Time) -> bool {
        while self.kills.front().is_some_and(|kill| now.since(*kill) >= BUDGET_WINDOW) {
            self.kills.pop_front();
        }
        self.kills.len() >= self.kills_max
    }
}

fn rows(members: &[Suspect]) -> u32 {
    // Two, where several requests have fewer rows than that together: "fewer than these" must be at least one.
    let rows = members.iter().fold(0u32, |rows, member| rows.saturating_add(member.rows));
    rows.max(if members.len() > 1 { 2 } else { 1 })
}

#[cfg(test)]
mod tests;

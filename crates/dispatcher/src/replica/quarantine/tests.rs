//! The quarantine played through against workers that die of given requests, or of too many rows.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// How everything ended.
#[derive(Debug, Default)]
struct Story {
    answered: BTreeSet<u64>,
    fates: BTreeMap<u64, Fate>,
    limit: Option<u32>,
    kills: usize,
    runs: Vec<Vec<u64>>,
}

impl Story {
    fn take(&mut self, verdicts: &mut Vec<QuarantineVerdict>) {
        for verdict in verdicts.drain(..) {
            match verdict {
                QuarantineVerdict::Answer(request, fate) => {
                    assert_eq!(self.fates.insert(request.0, fate), None)
                }
                QuarantineVerdict::LimitRows(rows) => self.limit = Some(rows),
            }
        }
    }
}

fn suspects(rows: &[u32]) -> Vec<Suspect> {
    rows.iter().enumerate().map(|(id, rows)| Suspect { request: RequestId(id as u64), rows: *rows }).collect()
}

/// Runs all groups to the end; `outcome` says what a run of these requests does to its worker.
fn play(rows: &[u32], kills_max: u32, outcome: impl Fn(&[u64], u32) -> Option<Cause>) -> Story {
    let (mut quarantine, mut verdicts, mut story) =
        (Quarantine::new(kills_max), Vec::new(), Story::default());
    quarantine.suspect(Time::ZERO, suspects(rows), rows.len() == 1, Cause::Death, &mut verdicts);
    while let Some(group) = quarantine.next(|_| true, &mut verdicts) {
        let ids: Vec<u64> = group.iter().map(|suspect| suspect.request.0).collect();
        story.runs.push(ids.clone());
        match outcome(&ids, group.iter().map(|suspect| suspect.rows).sum()) {
            Some(cause) => {
                story.kills += 1;
                quarantine.died(Time::ZERO, cause, &mut verdicts);
            }
            None => {
                story.answered.extend(ids);
                quarantine.passed(&mut verdicts);
            }
        }
    }
    story.take(&mut verdicts);
    assert!(quarantine.is_idle() && quarantine.families.is_empty());
    story
}

#[test]
fn a_batch_that_passes_its_second_run_is_answered_and_nothing_is_limited() {
    let story = play(&[1; 8], 10, |_, _| None);
    assert_eq!(story.runs.len(), 1);
    assert_eq!(story.answered.len(), 8);
    assert_eq!(story.limit, None);
}

#[test]
fn one_poison_request_is_condemned_after_two_deaths_alone_and_its_neighbours_pass() {
    let story = play(&[1; 32], 100, |ids, _| ids.contains(&13).then_some(Cause::Death));
    assert_eq!(story.fates, BTreeMap::from([(13, Fate::Condemned)]));
    assert_eq!(story.answered.len(), 31);
    assert_eq!(story.runs.iter().filter(|run| run[..] == [13]).count(), 2);
    // The second run, four halvings, two runs alone.
    assert_eq!(story.kills, 7);
    assert_eq!(story.limit, None);
}

#[test]
fn a_lone_request_is_condemned_by_its_second_death() {
    let story = play(&[4], 100, |_, _| Some(Cause::Death));
    assert_eq!(story.fates, BTreeMap::from([(0, Fate::Condemned)]));
    assert_eq!(story.kills, 1);
}

#[test]
fn a_death_alone_that_does_not_repeat_was_chance() {
    let deaths = std::cell::Cell::new(0);
    let story = play(&[1; 2], 100, |ids, _| {
        deaths.set(deaths.get() + 1);
        (ids == [0, 1] || deaths.get() == 2).then_some(Cause::Death)
    });
    assert_eq!(story.answered.len(), 2);
    assert_eq!(story.limit, None);
}

#[test]
fn where_all_halves_pass_the_number_of_rows_was_at_fault() {
    let story = play(&[1; 32], 100, |_, rows| (rows > 10).then_some(Cause::Death));
    assert_eq!(story.answered.len(), 32);
    assert_eq!(story.limit, Some(8));
}

#[test]
fn a_request_that_hangs_alone_is_not_run_again() {
    let (mut quarantine, mut verdicts) = (Quarantine::new(10), Vec::new());
    quarantine.suspect(Time::ZERO, suspects(&[1]), true, Cause::Hang, &mut verdicts);
    assert_eq!(verdicts, [QuarantineVerdict::Answer(RequestId(0), Fate::Hung)]);
    assert!(quarantine.is_idle());

    let story = play(&[1; 4], 100, |ids, _| ids.contains(&2).then_some(Cause::Hang));
    assert_eq!(story.fates, BTreeMap::from([(2, Fate::Hung)]));
    assert_eq!(story.answered.len(), 3);
    assert_eq!(story.limit, None);
}

#[test]
fn past_the_kill_budget_suspects_are_let_go_until_a_minute_has_passed() {
    let story = play(&[1; 32], 3, |ids, _| ids.contains(&0).then_some(Cause::Death));
    assert_eq!(story.kills, 3);
    assert!(story.fates.values().all(|fate| *fate == Fate::BudgetSpent));
    assert_eq!(story.fates.len() + story.answered.len(), 32);

    let (mut quarantine, mut verdicts) = (Quarantine::new(1), Vec::new());
    let kill = |quarantine: &mut Quarantine, now, verdicts: &mut Vec<QuarantineVerdict>| {
        quarantine.suspect(now, suspects(&[1]), true, Cause::Death, verdicts);
        quarantine.next(|_| true, verdicts).is_some()
    };
    assert!(kill(&mut quarantine, Time::ZERO, &mut verdicts));
    quarantine.died(Time::ZERO, Cause::Death, &mut verdicts);
    assert!(!kill(&mut quarantine, Time::ZERO + Duration::from_secs(59), &mut verdicts));
    assert!(kill(&mut quarantine, Time::ZERO + Duration::from_secs(60), &mut verdicts));
}

#[test]
fn a_budget_of_none_lets_suspects_go_at_once() {
    let story = play(&[1, 1], 0, |_, _| None);
    assert!(story.runs.is_empty());
    assert_eq!(story.fates.len(), 2);
}

#[test]
fn those_whose_caller_has_gone_are_left_out() {
    let (mut quarantine, mut verdicts) = (Quarantine::new(10), Vec::new());
    quarantine.suspect(Time::ZERO, suspects(&[1; 4]), false, Cause::Death, &mut verdicts);
    let group = quarantine.next(|request| request.0 == 3, &mut verdicts).unwrap();
    assert_eq!(group, [Suspect { request: RequestId(3), rows: 1 }]);
    // It has died together with others before, never alone: it gets its two runs.
    quarantine.died(Time::ZERO, Cause::Death, &mut verdicts);
    assert!(verdicts.is_empty());
    assert!(quarantine.next(|_| false, &mut verdicts).is_none());
    assert!(quarantine.is_idle() && verdicts.is_empty());
}

#[test]
fn a_run_that_did_not_begin_is_begun_again() {
    let (mut quarantine, mut verdicts) = (Quarantine::new(10), Vec::new());
    quarantine.suspect(Time::ZERO, suspects(&[1; 4]), false, Cause::Death, &mut verdicts);
    let first = quarantine.next(|_| true, &mut verdicts).unwrap();
    quarantine.returned();
    assert!(!quarantine.is_bisecting());
    assert_eq!(quarantine.next(|_| true, &mut verdicts), Some(first));
}

#[test]
fn several_that_fail_together_are_run_one_by_one() {
    let (mut quarantine, mut verdicts) = (Quarantine::new(10), Vec::new());
    quarantine.suspect(Time::ZERO, suspects(&[1; 3]), false, Cause::Death, &mut verdicts);
    quarantine.next(|_| true, &mut verdicts).unwrap();
    assert!(quarantine.failed(&mut verdicts));
    for id in 0..3 {
        assert_eq!(quarantine.next(|_| true, &mut verdicts).unwrap()[0].request, RequestId(id));
        assert!(!quarantine.failed(&mut verdicts));
    }
    assert!(quarantine.is_idle() && verdicts.is_empty());
}

proptest! {
    #[test]
    fn everyone_is_answered_once_and_only_the_poisonous_with_an_error(
        rows in prop::collection::vec(1u32..5, 1..40),
        poison in prop::collection::btree_set(0u64..40, 0..4),
    ) {
        let poison: BTreeSet<u64> = poison.into_iter().filter(|id| (*id as usize) < rows.len()).collect();
        let story = play(&rows, 1000, |ids, _| ids.iter().any(|id| poison.contains(id)).then_some(Cause::Death));
        let condemned: BTreeSet<u64> = story.fates.keys().copied().collect();
        prop_assert_eq!(&condemned, &poison);
        prop_assert!(story.fates.values().all(|fate| *fate == Fate::Condemned));
        prop_assert_eq!(story.answered.len() + condemned.len(), rows.len());
        prop_assert!(story.answered.is_disjoint(&condemned));
        prop_assert_eq!(story.limit, None);
        // Each poison costs its path down the halves and two deaths alone.
        let depth = usize::BITS as usize - rows.len().leading_zeros() as usize + 2;
        prop_assert!(story.kills <= poison.len() * depth.max(2));
    }

    #[test]
    fn a_limit_on_rows_is_found_and_is_never_above_the_truth(rows in 2u32..64, most in 1u32..63) {
        prop_assume!(most < rows);
        let story = play(&vec![1; rows as usize], 1000, |_, rows| (rows > most).then_some(Cause::Death));
        prop_assert_eq!(story.answered.len(), rows as usize);
        let limit = story.limit.unwrap();
        prop_assert!(limit <= most && limit >= most.div_ceil(2), "limit {limit}, truth {most}");
    }

    #[test]
    fn any_mixture_of_ends_terminates_and_loses_nobody(
        count in 1usize..40,
        kills_max in 0u32..20,
        dice in prop::collection::vec(0u8..4, 400),
    ) {
        let (mut quarantine, mut verdicts) = (Quarantine::new(kills_max), Vec::new());
        let (mut story, mut dice) = (Story::default(), dice.into_iter());
        quarantine.suspect(Time::ZERO, suspects(&vec![1; count]), count == 1, Cause::Death, &mut verdicts);
        while let Some(group) = quarantine.next(|_| true, &mut verdicts) {
            let answered = group.iter().map(|suspect| suspect.request.0);
            match dice.next().expect("a run for each throw") {
                0 => quarantine.died(Time::ZERO, Cause::Death, &mut verdicts),
                1 => quarantine.died(Time::ZERO, Cause::Hang, &mut verdicts),
                2 => {
                    quarantine.passed(&mut verdicts);
                    story.answered.extend(answered);
                }
                _ => {
                    if !quarantine.failed(&mut verdicts) {
                        story.answered.extend(answered);
                    }
                }
            }
        }
        story.take(&mut verdicts);
        prop_assert_eq!(story.answered.len() + story.fates.len(), count);
        prop_assert!(quarantine.is_idle());
    }
}

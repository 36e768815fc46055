use inferd_types::settings::Seconds;

use super::*;

const ANYBODY: Tenant = Tenant { id: 0, weight: 1 };

fn sequences(idle_max: Duration, sequences_max: usize) -> Arc<Sequences> {
    let settings =
        SequenceSettings { idle_max_s: Seconds(idle_max), sequences_max, ..SequenceSettings::default() };
    Arc::new(Sequences::new("m", &settings, 2, Clock::start()))
}

fn start(id: u64) -> Sequence {
    Sequence { id: SequenceId::Number(id), start: true, end: false }
}

fn more(id: u64) -> Sequence {
    Sequence { start: false, ..start(id) }
}

fn now(entered: Result<Entered>) -> Turn {
    match entered {
        Ok(Entered::Now(turn)) => turn,
        Ok(Entered::Later(_)) => panic!("somebody else has the turn"),
        Err(error) => panic!("{error}"),
    }
}

fn later(entered: Result<Entered>) -> oneshot::Receiver<Turn> {
    match entered {
        Ok(Entered::Later(receiver)) => receiver,
        _ => panic!("it is its turn at once"),
    }
}

fn begun() -> Option<Begun> {
    Some(Begun { state: SequenceState::new(), replica: ReplicaId(1) })
}

fn refusal(entered: Result<Entered>) -> Error {
    entered.err().expect("it is refused")
}

#[test]
fn requests_of_a_sequence_come_one_after_the_other_in_their_order() {
    let sequences = sequences(Duration::from_secs(60), 4);
    let first = now(sequences.enter(ANYBODY, &start(1)));
    let (mut second, mut third) =
        (later(sequences.enter(ANYBODY, &more(1))), later(sequences.enter(ANYBODY, &more(1))));
    assert_eq!(
        refusal(sequences.enter(ANYBODY, &more(1))).kind(),
        ErrorKind::Overloaded,
        "the line has an end"
    );
    let _other = now(sequences.enter(ANYBODY, &start(2)));
    first.keep(begun());
    drop(first);
    let turn = second.try_recv().expect("it is its turn");
    assert!(third.try_recv().is_err());
    assert!(turn.begin(false).unwrap().is_some());
    drop(turn);
    assert!(third.try_recv().is_ok());
}

#[test]
fn who_has_gone_is_passed_over_and_so_is_a_turn_that_nobody_picked_up() {
    let sequences = sequences(Duration::from_secs(60), 4);
    let first = now(sequences.enter(ANYBODY, &start(1)));
    first.keep(begun());
    let (gone, second) =
        (later(sequences.enter(ANYBODY, &more(1))), later(sequences.enter(ANYBODY, &more(1))));
    drop(gone);
    drop(first);
    drop(second);
    drop(now(sequences.enter(ANYBODY, &more(1))));
    assert_eq!(sequences.status()["waiting"], 0);
}

#[test]
fn a_sequence_that_was_not_begun_has_ended_or_was_idle_is_unknown() {
    let sequences = sequences(Duration::ZERO, 4);
    let error = refusal(sequences.enter(ANYBODY, &more(1)));
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.message().contains("'1'") && error.message().contains("sequence_start"), "{error}");
    let turn = now(sequences.enter(ANYBODY, &start(1)));
    turn.keep(begun());
    drop(turn);
    assert!(sequences.enter(ANYBODY, &more(1)).is_err(), "it was idle for longer than nothing");

    let sequences = self::sequences(Duration::from_secs(60), 4);
    let turn = now(sequences.enter(ANYBODY, &start(1)));
    turn.keep(None);
    drop(turn);
    assert!(sequences.enter(ANYBODY, &more(1)).is_err(), "it has ended");
    assert_eq!(sequences.status()["live"], 0);
}

#[test]
fn a_start_that_fails_leaves_nothing_and_one_of_a_known_name_begins_anew() {
    let sequences = sequences(Duration::from_secs(60), 1);
    drop(now(sequences.enter(ANYBODY, &start(1))));
    let turn = now(sequences.enter(ANYBODY, &start(2)));
    assert_eq!(refusal(sequences.enter(ANYBODY, &start(3))).kind(), ErrorKind::Overloaded, "one at once");
    turn.keep(begun());
    drop(turn);
    let again = now(sequences.enter(ANYBODY, &start(2)));
    assert!(again.begin(true).unwrap().is_none());
    assert!(again.begin(false).is_err(), "what was before is given up");
}

#[test]
fn two_tenants_with_one_sequence_id_do_not_meet() {
    let sequences = sequences(Duration::from_secs(60), 4);
    let (one, other) = (Tenant { id: 1, weight: 1 }, Tenant { id: 2, weight: 1 });
    let first = now(sequences.enter(one, &start(7)));
    assert_eq!(refusal(sequences.enter(other, &more(7))).kind(), ErrorKind::InvalidInput, "it is another's");
    let second = now(sequences.enter(other, &start(7)));
    first.keep(begun());
    assert!(second.begin(false).is_err(), "what the one keeps is not the other's");
    second.keep(None);
    drop((first, second));
    assert!(now(sequences.enter(Tenant { weight: 5, ..one }, &more(7))).begin(false).unwrap().is_some());
    assert!(sequences.enter(other, &more(7)).is_err(), "the end of one is not the other's");
}

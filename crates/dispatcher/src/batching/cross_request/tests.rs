//! The state of cross-request batching, given one batch and one run at a time.

use inferd_types::settings::Comparison;
use inferd_types::{DataType, Tensor, TensorSpec};
use smallvec::smallvec;

use super::*;

const RUN: Duration = Duration::from_millis(1);

fn settings(verify: bool) -> ModelSettings {
    let comparison = Comparison { verify, ..Comparison::default() };
    ModelSettings { comparison, batch_rows_max: 8, ..inferd_testkit::settings("fake") }
}

fn loaded(by: Option<Decider>) -> LoadedModel {
    let spec = |name: &str| TensorSpec { name: name.into(), datatype: DataType::Fp32, shape: vec![-1, 1] };
    let mut signature = Signature {
        inputs: vec![spec("x")],
        outputs: vec![spec("y")],
        batching: Batching::On,
        decoupled: false,
        extras: Default::default(),
    };
    signature.extras.verdict = by.map(|by| Verdict { by, why: "the test says so".into(), rows: 9 });
    LoadedModel::new(signature, Default::default())
}

fn batching(by: Option<Decider>, verify: bool) -> CrossRequestBatching {
    let (mut loaded, settings) = (loaded(by), settings(verify));
    announce(&mut loaded, &settings).unwrap();
    CrossRequestBatching::new(&loaded.signature, &settings, false)
}

fn number(value: f32) -> Tensors {
    smallvec![Tensor::new(DataType::Fp32, smallvec![1, 1], value.to_le_bytes().to_vec().into()).unwrap()]
}

/// A row and twice its value as its answer.
fn row(value: f32) -> AnsweredRequest {
    kept((&number(value), &number(2.0 * value)), 1, 0, ShapeKey(0))
}

/// What an honest model answers to what is to run next.
fn honest(batching: &CrossRequestBatching) -> Result<Vec<Tensors>, String> {
    Ok(batching.next().iter().map(|copy| copy.answer.clone()).collect())
}

#[test]
fn a_proof_and_the_operators_word_are_not_audited_and_a_probe_is() {
    for by in [None, Some(Decider::Setting), Some(Decider::Analysis)] {
        let mut batching = batching(by, false);
        assert!(batching.is_on());
        assert_eq!(batching.wants(8, RUN), Wanted::Nothing);
    }
    let mut probed = batching(Some(Decider::Probe), false);
    assert_eq!(probed.wants(1, RUN), Wanted::Nothing, "who ran alone shows nothing");
    assert_eq!(probed.wants(8, RUN), Wanted::Batch);
    let once = ModelSettings { retry_on_worker_loss: false, ..settings(false) };
    let signature = loaded(Some(Decider::Probe)).signature;
    assert_eq!(CrossRequestBatching::new(&signature, &once, false).wants(8, RUN), Wanted::Nothing);
    assert_eq!(CrossRequestBatching::new(&signature, &settings(false), true).wants(8, RUN), Wanted::Nothing);
}

#[test]
fn audits_take_a_hundredth_of_the_time_that_batches_run() {
    let mut batching = batching(Some(Decider::Probe), false);
    let mut audits = 0;
    for batch in 0..100_000 {
        if batching.wants(2, RUN) == Wanted::Batch {
            batching.keep(Time::ZERO, vec![row(batch as f32), row(-1.0)], RUN);
            let answers = honest(&batching);
            assert_eq!(batching.ran(RUN, answers), Conclusion::Nothing);
            audits += 1;
        }
    }
    assert!((1000..=1101).contains(&audits), "{audits}");
    assert_eq!(batching.counts(), (audits, 0));
    let bound = batching.status()["bound"].as_f64().unwrap();
    assert!((bound - 3.0 / audits as f64).abs() < 1e-9);
}

#[test]
fn a_difference_in_an_audit_turns_company_off_for_good() {
    let mut batching = batching(Some(Decider::Probe), false);
    batching.keep(Time::ZERO, vec![row(1.0), row(2.0)], RUN);
    assert_eq!(batching.next().len(), 1);
    assert_eq!(batching.ran(RUN, Ok(vec![number(9.0)])), Conclusion::Nothing);
    assert_eq!(batching.ran(RUN, Ok(vec![number(9.0)])), Conclusion::Nothing);
    assert!(batching.is_on(), "it is not confirmed yet");
    let together = honest_pair();
    let Conclusion::Differs(Change::Answer(difference)) = batching.ran(RUN, Ok(together)) else {
        panic!("not confirmed")
    };
    assert_eq!(difference.output, 0);
    batching.differs("it changed".into());
    assert!(!batching.is_on());
    assert_eq!((batching.by(), batching.why()), (Some(Decider::Traffic), "it changed"));
    assert_eq!(batching.wants(1, RUN), Wanted::Nothing);
    assert_eq!(batching.status()["bound"], Value::Null);
}

fn honest_pair() -> Vec<Tensors> {
    vec![number(2.0), number(4.0)]
}

#[test]
fn four_hundred_rows_without_a_difference_turn_company_on() {
    let mut batching = batching(Some(Decider::Probe), true);
    assert!(!batching.is_on());
    assert!(batching.why().contains("until 400 rows"), "{}", batching.why());
    let mut news = Conclusion::Nothing;
    for value in 0..2000u16 {
        if batching.wants(1, RUN) == Wanted::Lone {
            batching.keep(Time::ZERO, vec![row(f32::from(value))], RUN);
        }
        if batching.quiet(Time::ZERO).is_some() && news == Conclusion::Nothing {
            let answers = honest(&batching);
            news = batching.ran(RUN, answers);
        }
    }
    assert_eq!(news, Conclusion::Verified);
    assert!(batching.is_on());
    assert!((400..408).contains(&batching.counts().0));
    assert!(batching.why().contains("at most 0.7"), "{}", batching.why());
    assert_eq!(batching.status()["by"], "traffic");
    assert_eq!(batching.status()["audited"], true);
}

#[test]
fn a_model_that_is_proven_has_nothing_to_verify() {
    let batching = batching(Some(Decider::Analysis), true);
    assert!(batching.is_on());
    assert_eq!(batching.by(), Some(Decider::Analysis));
}

#[test]
fn random_answers_and_lost_workers_end_a_verification_without_batching() {
    let begin = |batching: &mut CrossRequestBatching, value: f32| {
        for value in
            [value, value + 1.0, value + 2.0, value + 3.0, value + 4.0, value + 5.0, value + 6.0, value + 7.0]
        {
            if batching.wants(1, RUN) == Wanted::Lone {
                batching.keep(Time::ZERO, vec![row(value)], RUN);
            }
        }
    };
    let mut random = batching(Some(Decider::Probe), true);
    let mut news = Conclusion::Nothing;
    for turn in 0..400 {
        begin(&mut random, 10.0 * turn as f32);
        let answers =
            random.next().iter().zip(0..).map(|(_, at)| number((turn * 10 + at) as f32 + 0.5)).collect();
        news = random.ran(RUN, Ok(answers));
        if news != Conclusion::Nothing {
            break;
        }
    }
    assert_eq!(news, Conclusion::GivenUp);
    assert!(random.why().contains("differed from run to run"), "{}", random.why());
    let mut deadly = batching(Some(Decider::Probe), true);
    begin(&mut deadly, 1.0);
    assert_eq!(
        [deadly.lost(), deadly.lost(), deadly.lost()],
        [Conclusion::Nothing, Conclusion::Nothing, Conclusion::GivenUp]
    );
    assert!(!deadly.is_on());
}

#[test]
fn a_comparison_waits_for_silence_and_then_for_any_moment() {
    let mut batching = batching(Some(Decider::Probe), false);
    assert_eq!((batching.quiet(Time::ZERO), batching.impatient()), (None, Time::MAX));
    batching.keep(Time::ZERO, vec![row(1.0), row(2.0)], RUN);
    assert_eq!(batching.quiet(Time::ZERO), Some(RUN));
    assert_eq!(batching.quiet(batching.impatient()), Some(Duration::ZERO));
    assert_eq!(batching.impatient(), Time::ZERO + AUDIT_PATIENCE);
}

#[test]
fn what_must_not_run_twice_is_not_verified() {
    let refusal = |change: &dyn Fn(&mut LoadedModel, &mut ModelSettings)| {
        let (mut loaded, mut settings) = (loaded(Some(Decider::Probe)), settings(true));
        change(&mut loaded, &mut settings);
        announce(&mut loaded, &settings).unwrap_err().message().to_owned()
    };
    let sequence = || Some(Default::default());
    assert!(refusal(&|loaded, _| loaded.signature.decoupled = true).contains("streams"));
    assert!(refusal(&|loaded, _| loaded.sequence = sequence()).contains("sequences"));
    let once = refusal(&|_, settings| settings.retry_on_worker_loss = false);
    assert!(once.contains("retry_on_worker_loss: false forbids\nhelp: set batching: auto or off"));
}

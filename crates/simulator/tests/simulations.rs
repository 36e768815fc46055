//! Whole simulations: known queues, pipelines of every form, invalid scenarios.

use inferd_simulator::{Report, Scenario, simulate};
use serde_json::{Value, json};

fn scenario(value: Value) -> Scenario {
    serde_json::from_value(value).expect("a scenario")
}

fn run(value: Value) -> Report {
    simulate(&scenario(value), &mut |_| true).expect("a valid scenario")
}

fn model(name: &str, fixed_s: f64, row_s: f64) -> Value {
    json!({"name": name, "curve": [[1, fixed_s + row_s], [32, fixed_s + 32.0 * row_s]]})
}

/// `value` with the fields of `more`.
fn with(mut value: Value, more: Value) -> Value {
    let fields = more.as_object().expect("fields").clone();
    value.as_object_mut().expect("fields").extend(fields);
    value
}

fn one_model(model: Value, process: Value) -> Value {
    json!({"models": [model], "arrivals": [{"target": "m", "process": process}], "duration_s": 100.0, "seed": 3})
}

#[test]
fn equal_seeds_give_equal_results_and_others_do_not() {
    let noisy = with(
        model("m", 0.002, 0.001),
        json!({"spread": [[0.0, 0.8], [0.9, 1.1], [1.0, 3.0]], "objective": {"latency_s": 0.03}}),
    );
    let bursty = json!({"gamma": {"rate": 300.0, "cv": 4.0}});
    let seeded = |seed: u64| run(with(one_model(noisy.clone(), bursty.clone()), json!({"seed": seed})));
    assert_eq!(seeded(5), seeded(5));
    assert_ne!(seeded(5).targets, seeded(6).targets);
}

#[test]
fn a_queue_without_batches_waits_as_long_as_theory_says() {
    // Poisson arrivals, equal service times: the mean wait is ρ/(2(1-ρ)) of one (Pollaczek and Khinchine).
    let alone = with(model("m", 0.0, 0.01), json!({"batched": false}));
    let report =
        run(with(one_model(alone, json!({"poisson": {"rate": 70.0}})), json!({"duration_s": 2000.0})));
    let wait = report.models[0].wait.mean_s.expect("some came");
    let expected = 0.7 / (2.0 * 0.3) * 0.01;
    assert!((wait / expected - 1.0).abs() < 0.05, "{wait} instead of {expected}");
    assert!((report.models[0].utilisation - 0.7).abs() < 0.01, "{}", report.models[0].utilisation);
    assert_eq!(report.models[0].rows, [(1, report.requests)]);
}

#[test]
fn what_a_gateway_waits_for_its_turn_is_in_every_latency_twice_and_takes_no_capacity() {
    let waits = json!({"unseen": [[0.0, 0.002], [1.0, 0.002]]});
    let alone = |more: &Value| {
        let model = with(with(model("m", 0.002, 0.001), json!({"batched": false})), more.clone());
        run(with(one_model(model, json!({"poisson": {"rate": 100.0}})), json!({"duration_s": 400.0})))
    };
    let (with_it, without) = (alone(&waits), alone(&json!({})));
    let mean = |report: &Report| report.targets[0].latency.mean_s.expect("some came");
    assert!(
        (mean(&with_it) - mean(&without) - 0.004).abs() < 0.0005,
        "{} {}",
        mean(&with_it),
        mean(&without)
    );
    assert!((with_it.models[0].utilisation - without.models[0].utilisation).abs() < 0.001);
}

#[test]
fn a_replica_pauses_before_what_was_staged_behind_a_run_and_not_before_what_came_later() {
    let paused =
        with(model("m", 0.0, 0.01), json!({"batched": false, "pauses": [[0.0, 0.002], [1.0, 0.002]]}));
    let three = json!({"trace": {"requests": [[1.0, 1, 0], [1.001, 1, 0], [2.0, 1, 0]]}});
    let report = run(one_model(paused, three));
    let latency = &report.targets[0].latency;
    let (mean, longest) = (latency.mean_s.expect("three came"), latency.max_s.expect("three came"));
    assert!((longest - 0.021).abs() < 1e-9, "{longest}");
    assert!((mean - (0.010 + 0.021 + 0.010) / 3.0).abs() < 1e-9, "{mean}");
}

#[test]
fn a_lone_request_takes_its_execution_and_both_overheads() {
    let slow =
        with(model("m", 0.002, 0.001), json!({"overhead_batch_s": 0.0004, "overhead_request_s": 0.0006}));
    let report = run(one_model(slow, json!({"trace": {"requests": [[1.0, 1, 0], [2.0, 1, 0]]}})));
    let longest = report.targets[0].latency.max_s.expect("two came");
    assert!((longest - 0.004).abs() < 1e-9, "{longest}");
}

#[test]
fn a_gateway_reads_and_answers_one_request_after_the_other() {
    let instant = with(model("m", 1e-9, 0.0), json!({"overhead_request_s": 0.002}));
    let ten = vec![json!([1.0, 1, 0]); 10];
    let latency = &run(one_model(instant, json!({"trace": {"requests": ten}}))).targets[0].latency;
    let (mean, longest) = (latency.mean_s.expect("ten came"), latency.max_s.expect("ten came"));
    // All are read before the first is answered: 11 ms for the first, 20 ms for the last.
    assert!((mean - 0.0155).abs() < 0.0001, "{mean}");
    assert!((longest - 0.020).abs() < 0.0001, "{longest}");
}

#[test]
fn batches_carry_a_load_that_lone_requests_could_not() {
    let quick = with(model("m", 0.009, 0.001), json!({"objective": {"latency_s": 0.1}}));
    let load = one_model(quick, json!({"poisson": {"rate": 500.0}}));
    let ours = run(load.clone());
    let alone = run(with(load, json!({"policy": "equal_division"})));
    assert_eq!(ours.targets[0].holds, Some(true), "{:?}", ours.targets[0]);
    assert!(ours.models[0].rows_mean > 4.0);
    assert!(alone.targets[0].attainment < 0.1, "{:?}", alone.targets[0].attainment);
}

#[test]
fn twice_the_load_is_held_by_twice_the_replicas() {
    let with_replicas = |replicas: u32, rate: f64| {
        let two =
            with(model("m", 0.009, 0.001), json!({"replicas": replicas, "objective": {"latency_s": 0.1}}));
        run(one_model(two, json!({"poisson": {"rate": rate}}))).targets[0].holds
    };
    assert_eq!((with_replicas(1, 600.0), with_replicas(1, 1200.0)), (Some(true), Some(false)));
    assert_eq!(with_replicas(2, 1200.0), Some(true));
}

/// A request through `steps`, each a model of 10 ms, alone on an idle server.
fn pipeline(steps: Value, requests: u32) -> Report {
    let trace: Vec<Value> = (0..requests).map(|number| json!([f64::from(number), 1, 0])).collect();
    run(json!({
        "models": [model("a", 0.01, 0.0), model("b", 0.02, 0.0), model("c", 0.03, 0.0)],
        "pipelines": [{"name": "p", "objective": {"latency_s": 0.2}, "steps": steps}],
        "arrivals": [{"target": "p", "process": {"trace": {"requests": trace}}}],
        "duration_s": 1e6
    }))
}

#[test]
fn a_pipeline_takes_its_longest_path() {
    let report = pipeline(
        json!([
            {"name": "first", "models": [["a", 1]]},
            {"name": "left", "models": [["b", 1]], "after": [0]},
            {"name": "right", "models": [["c", 1]], "after": [0]},
            {"name": "join", "models": [["a", 1]], "after": [1, 2]}
        ]),
        3,
    );
    let longest = report.targets[0].latency.max_s.expect("three came");
    assert!((longest - 0.05).abs() < 1e-6, "{longest}");
    let runs: Vec<_> = report.targets[0].steps.iter().map(|step| (step.name.as_str(), step.runs)).collect();
    assert_eq!(runs, [("first", 3), ("left", 3), ("right", 3), ("join", 3)]);
    assert_eq!(report.models[0].requests, 6);
}

#[test]
fn steps_that_are_left_out_take_nothing_and_splitters_split() {
    let report = pipeline(
        json!([
            {"name": "first", "models": [["a", 3], ["b", 1]]},
            {"name": "rare", "models": [["c", 1]], "after": [0], "probability": 0.1},
            {"name": "after_rare", "models": [["c", 1]], "after": [1]},
            {"name": "last", "models": [["c", 1]], "after": [0, 2]}
        ]),
        1000,
    );
    let runs: Vec<_> = report.targets[0].steps.iter().map(|step| step.runs).collect();
    assert_eq!((runs[0], runs[1] == runs[2], runs[3]), (1000, true, 1000), "{runs:?}");
    assert!((70..130).contains(&runs[1]), "{runs:?}");
    assert!((200..300).contains(&report.models[1].requests), "{}", report.models[1].requests);
    assert_eq!(report.targets[0].met, 1000);
}

#[test]
fn a_slow_replica_slows_its_own_requests_only() {
    let pair = with(model("m", 0.01, 0.0), json!({"replicas": 2, "slowness": [1.0, 5.0], "batched": false}));
    let report = run(one_model(pair, json!({"at_once": {"count": 2}})));
    let latency = report.targets[0].latency;
    assert!(
        (latency.max_s.expect("two") - 0.05).abs() < 1e-6 && latency.p50_s.expect("two") < 0.011,
        "{latency:?}"
    );
}

#[test]
fn an_invalid_scenario_is_refused_with_a_remedy() {
    let good = one_model(model("m", 0.01, 0.0), json!({"poisson": {"rate": 1.0}}));
    let faults = [
        (json!({"policy": "fifo"}), "unknown policy 'fifo'; known are equal_division"),
        (json!({"arrivals": [{"target": "n", "process": {"at_once": {"count": 1}}}]}), "known are m"),
        (json!({"duration_s": 0.0}), "duration_s is 0; it must be above 0"),
        (json!({"arrivals": [{"target": "m", "process": {"poisson": {"rate": -1.0}}}]}), "rate is -1"),
        (
            json!({"arrivals": [{"target": "m", "process": {"trace": {"requests": [[2.0, 1, 0], [1.0, 1, 0]]}}}]}),
            "not ascending",
        ),
        (json!({"models": []}), "name at least one model"),
    ];
    for (change, expected) in faults {
        let fault = simulate(&scenario(with(good.clone(), change)), &mut |_| true).expect_err("nonsense");
        assert!(fault.to_string().contains(expected), "{fault}");
    }
}

#[test]
fn progress_is_reported_and_can_cancel() {
    let load = scenario(one_model(model("m", 0.001, 0.0), json!({"poisson": {"rate": 2000.0}})));
    let mut reported = Vec::new();
    simulate(&load, &mut |share| {
        reported.push(share);
        true
    })
    .expect("a valid scenario");
    assert!(
        reported.len() > 3
            && reported.is_sorted()
            && reported.iter().all(|share| (0.0..=1.0).contains(share)),
        "{reported:?}"
    );
    let ended = simulate(&load, &mut |_| false).expect_err("ended");
    assert!(ended.to_string().contains("cancelled"), "{ended}");
}

/// Four replicas of 2 ms and so many requests per second, with a wide margin to the objective.
fn four(rate: f64, more: Value) -> Report {
    let model = with(
        model("m", 0.002, 0.0),
        with(json!({"replicas": 4, "batched": false, "objective": {"latency_s": 0.01}}), more),
    );
    run(one_model(model, json!({"poisson": {"rate": rate}})))
}

#[test]
fn a_replica_that_is_far_slower_than_the_others_is_ejected() {
    let slow = json!([1.0, 1.0, 1.0, 20.0]);
    let without = four(650.0, json!({"slowness": slow, "ejection": false}));
    let with = four(650.0, json!({"slowness": slow}));
    assert_eq!((without.models[0].ejections, with.models[0].ejections > 1), (0, true), "it is tried again");
    assert_eq!(with.targets[0].holds, Some(true), "{:?}", with.targets[0]);
    let missed = |report: &Report| 1.0 - report.targets[0].attainment;
    assert!(missed(&with) < 0.5 * missed(&without), "{} and {}", missed(&with), missed(&without));
}

#[test]
fn slow_times_last_as_long_as_they_were_measured_to() {
    // Half of the mean and three times that, equally often: two hundred in a row, or one by one.
    let ratios: Vec<f64> = (0..400).map(|run| if run < 200 { 0.5 } else { 1.5 }).collect();
    let load = |more: Value| {
        let model = with(model("m", 0.002, 0.0002), with(json!({"batched": false}), more));
        run(with(one_model(model, json!({"poisson": {"rate": 400.0}})), json!({"duration_s": 50.0})))
    };
    let p99 = |report: &Report| report.targets[0].latency.p99_s.expect("some came");
    let replayed = load(json!({"recent_ratios": ratios}));
    let drawn = load(json!({"spread": [[0.0, 0.5], [0.5, 0.5], [0.501, 1.5], [1.0, 1.5]]}));
    assert!((replayed.models[0].utilisation - drawn.models[0].utilisation).abs() < 0.03);
    assert!(p99(&replayed) > 3.0 * p99(&drawn), "{} and {}", p99(&replayed), p99(&drawn));
}

#[test]
fn the_slower_of_several_idle_replicas_is_given_less() {
    let report = four(650.0, json!({"slowness": [2.0, 1.0, 1.0, 1.0], "ejection": false}));
    let as_they_come = four(650.0, json!({}));
    let mean = |report: &Report| report.targets[0].latency.mean_s.expect("some came");
    assert!(mean(&report) < 1.1 * mean(&as_they_come), "{} and {}", mean(&report), mean(&as_they_come));
    assert_eq!(report.models[0].ejections, 0);
}

#[test]
fn copies_cut_the_tail_off_and_never_exceed_their_budget() {
    let stalls = json!({"spread": [[0.0, 0.8], [0.97, 1.2], [0.98, 30.0], [1.0, 30.0]]});
    let without = four(200.0, stalls.clone());
    let copied = four(200.0, with(stalls, json!({"hedge_budget": 0.05})));
    let p99 = |report: &Report| report.targets[0].latency.p99_s.expect("some came");
    assert!(p99(&copied) < 0.2 * p99(&without), "{} and {}", p99(&copied), p99(&without));
    let (copies, batches) = (copied.models[0].copies, copied.models[0].batches);
    assert!(copies > 0 && copies as f64 <= 0.05 * batches as f64 + 4.0, "{copies} of {batches}");
    assert_eq!(without.models[0].copies, 0);
}

#[test]
fn a_storm_of_slow_runs_draws_no_storm_of_copies() {
    let all_slow =
        json!({"spread": [[0.0, 0.3], [0.5, 0.3], [0.501, 1.7], [1.0, 1.7]], "hedge_budget": 0.05});
    let report = four(650.0, all_slow);
    let (copies, batches) = (report.models[0].copies, report.models[0].batches);
    assert!(copies as f64 <= 0.05 * batches as f64 + 4.0, "{copies} of {batches}");
}

#[test]
fn many_replicas_with_two_random_choices_carry_as_much_each_as_few_with_all() {
    let attainment = |replicas: u32| {
        let paces: Vec<f64> = (0..replicas).map(|replica| if replica % 3 == 0 { 1.6 } else { 1.0 }).collect();
        let model = with(
            model("m", 0.004, 0.0002),
            json!({"replicas": replicas, "slowness": paces, "overhead_batch_s": 0.0001,
                   "spread": [[0.0, 0.9], [0.9, 1.05], [1.0, 1.3]], "objective": {"latency_s": 0.025}}),
        );
        let rate = 1600.0 * f64::from(replicas);
        run(with(one_model(model, json!({"poisson": {"rate": rate}})), json!({"duration_s": 20.0}))).targets
            [0]
        .attainment
    };
    let (few, many) = (attainment(6), attainment(24));
    assert!(few > 0.98 && many > 0.98 && many > few - 0.005, "{few} of 6 and {many} of 24");
}

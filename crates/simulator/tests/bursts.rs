//! Bursts: how many requests are met, compared with the optimum.

use std::time::Duration;

use inferd_simulator::{Scenario, fewest_missed, simulate};
use serde_json::json;

/// Execution time of a batch: 1.3 ms and 0.0875 ms per row.
fn takes(rows: u32) -> f64 {
    0.0013 + 0.0000875 * f64::from(rows)
}

/// How many of `arrivals` are late with the default policy.
fn missed(arrivals: &[f64], rows_max: u32) -> u64 {
    let requests: Vec<_> = arrivals.iter().map(|at| (*at, 1, 0)).collect();
    let curve: Vec<_> = (1..=rows_max).map(|rows| (rows, takes(rows))).collect();
    let scenario: Scenario = serde_json::from_value(json!({
        "models": [{
            "name": "m", "curve": curve, "batch_rows_max": rows_max, "objective": {"latency_s": 0.025},
        }],
        "arrivals": [{"target": "m", "process": {"trace": {"requests": requests}}}],
        "duration_s": 100.0,
    }))
    .expect("a scenario");
    let report = simulate(&scenario, &mut |_| true).expect("a valid scenario");
    report.targets[0].requests - report.targets[0].met
}

fn fewest(arrivals: &[f64], rows_max: u32) -> u64 {
    let takes: Vec<_> = (1..=rows_max).map(|rows| Duration::from_secs_f64(takes(rows))).collect();
    let most = arrivals.len();
    fewest_missed(arrivals, &takes, Duration::from_millis(25), most).expect("all may be missed") as u64
}

#[test]
fn of_a_burst_on_an_idle_replica_as_many_are_met_as_can_be() {
    let burst = [1.0; 400];
    let (missed, fewest) = (missed(&burst, 128), fewest(&burst, 128));
    // Two batches of 128 end in time. The plan for a lasting load has batches of 112, of which two do.
    assert_eq!(fewest, 400 - 256);
    assert!(missed <= fewest + 8, "{missed} missed, {fewest} must be");
}

#[test]
fn more_bursts_are_met_in_larger_batches_and_little_is_left_to_gain() {
    // Repeatedly 150 at once, and 600 more within the 68 ms after.
    let second = |second: u32| {
        (0..10u32).flat_map(move |tenth| {
            let at = f64::from(second) + f64::from(tenth) / 10.0;
            let burst = std::iter::repeat_n(at, 150);
            burst.chain((0..600).map(move |later| at + 0.00001 + 0.04 * f64::from(later) / 600.0))
        })
    };
    let arrivals: Vec<f64> = (0..4).flat_map(second).map(|at| at * 1.7).collect();
    let small = missed(&arrivals, 32);
    let large = missed(&arrivals, 128);
    assert!(large * 2 < small, "{large} of {} missed, {small} in batches of 32", arrivals.len());
    let least = fewest(&arrivals, 128);
    assert!(large <= least + arrivals.len() as u64 / 20, "{large} missed, {least} must be");
}

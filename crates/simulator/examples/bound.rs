//! The highest rate at which a given fraction of requests is in time: for a clairvoyant scheduler, for our policy,
//! and for a fixed batch size and wait; all without a server's overhead.
//!
//! Reads JSON from standard input: `curve` (rows and seconds, ascending), `offsets` (lists of arrivals in seconds),
//! `objective_s`, `attainment`, `batch_rows_max` (several), `waits_s`. Writes JSON: by `batch_rows_max` the rates
//! `clairvoyant`, `ours` and `fixed` (the best of the waits), each with the fraction met. A rate stretches the
//! arrivals.

use std::error::Error;
use std::time::Duration;

use inferd_simulator::{Scenario, fewest_missed, simulate};
use serde::Deserialize;
use serde_json::{Value, json};

/// A step of the search.
const FINE: f64 = 1.02;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    curve: Vec<(u32, f64)>,
    offsets: Vec<Vec<f64>>,
    objective_s: f64,
    attainment: f64,
    batch_rows_max: Vec<u32>,
    waits_s: Vec<f64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let question: Question = serde_json::from_reader(std::io::stdin().lock())?;
    let mut found = serde_json::Map::new();
    for rows_max in question.batch_rows_max.iter().copied() {
        let takes: Vec<_> =
            (1..=rows_max).map(|rows| Duration::from_secs_f64(question.takes(rows))).collect();
        let clairvoyant = question.highest(&|arrivals| question.clairvoyant(arrivals, &takes));
        let ours = question.highest(&|arrivals| question.ours(arrivals, rows_max));
        let fixed = |wait: f64| question.highest(&|arrivals| question.fixed(arrivals, &takes, wait));
        let fixed = question
            .waits_s
            .iter()
            .map(|wait| (fixed(*wait), *wait))
            .max_by(|one, two| one.0.total_cmp(&two.0));
        let (fixed, wait_s) = fixed.unwrap_or_default();
        let rates =
            json!({ "clairvoyant": clairvoyant, "ours": ours, "fixed": fixed, "fixed_wait_s": wait_s });
        eprintln!("{rows_max} rows: {rates}");
        found.insert(rows_max.to_string(), rates);
    }
    println!("{}", Value::Object(found));
    Ok(())
}

impl Question {
    /// Execution time of a batch: linear between the points and beyond them.
    fn takes(&self, rows: u32) -> f64 {
        let right =
            self.curve.iter().position(|point| point.0 >= rows).unwrap_or(self.curve.len() - 1).max(1);
        let ((x0, y0), (x1, y1)) = (self.curve[right - 1], self.curve[right]);
        y0 + (y1 - y0) * (f64::from(rows) - f64::from(x0)) / (f64::from(x1) - f64::from(x0))
    }

    /// The highest rate at which enough of all arrivals are in time; `met` counts those of a list of arrivals.
    fn highest(&self, met: &dyn Fn(&[f64]) -> usize) -> f64 {
        let holds = |rate: f64| {
            let (mut sent, mut in_time) = (0, 0);
            for offsets in &self.offsets {
                let natural = offsets.len() as f64 / offsets.last().copied().unwrap_or(1.0);
                let stretched: Vec<f64> = offsets.iter().map(|at| at * natural / rate).collect();
                sent += stretched.len();
                in_time += met(&stretched);
            }
            in_time as f64 >= self.attainment * sent as f64
        };
        let (mut low, mut high) = (1.0, 2.0);
        while holds(high) {
            (low, high) = (high, high * 2.0);
        }
        while high / low > FINE {
            let middle = (low * high).sqrt();
            (low, high) = if holds(middle) { (middle, high) } else { (low, middle) };
        }
        low
    }

    fn clairvoyant(&self, arrivals: &[f64], takes: &[Duration]) -> usize {
        // Misses elsewhere may be compensated here: twice the fraction is searched for, no more.
        let most = (2.0 * (1.0 - self.attainment) * arrivals.len() as f64) as usize;
        let missed = fewest_missed(arrivals, takes, Duration::from_secs_f64(self.objective_s), most);
        missed.map_or(0, |missed| arrivals.len() - missed)
    }

    fn ours(&self, arrivals: &[f64], rows_max: u32) -> usize {
        let curve: Vec<_> = (1..=rows_max).map(|rows| (rows, self.takes(rows))).collect();
        let requests: Vec<_> = arrivals.iter().map(|at| (*at, 1, 0)).collect();
        let scenario = json!({
            "models": [{
                "name": "m",
                "curve": curve,
                "batch_rows_max": rows_max,
                "objective": { "latency_s": self.objective_s, "percentile": self.attainment * 100.0 },
            }],
            "arrivals": [{ "target": "m", "process": { "trace": { "requests": requests } } }],
            "duration_s": arrivals.last().copied().unwrap_or(0.0) + 1.0,
        });
        let scenario: Scenario = serde_json::from_value(scenario).expect("as documented");
        let report = simulate(&scenario, &mut |_| true).expect("a valid scenario");
        if std::env::args().any(|argument| argument == "--why") {
            let target = &report.targets[0];
            eprintln!(
                "  {:.0}/s: {} late, {} refused of {}, {:.1} rows each, busy {:.3}",
                arrivals.len() as f64 / arrivals.last().copied().unwrap_or(1.0),
                target.late,
                target.refused,
                target.requests,
                target.requests as f64 / report.models[0].batches as f64,
                report.models[0].utilisation,
            );
        }
        report.targets[0].met as usize
    }

    /// First come, first served: the first waits at most so long for a full batch, no request is refused.
    fn fixed(&self, arrivals: &[f64], takes: &[Duration], wait_s: f64) -> usize {
        let (mut free, mut first, mut met) = (0.0f64, 0, 0);
        while let Some(arrived) = arrivals.get(first).copied() {
            let begins = free.max(arrived);
            let full = arrivals.get(first + takes.len() - 1).copied();
            let starts = full.map_or(begins + wait_s, |full| full.max(begins).min(begins + wait_s));
            let come = arrivals[first..].partition_point(|at| *at <= starts);
            let rows = come.min(takes.len());
            free = starts + takes[rows - 1].as_secs_f64();
            met += arrivals[first..first + rows].iter().filter(|at| free <= **at + self.objective_s).count();
            first += rows;
        }
        met
    }
}

//! What a run saw, of the server and of the generator itself.
//!
//! Filled by `engine`, written as JSON. Judges nothing.

use std::time::Duration;

use serde::Serialize;

/// The server has said that it would be late.
const REFUSED: [u16; 3] = [429, 503, 504];
const OK: u16 = 200;

/// See the module. Times in seconds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Record {
    /// Of each good answer, from the intended time of sending, in the order in which they came.
    pub(crate) latencies_s: Vec<f64>,
    /// Answers by which the server said that it would be late.
    pub(crate) refused: u64,
    /// Everything else, and what was never answered.
    pub(crate) errors: u64,
    /// The first of the errors, in words.
    pub(crate) first_error: Option<String>,
    /// How long after its intended time each request had left, in the order of sending: quantiles.
    pub(crate) lateness_s: Lateness,
    /// What the generator itself needs for one request: sending it and reading its answer.
    pub(crate) own_request_s: f64,
    /// Connections that were opened.
    pub(crate) connections: u64,
}

/// Quantiles of how late requests left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Lateness {
    p50: f64,
    p99: f64,
    p999: f64,
    most: f64,
}

impl Record {
    pub(crate) fn answered(&mut self, status: u16, took: Duration) {
        match status {
            OK => self.latencies_s.push(took.as_secs_f64()),
            _ if REFUSED.contains(&status) => self.refused += 1,
            _ => self.failed(|| format!("answered {status}")),
        }
    }

    pub(crate) fn failed(&mut self, why: impl FnOnce() -> String) {
        self.errors += 1;
        self.first_error.get_or_insert_with(why);
    }
}

impl Lateness {
    pub(crate) fn of(mut late: Vec<Duration>) -> Lateness {
        late.sort_unstable();
        let quantile = |quantile: f64| {
            let at = ((quantile * late.len() as f64) as usize).min(late.len().saturating_sub(1));
            late.get(at).map_or(0.0, Duration::as_secs_f64)
        };
        Lateness { p50: quantile(0.5), p99: quantile(0.99), p999: quantile(0.999), most: quantile(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_no_errors_and_the_first_error_is_told() {
        let mut record = Record::default();
        for status in [200, 503, 429, 504, 500, 404] {
            record.answered(status, Duration::from_millis(2));
        }
        assert_eq!((record.latencies_s.as_slice(), record.refused, record.errors), (&[0.002][..], 3, 2));
        assert_eq!(record.first_error.as_deref(), Some("answered 500"));
    }

    #[test]
    fn lateness_is_told_by_quantiles() {
        let late = (0..1000).rev().map(Duration::from_micros).collect();
        let told = Lateness::of(late);
        assert_eq!((told.p50, told.p99, told.p999, told.most), (0.0005, 0.00099, 0.000999, 0.000999));
        assert_eq!(Lateness::of(Vec::new()), Lateness::default());
    }
}

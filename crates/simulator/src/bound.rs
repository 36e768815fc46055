//! A lower bound: the fewest misses of any policy, by a clairvoyant schedule.
//!
//! Reads arrivals and execution times, hands on the number of requests that must be missed. Knows nothing of
//! schedulers, which are compared with it.
//!
//! Requests are alike, so that earlier arrivals are due earlier, and some optimal schedule runs them in that order
//! (exchanging two that are out of order makes neither late), drops none from the middle of a batch (its first may
//! be dropped instead, which gives it more time), and never gains by ending later. So the earliest end after each
//! number of requests, for each number of dropped ones, is sufficient: a dynamic program.

use std::collections::VecDeque;
use std::time::Duration;

/// The earliest ends after some number of requests, by the number of dropped ones, from `least` on. Omitted numbers
/// are impossible, or gain nothing.
#[derive(Debug, Default)]
struct Ends {
    least: usize,
    at: Vec<f64>,
}

/// The fewest of `arrivals` (seconds, ascending) that one replica must miss, if a batch of *b* takes `takes[b - 1]`
/// (not less than a smaller one) and each request is due `objective` after its arrival; `None` if that is more than
/// `misses_max`.
pub fn fewest_missed(
    arrivals: &[f64],
    takes: &[Duration],
    objective: Duration,
    misses_max: usize,
) -> Option<usize> {
    let takes: Vec<f64> = takes.iter().map(Duration::as_secs_f64).collect();
    let objective = objective.as_secs_f64();
    let mut seen = VecDeque::from([Ends { least: 0, at: vec![0.0] }]);
    let mut spare = Vec::new();
    for (at, arrived) in arrivals.iter().copied().enumerate() {
        let before = seen.back()?;
        let mut next = Ends { least: before.least, at: std::mem::take(&mut spare) };
        next.at.clear();
        next.at.push(f64::INFINITY);
        next.at.extend_from_slice(&before.at);
        for (from, (first, takes)) in seen.iter().rev().zip(arrivals[..=at].iter().rev().zip(&takes)) {
            let limit = first + objective;
            if arrived + takes > limit {
                break;
            }
            // Fewer drops than among the requests before are impossible.
            let skip = next.least - from.least;
            let ends = from.at.get(skip..).unwrap_or_default();
            if next.at.len() < ends.len() {
                next.at.resize(ends.len(), f64::INFINITY);
            }
            for (end, before) in next.at.iter_mut().zip(ends) {
                let ended = before.max(arrived) + takes;
                *end = if ended <= limit { end.min(ended) } else { *end };
            }
        }
        let impossible = next.at.iter().take_while(|end| end.is_infinite()).count();
        next.at.drain(..impossible);
        next.least += impossible;
        // A replica that is idle at the next arrival gains nothing by more drops.
        let coming = arrivals.get(at + 1).copied().unwrap_or(f64::INFINITY);
        let idle = next.at.iter().position(|end| *end <= coming);
        let most = (misses_max + 1).saturating_sub(next.least);
        next.at.truncate(idle.map_or(most, |idle| most.min(idle + 1)));
        if next.at.is_empty() {
            return None;
        }
        if seen.len() == takes.len() {
            spare = seen.pop_front().unwrap_or_default().at;
        }
        seen.push_back(next);
    }
    seen.back().map(|ends| ends.least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn millis(takes: &[u64]) -> Vec<Duration> {
        takes.iter().map(|millis| Duration::from_millis(*millis)).collect()
    }

    #[test]
    fn requests_that_arrive_together_run_together_or_are_missed() {
        let objective = Duration::from_millis(10);
        let four = [0.0; 4];
        assert_eq!(fewest_missed(&four, &millis(&[4, 5, 6, 7]), objective, 4), Some(0));
        assert_eq!(fewest_missed(&four, &millis(&[4]), objective, 4), Some(2));
        assert_eq!(fewest_missed(&four, &millis(&[4]), objective, 1), None);
        assert_eq!(fewest_missed(&four, &millis(&[11]), objective, 4), Some(4));
        // The second does not wait: with the third, it would be late.
        assert_eq!(fewest_missed(&[0.0, 0.001, 0.009], &millis(&[4, 5, 6]), objective, 3), Some(0));
        assert_eq!(fewest_missed(&[], &millis(&[4]), objective, 0), Some(0));
    }

    /// The best of every way to drop requests and to divide the rest into batches.
    fn tried(arrivals: &[f64], takes: &[f64], objective: f64, free: f64) -> usize {
        let Some(first) = arrivals.first() else { return 0 };
        let mut best = 1 + tried(&arrivals[1..], takes, objective, free);
        // Any set of those that have arrived, led by the first, may be the next batch.
        for chosen in (1u32..1 << arrivals.len()).step_by(2) {
            let members: Vec<_> = (0..arrivals.len()).filter(|at| chosen >> at & 1 == 1).collect();
            let Some(takes_so_long) = takes.get(members.len() - 1) else { continue };
            let end = free.max(arrivals[members[members.len() - 1]]) + takes_so_long;
            if end <= first + objective {
                let left: Vec<_> =
                    (0..arrivals.len()).filter(|at| chosen >> at & 1 == 0).map(|at| arrivals[at]).collect();
                best = best.min(tried(&left, takes, objective, end));
            }
        }
        best
    }

    #[test]
    fn no_way_of_running_them_meets_more() {
        let mut random = Random::new(1, 0);
        for _ in 0..300 {
            let mut at = 0.0;
            let mut next = || {
                at += random.unit() * random.unit() * 6.0;
                at
            };
            let arrivals: Vec<f64> = (0..7).map(|_| next()).collect();
            let takes = [2.0, 2.0 + random.unit(), 3.0 + random.unit()];
            let objective = 4.0 + 4.0 * random.unit();
            let durations: Vec<_> = takes.iter().map(|takes| Duration::from_secs_f64(*takes)).collect();
            let found = fewest_missed(&arrivals, &durations, Duration::from_secs_f64(objective), 7);
            assert_eq!(
                found,
                Some(tried(&arrivals, &takes, objective, 0.0)),
                "{arrivals:?} {takes:?} {objective}"
            );
        }
    }
}

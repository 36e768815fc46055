//! Arrivals: all sources as one stream in the order of time.
//!
//! Reads processes and a seed, hands on arrivals one by one. Knows nothing of what becomes of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use inferd_types::Time;

use crate::random::Random;
use crate::scenario::{Process, Source, seconds};

/// One arrival.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Coming {
    pub(crate) at: Time,
    /// The index of its source.
    pub(crate) source: usize,
    pub(crate) rows: u32,
    pub(crate) tenant: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Arrivals {
    streams: Vec<Stream>,
    /// The next arrival of each stream.
    next: BinaryHeap<Reverse<(Time, usize)>>,
    ends: Time,
}

#[derive(Debug)]
struct Stream {
    process: Process,
    rows: u32,
    random: Random,
    /// Time of the next one, in seconds.
    at: f64,
    given: usize,
}

impl Arrivals {
    /// All that `sources` send before `duration_s`.
    pub(crate) fn new(sources: &[Source], seed: u64, duration_s: f64) -> Arrivals {
        let mut arrivals =
            Arrivals { streams: Vec::new(), next: BinaryHeap::new(), ends: Time::ZERO + seconds(duration_s) };
        for (number, source) in sources.iter().enumerate() {
            let random = Random::new(seed, number as u64 + 1000);
            let process = source.process.clone();
            arrivals.streams.push(Stream { process, rows: source.rows, random, at: 0.0, given: 0 });
            arrivals.advance(number);
        }
        arrivals
    }

    /// The time of the next one.
    pub(crate) fn peek(&self) -> Option<Time> {
        self.next.peek().map(|Reverse((at, _))| *at)
    }

    /// The next one.
    pub(crate) fn take(&mut self) -> Option<Coming> {
        let Reverse((at, source)) = self.next.pop()?;
        let stream = &self.streams[source];
        let (rows, tenant) = match &stream.process {
            Process::Trace { requests } => (requests[stream.given - 1].1, requests[stream.given - 1].2),
            _ => (stream.rows, 0),
        };
        self.advance(source);
        Some(Coming { at, source, rows, tenant })
    }

    fn advance(&mut self, source: usize) {
        if let Some(at) = self.streams[source].step() {
            let at = Time::ZERO + seconds(at);
            if at < self.ends {
                self.next.push(Reverse((at, source)));
            }
        }
    }
}

impl Stream {
    fn step(&mut self) -> Option<f64> {
        self.given += 1;
        match &self.process {
            Process::Poisson { rate } => self.at += self.random.exponential() / rate,
            Process::Gamma { rate, cv } => self.at += self.random.gamma(1.0 / (cv * cv)) / rate,
            Process::AtOnce { count } => return (self.given as u64 <= *count).then_some(0.0),
            Process::Trace { requests } => return requests.get(self.given - 1).map(|request| request.0),
        }
        Some(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(process: Process) -> Source {
        Source { target: "m".into(), process, rows: 1 }
    }

    fn all(sources: &[Source], duration_s: f64) -> Vec<Coming> {
        let mut arrivals = Arrivals::new(sources, 7, duration_s);
        std::iter::from_fn(|| arrivals.take()).collect()
    }

    #[test]
    fn sources_are_merged_in_the_order_of_time() {
        let trace = vec![(0.5, 3, 1), (0.5, 1, 2), (2.0, 1, 0), (9.0, 1, 0)];
        let sources = [source(Process::Trace { requests: trace }), source(Process::AtOnce { count: 2 })];
        let coming: Vec<_> =
            all(&sources, 5.0).iter().map(|one| (one.source, one.rows, one.tenant)).collect();
        assert_eq!(coming, [(1, 1, 0), (1, 1, 0), (0, 3, 1), (0, 1, 2), (0, 1, 0)]);
    }

    #[test]
    fn rates_and_burstiness_are_as_configured() {
        for (process, cv) in
            [(Process::Poisson { rate: 500.0 }, 1.0), (Process::Gamma { rate: 500.0, cv: 4.0 }, 4.0)]
        {
            let coming = all(&[source(process)], 400.0);
            assert!((coming.len() as f64 / 200_000.0 - 1.0).abs() < 0.05, "{}", coming.len());
            let gaps: Vec<f64> =
                coming.windows(2).map(|two| two[1].at.since(two[0].at).as_secs_f64() * 500.0).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            assert!((variance.sqrt() / mean / cv - 1.0).abs() < 0.05, "{}", variance.sqrt() / mean);
        }
    }
}

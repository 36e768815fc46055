//! Scheduling policies by name: the default, and those of published systems for comparison.
//!
//! Reads names, hands on batch rules. Knows nothing of steps and times.
//!
//! The others: equal division, static weights, TimeTrader (the step at hand gets all that remains) and GrandSLAm
//! (Kannan et al., EuroSys 2019).

use std::fmt;
use std::str::FromStr;

use crate::message::BatchRule;

/// How a pipeline's objective is divided among its steps, and how each step forms batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Each step gets an equal part; batches of one.
    EqualDivision,
    /// Each step gets its share, and what earlier steps left; batches of one.
    StaticWeighted,
    /// Each step gets all that remains; batches of a fixed size.
    TimetraderFixed(u32),
    /// Each step gets all that remains; the largest batch that fits it.
    TimetraderDynamic,
    /// Shares as in `StaticWeighted`; the largest batch that fits the time left to its head.
    Grandslam,
    /// Each step gets what remains after the present time of later steps, including queueing. The default.
    #[default]
    Slack,
}

impl Policy {
    /// One of each, with the fixed batch sizes that are compared.
    pub const ALL: [Policy; 9] = [
        Policy::EqualDivision,
        Policy::StaticWeighted,
        Policy::TimetraderFixed(1),
        Policy::TimetraderFixed(10),
        Policy::TimetraderFixed(30),
        Policy::TimetraderFixed(50),
        Policy::TimetraderDynamic,
        Policy::Grandslam,
        Policy::Slack,
    ];

    /// How the steps' schedulers form batches.
    pub const fn batch_rule(self) -> BatchRule {
        match self {
            Policy::EqualDivision | Policy::StaticWeighted => BatchRule::One,
            Policy::TimetraderFixed(rows) => BatchRule::Fixed(rows),
            Policy::TimetraderDynamic | Policy::Grandslam => BatchRule::LargestThatFits,
            Policy::Slack => BatchRule::Slack,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::EqualDivision => f.write_str("equal_division"),
            Policy::StaticWeighted => f.write_str("static_weighted"),
            Policy::TimetraderFixed(rows) => write!(f, "timetrader_fixed_{rows}"),
            Policy::TimetraderDynamic => f.write_str("timetrader_dynamic"),
            Policy::Grandslam => f.write_str("grandslam"),
            Policy::Slack => f.write_str("slack"),
        }
    }
}

/// A name of no policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPolicy(String);

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Policy::ALL.iter().map(Policy::to_string).collect();
        write!(f, "unknown policy '{}'; known are {}", self.0, names.join(", "))
    }
}

impl std::error::Error for UnknownPolicy {}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Policy, UnknownPolicy> {
        let fixed = name.strip_prefix("timetrader_fixed_").and_then(|rows| rows.parse().ok());
        if let Some(rows) = fixed.filter(|rows| *rows > 0) {
            return Ok(Policy::TimetraderFixed(rows));
        }
        let known = Policy::ALL.into_iter().find(|policy| policy.to_string() == name);
        known.ok_or_else(|| UnknownPolicy(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_has_a_name_that_reads_back() {
        for policy in Policy::ALL.into_iter().chain([Policy::TimetraderFixed(7)]) {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        let fault = "timetrader_fixed_0".parse::<Policy>().expect_err("no batch of nothing").to_string();
        assert!(fault.contains("timetrader_fixed_0") && fault.contains("grandslam"), "{fault}");
    }
}

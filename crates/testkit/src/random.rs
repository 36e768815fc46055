//! Reproducible random numbers.

use std::time::Duration;

/// A small generator (xorshift), so that a seed replays exactly.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next of its numbers.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// In [0, `end`).
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Exponentially distributed.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.unit()).ln())
    }
}

//! A quantile sketch of the ratio of execution times to their mean.
//!
//! Reads ratios, hands on quantiles with an error below 3 %. Knows nothing of rows or of time.

/// Bins per octave.
const PER_OCTAVE: f64 = 24.0;
/// The lowest bin is that of the ratio 2⁻².
const LOWEST: f64 = -2.0;
/// Eight octaves: ratios from 1/4 to 64; values outside count at the edges.
const BINS: usize = 192;
/// Weight of each ratio relative to the one before: about five hundred count.
const GROWTH: f64 = 1.002;

/// See the module. Old ratios decay.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    bins: [f64; BINS],
    total: f64,
    /// Weight of the next ratio.
    weight: f64,
}

impl Spread {
    /// Begins with a prior (mostly 1, rarely 1.4) worth ten ratios, so that the first few do not decide alone.
    pub(crate) fn new() -> Self {
        let mut spread = Spread { bins: [0.0; BINS], total: 0.0, weight: 1.0 };
        for (ratio, weight) in [(1.0, 8.0), (1.15, 1.5), (1.4, 0.5)] {
            spread.bins[bin(ratio)] += weight;
            spread.total += weight;
        }
        spread
    }

    /// Adds one ratio.
    pub(crate) fn record(&mut self, ratio: f64) {
        self.bins[bin(ratio)] += self.weight;
        self.total += self.weight;
        self.weight *= GROWTH;
        if self.weight > 1e12 {
            let scale = 1.0 / self.weight;
            self.bins.iter_mut().for_each(|bin| *bin *= scale);
            self.total *= scale;
            self.weight = 1.0;
        }
    }

    /// The ratio that the fraction `quantile` of all ratios is below.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        let wanted = self.total * quantile.clamp(0.0, 1.0);
        let mut seen = 0.0;
        for (index, weight) in self.bins.iter().enumerate() {
            seen += weight;
            if seen >= wanted && *weight > 0.0 {
                return (index as f64 / PER_OCTAVE + LOWEST).exp2();
            }
        }
        1.0
    }
}

fn bin(ratio: f64) -> usize {
    // A ratio of 0 or NaN goes to the lowest bin: `as` saturates.
    let place = (ratio.log2() - LOWEST) * PER_OCTAVE + 0.5;
    (place.max(0.0) as usize).min(BINS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_three_percent_and_the_old_fades() {
        let mut spread = Spread::new();
        for step in 0..20_000 {
            spread.record(1.0 + f64::from(step % 100) / 100.0);
        }
        for (quantile, expected) in [(0.5, 1.5), (0.9, 1.9), (0.99, 1.99)] {
            let found = spread.quantile(quantile);
            assert!((found / expected - 1.0).abs() < 0.03, "{quantile}: {found}");
        }
        for _ in 0..5_000 {
            spread.record(3.0);
        }
        assert!((spread.quantile(0.01) / 3.0 - 1.0).abs() < 0.03);
    }

    #[test]
    fn invalid_ratios_count_at_the_edges() {
        let mut spread = Spread::new();
        for ratio in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            spread.record(ratio);
        }
        assert!(spread.quantile(1.0) > 60.0 && spread.quantile(0.0) < 0.3);
    }
}

//! Random numbers from a seed: equal seeds give equal numbers.
//!
//! Reads only its seed, hands on numbers. Knows nothing of their use.

/// A stream of random numbers (splitmix64: Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Stream `number` of `seed`: streams of one seed are independent, so that draws of one part of a simulation
    /// change nothing elsewhere.
    pub(crate) fn new(seed: u64, number: u64) -> Random {
        let mut random = Random(seed ^ number.wrapping_mul(0xA076_1D64_78BD_642F));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A value of a distribution given as quantiles and values, both ascending; `None` if it is empty.
    pub(crate) fn value(&mut self, quantiles: &[(f64, f64)]) -> Option<f64> {
        let (first, last) = (quantiles.first()?, quantiles.last()?);
        let unit = self.unit();
        let right = quantiles.partition_point(|(quantile, _)| *quantile < unit);
        let Some((x1, y1)) = quantiles.get(right) else { return Some(last.1) };
        let Some((x0, y0)) = right.checked_sub(1).map(|left| quantiles[left]) else { return Some(first.1) };
        Some(y0 + (y1 - y0) * (unit - x0) / (x1 - x0))
    }

    /// Exponential with mean 1.
    pub(crate) fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// Normal with mean 0 and variance 1 (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        (2.0 * self.exponential()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Gamma with this shape and mean 1 (Marsaglia and Tsang 2000).
    pub(crate) fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let rise = (1.0 - self.unit()).powf(1.0 / shape);
            return self.gamma(shape + 1.0) * (shape + 1.0) / shape * rise;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let normal = self.normal();
            let v = (1.0 + c * normal).powi(3);
            if v > 0.0 && -self.exponential() < 0.5 * normal * normal + d * (1.0 - v + v.ln()) {
                return d * v / shape;
            }
        }
    }

    /// An index into `weights`, with probability proportional to its weight.
    pub(crate) fn choose(&mut self, weights: &[f64]) -> usize {
        let mut left = self.unit() * weights.iter().sum::<f64>();
        for (index, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return index;
            }
        }
        weights.len().saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(draw: impl FnMut() -> f64) -> (f64, f64) {
        let draws: Vec<f64> = std::iter::repeat_with(draw).take(400_000).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        (mean, variance)
    }

    #[test]
    fn draws_have_the_mean_and_the_variance_of_their_distribution() {
        let mut random = Random::new(1, 1);
        let near = |found: (f64, f64), mean: f64, variance: f64| {
            assert!((found.0 - mean).abs() < 0.03 && (found.1 / variance - 1.0).abs() < 0.06, "{found:?}");
        };
        near(moments(|| random.unit()), 0.5, 1.0 / 12.0);
        near(moments(|| random.exponential()), 1.0, 1.0);
        near(moments(|| random.normal()), 0.0, 1.0);
        near(moments(|| random.gamma(4.0)), 1.0, 0.25);
        // A coefficient of variation of 4.
        near(moments(|| random.gamma(1.0 / 16.0)), 1.0, 16.0);
    }

    #[test]
    fn choices_fall_as_they_weigh_and_streams_differ() {
        let mut random = Random::new(1, 1);
        let second = (0..10_000).filter(|_| random.choose(&[3.0, 1.0]) == 1).count();
        assert!((2_300..2_700).contains(&second), "{second}");
        assert_ne!(Random::new(1, 1).next(), Random::new(1, 2).next());
        assert_eq!(Random::new(9, 1).next(), Random::new(9, 1).next());
    }
}

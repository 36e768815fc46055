//! Measurements of each batch size: a moving mean, and the line through all of them.
//!
//! Reads single runs, hands on means. Knows nothing of sizes that were never run.

/// Minimum weight of a new run in its size's mean.
const STEP_MIN: f64 = 0.05;
/// Longer runs count as this many means: a page fault storm must not change the mean at once, while a lasting
/// change does within a few runs.
pub(crate) const CLIP: f64 = 3.0;

/// One batch size.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Point {
    /// Nanoseconds; 0: unknown.
    pub(crate) mean: f64,
    /// Number of measured runs.
    pub(crate) samples: u64,
    /// Whether it comes from a profile.
    pub(crate) given: bool,
    /// The number of the run in which it was last measured.
    pub(crate) seen: u64,
}

impl Point {
    /// Whether it rests on more than one run.
    pub(crate) fn is_firm(&self) -> bool {
        self.given || self.samples != 1
    }

    /// Records a run, the `run`th of all.
    pub(crate) fn learn(&mut self, time: f64, run: u64) {
        self.seen = run;
        self.samples += 1;
        if self.samples == 1 || (self.samples == 2 && time < self.mean / 2.0) {
            // The first run of a size often includes allocations that later ones don't. A profile counts as a
            // reliable first run.
            self.mean = if self.mean > 0.0 && self.samples == 1 { (self.mean + time) / 2.0 } else { time };
            return;
        }
        let step = (1.0 / self.samples as f64).max(STEP_MIN);
        let time = if self.samples > 3 { time.min(self.mean * CLIP) } else { time };
        self.mean += step * (time - self.mean);
    }
}

/// Makes the means of (rows, mean, weight) rise with the rows: neighbours that fall get their common mean (isotonic
/// regression by pooling adjacent violators, Ayer et al. 1955). A size that was run rarely, with luck, would
/// otherwise look like the best and be planned with.
pub(crate) fn never_falling(known: &mut [(f64, f64, f64)]) {
    // (mean, weight, count) of runs of neighbours, whose means rise.
    let mut pools: Vec<(f64, f64, usize)> = Vec::with_capacity(known.len());
    for (_, mean, weight) in known.iter() {
        let mut pool = (*mean, *weight, 1);
        while let Some(before) = pools.pop_if(|before| before.0 > pool.0) {
            let weight = before.1 + pool.1;
            pool = ((before.0 * before.1 + pool.0 * pool.1) / weight, weight, before.2 + pool.2);
        }
        pools.push(pool);
    }
    let means = pools.iter().flat_map(|(mean, _, count)| std::iter::repeat_n(*mean, *count));
    known.iter_mut().zip(means).for_each(|(point, mean)| point.1 = mean);
}

/// Weighted least squares through (rows, mean, weight), never negative; through the origin if there is one point.
pub(crate) fn slope(known: &[(f64, f64, f64)]) -> f64 {
    if let [(rows, mean, _)] = known {
        return mean / rows;
    }
    let total: f64 = known.iter().map(|(_, _, weight)| weight).sum();
    let rows_mean = known.iter().map(|(rows, _, weight)| rows * weight).sum::<f64>() / total;
    let time_mean = known.iter().map(|(_, time, weight)| time * weight).sum::<f64>() / total;
    let (mut product, mut square) = (0.0, 0.0);
    for (rows, time, weight) in known {
        product += weight * (rows - rows_mean) * (time - time_mean);
        square += weight * (rows - rows_mean) * (rows - rows_mean);
    }
    (product / square).max(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lucky_size_is_pooled_with_its_neighbours_and_hardly_moves_them() {
        let mut known = vec![(6.0, 300.0, 20.0), (8.0, 190.0, 1.0), (12.0, 450.0, 20.0)];
        never_falling(&mut known);
        assert!((290.0..300.0).contains(&known[1].1) && known[0].1 == known[1].1, "{known:?}");
        assert_eq!(known[2].1, 450.0);
    }

    proptest! {
        #[test]
        fn means_never_fall_and_keep_their_weighted_sum(
            points in prop::collection::vec((1.0..1e6f64, 1.0..20.0f64), 1..60),
        ) {
            let mut known: Vec<_> =
                points.iter().enumerate().map(|(at, (mean, weight))| (at as f64, *mean, *weight)).collect();
            never_falling(&mut known);
            prop_assert!(known.is_sorted_by(|one, next| one.1 <= next.1));
            let before: f64 = points.iter().map(|(mean, weight)| mean * weight).sum();
            let after: f64 = known.iter().map(|(_, mean, weight)| mean * weight).sum();
            prop_assert!((after / before - 1.0).abs() < 1e-9);
        }
    }
}

//! The machine's present speed: recent execution times of all runs, relative to the learned curve.
//!
//! Reads ratios of single runs to the curve, hands on the level expected of the next runs. Knows nothing of rows.
//!
//! A core that is shared or throttled is slower for seconds or minutes, and for batches of all sizes alike. Each
//! size's own mean would follow only run by run of that size, and the difference would look like spread: plans
//! would leave time for what is not going to happen.

/// Weight of one run in the moving mean.
const STEP: f64 = 0.2;
/// The fraction (of its logarithm) of the drift that remains, on average, when a queued request runs. Values of 0.5
/// to 0.7 met most deadlines with the runs of two machines, replayed at loads from a third of capacity to all of
/// it; smaller ones refused too few requests in slow times, larger ones too many.
const LASTS: f64 = 0.6;
/// Longer runs count as this many times the mean: a stall is no level.
const CLIP: f64 = 1.5;
/// Number of ratios kept, in order.
const RECENT: usize = 2048;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Drift {
    /// Moving mean of the logarithm of ratios.
    mean: f64,
    level: f64,
    /// The last ratios, as a ring buffer that begins at `oldest` once it is full.
    recent: Vec<f32>,
    oldest: usize,
}

impl Drift {
    pub(crate) fn new() -> Self {
        Drift { mean: 1.0, level: 1.0, recent: Vec::new(), oldest: 0 }
    }

    /// The expected ratio of a run now to the curve.
    pub(crate) fn level(&self) -> f64 {
        self.level
    }

    /// Records a run that took `ratio` times what the curve predicts.
    pub(crate) fn record(&mut self, ratio: f64) {
        self.keep(ratio);
        self.mean += STEP * (ratio.min(CLIP * self.mean) - self.mean);
        self.level = self.mean.powf(LASTS);
    }

    /// The last ratios, oldest first.
    pub(crate) fn recent(&self) -> impl Iterator<Item = f64> {
        let (newer, older) = self.recent.split_at(self.oldest);
        older.iter().chain(newer).map(|ratio| f64::from(*ratio) / self.level)
    }

    fn keep(&mut self, ratio: f64) {
        if self.recent.len() < RECENT {
            self.recent.push(ratio as f32);
        } else {
            self.recent[self.oldest] = ratio as f32;
            self.oldest = (self.oldest + 1) % RECENT;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers around 1, with a deviation of up to `by`.
    fn noise(by: f64) -> impl Iterator<Item = f64> {
        let mut state = 7u64;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            1.0 + by * ((state >> 11) as f64 / (1u64 << 52) as f64 - 1.0)
        })
    }

    #[test]
    fn a_machine_that_becomes_slower_is_followed_within_a_few_runs() {
        let mut drift = Drift::new();
        noise(0.05).take(1000).for_each(|ratio| drift.record(ratio));
        assert!((0.97..1.03).contains(&drift.level()), "{}", drift.level());
        noise(0.05).take(15).for_each(|ratio| drift.record(2.0 * ratio));
        assert!((1.35..1.6).contains(&drift.level()), "{}", drift.level());
    }

    #[test]
    fn what_is_chance_is_hardly_followed() {
        let mut drift = Drift::new();
        let levels = noise(0.3).take(5000).map(|ratio| {
            drift.record(ratio);
            drift.level()
        });
        let (sum, squares) =
            levels.fold((0.0, 0.0), |(sum, squares), level| (sum + level, squares + level * level));
        let deviation = (squares / 5000.0 - (sum / 5000.0f64).powi(2)).sqrt();
        assert!(deviation < 0.2 * 0.3, "{deviation}");
    }

    #[test]
    fn a_stall_moves_little_and_the_last_ratios_are_kept_in_order() {
        let mut drift = Drift::new();
        (0..3000).for_each(|_| drift.record(1.0));
        drift.record(50.0);
        assert!(drift.level() < 1.25, "{}", drift.level());
        let recent: Vec<f64> = drift.recent().collect();
        assert_eq!(recent.len(), RECENT);
        assert!(recent[..RECENT - 1].iter().all(|ratio| *ratio < 1.01) && recent[RECENT - 1] > 30.0);
    }
}

//! What was measured of each size of batches: a moving mean, and the line through all of them.
//!
//! Reads single runs. Knows nothing of sizes that were never run.

/// How much a new run moves its size's mean, at least.
const STEP_MIN: f64 = 0.05;
/// A run longer than this many means counts as this many: one page fault storm must not be believed at once, while
/// a lasting change still is, within a few runs.
pub(crate) const CLIP: f64 = 3.0;

/// One size of batches.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Point {
    /// Nanoseconds; 0: not known.
    pub(crate) mean: f64,
    /// Runs that were measured.
    pub(crate) samples: u64,
    /// The run that it was last seen in.
    pub(crate) seen: u64,
}

impl Point {
    /// Takes in a run, the `run`th of all.
    pub(crate) fn learn(&mut self, time: f64, run: u64) {
        self.seen = run;
        self.samples += 1;
        if self.samples == 1 || (self.samples == 2 && time < self.mean / 2.0) {
            // The first run of a size often pays for allocations that no later one does. A profile counts as a
            // first run that is believed.
            self.mean = if self.mean > 0.0 && self.samples == 1 { (self.mean + time) / 2.0 } else { time };
            return;
        }
        let step = (1.0 / self.samples as f64).max(STEP_MIN);
        let time = if self.samples > 3 { time.min(self.mean * CLIP) } else { time };
        self.mean += step * (time - self.mean);
    }
}

/// Weighted least squares through (rows, mean, weight), never falling; through the origin if there is one point.
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

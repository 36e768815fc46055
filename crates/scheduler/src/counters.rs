//! Counters for snapshots.
//!
//! Reads arrivals, refusals and batches, hands on totals and moving means. Decides nothing.

use inferd_types::Time;

use crate::message::Refusal;

/// Number of batches in the histogram of recent sizes.
const RECENT: usize = 256;
/// Weight of one batch in the moving mean of sizes.
const ROWS_STEP: f64 = 0.1;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) arrivals: u64,
    pub(crate) demoted: u64,
    pub(crate) missed: u64,
    pub(crate) hedges: u64,
    pub(crate) ejections: u64,
    /// Batches that lingered, and until when the last of them did.
    pub(crate) lingers: u64,
    lingering: Option<Time>,
    pub(crate) refusals: [u64; Refusal::ALL.len()],
    /// Rows of the last batches, as a ring buffer.
    pub(crate) recent: Vec<u32>,
    next: usize,
    /// Moving means of the rows per batch and of their square.
    rows: f64,
    square: f64,
}

impl Counters {
    /// Records a batch that ran.
    pub(crate) fn batch(&mut self, rows: u32) {
        let step = if self.recent.is_empty() { 1.0 } else { ROWS_STEP };
        let size = f64::from(rows);
        self.rows += step * (size - self.rows);
        self.square += step * (size * size - self.square);
        if self.recent.len() < RECENT {
            self.recent.push(rows);
        } else {
            self.recent[self.next] = rows;
            self.next = (self.next + 1) % RECENT;
        }
    }

    /// Records that a batch lingers until then; repeated at every decision meanwhile.
    pub(crate) fn lingers(&mut self, until: Time) {
        self.lingers += u64::from(self.lingering != Some(until));
        self.lingering = Some(until);
    }

    /// Mean size of the batch that a row was in, recently; 0 before the first. Large batches have more rows, so the
    /// mean over batches would be too small.
    pub(crate) fn rows(&self) -> f64 {
        if self.rows > 0.0 { self.square / self.rows } else { 0.0 }
    }
}

//! What snapshots count.
//!
//! Reads arrivals, refusals and batches as they happen. Decides nothing.

use inferd_types::Time;

use crate::message::Refusal;

/// Batches that the histogram of recent sizes counts.
const RECENT: usize = 256;
/// How much one batch moves the mean of recent sizes.
const ROWS_STEP: f64 = 0.1;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) arrivals: u64,
    pub(crate) demoted: u64,
    pub(crate) missed: u64,
    pub(crate) hedges: u64,
    pub(crate) ejections: u64,
    /// Batches that were held for callers about to return, and until when the last of them was.
    pub(crate) lingers: u64,
    lingering: Option<Time>,
    pub(crate) refusals: [u64; Refusal::ALL.len()],
    /// Rows of the last batches, as a ring.
    pub(crate) recent: Vec<u32>,
    next: usize,
    /// Moving means of the rows of a batch and of their square.
    rows: f64,
    square: f64,
}

impl Counters {
    /// A batch has run.
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

    /// A batch is held until then; said anew whenever something comes meanwhile.
    pub(crate) fn lingers(&mut self, until: Time) {
        self.lingers += u64::from(self.lingering != Some(until));
        self.lingering = Some(until);
    }

    /// The batch that a row found itself in lately, on average; 0 while none ran. Large batches have more rows to
    /// find themselves there: the mean over batches would be too small.
    pub(crate) fn rows(&self) -> f64 {
        if self.rows > 0.0 { self.square / self.rows } else { 0.0 }
    }
}

//! Batches: which requests run together, when and where.
//!
//! `forming` fills a batch from the heads of the queues (`heads`); `waiting` says what is better left waiting for a moment,
//! `returning` whether callers come back at once; `rules` forms batches as other systems do, for comparison.

pub(crate) mod forming;
pub(crate) mod heads;
pub(crate) mod returning;
pub(crate) mod rules;
pub(crate) mod waiting;

//! Batch forming: which requests run together, when and where.
//!
//! `forming` fills a batch behind the queue's head (`heads`); `waiting` decides what waits for more rows,
//! `returning` whether callers in closed loops are about to send them; `rules` forms batches by published rules,
//! for comparison.

pub(crate) mod forming;
pub(crate) mod heads;
pub(crate) mod returning;
pub(crate) mod rules;
pub(crate) mod waiting;

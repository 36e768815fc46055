//! What operators see: metrics, logs, spans.
//!
//! Reads what happened, hands out text, lines and spans. Changes nothing.

pub(crate) mod failures;
pub(crate) mod logging;
pub(crate) mod metrics;
pub(crate) mod scrape;
pub(crate) mod spans;

//! Whole workers, for real: this test program starts itself again as a worker process.
//!
//! `process_entry` is what the child runs; `load` says how it behaves.

mod batches;
mod child;
mod descendants;
mod faults;
mod hostile;
mod life;
mod streams;
mod support;
mod zygotes;

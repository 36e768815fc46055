//! Tests with real worker processes: this test program starts itself as a worker.
//!
//! `process_entry` is what the child runs; `load` determines how it behaves.

mod batches;
mod child;
mod descendants;
mod faults;
mod hostile;
mod life;
mod streams;
mod support;
mod zygotes;

//! Decides which requests run next, on which replica, in which batch.
//!
//! Reads events from `dispatcher`, hands on actions for it to carry out. Knows nothing of clocks, sockets, tasks or
//! Python: time arrives as an argument.
#![forbid(unsafe_code)]

mod admission;
mod batching;
mod counters;
mod latency;
mod message;
pub mod pipeline;
mod queue;
mod replicas;
mod scheduler;
mod snapshot;

pub use admission::estimate::Occupied;
pub use message::{
    Action, Arrival, BatchRule, Config, CurvePoint, Event, Hedging, Objective, Refusal, Room, ShapeKey,
    SizeBucket, SizeCurve, Snapshot,
};
pub use scheduler::Scheduler;

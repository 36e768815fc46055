//! Decides which requests run next, on which replica, in which batch.
//!
//! Reads events from `dispatcher`, hands back actions for it to carry out.
//! Knows nothing of clocks, sockets, tasks or Python: time arrives as an argument.
#![forbid(unsafe_code)]

mod admission;
mod counters;
mod drift;
mod estimate;
mod fair;
mod forming;
mod heads;
mod health;
mod hedging;
mod inflow;
mod latency;
mod message;
mod octaves;
mod order;
mod pace;
pub mod pipeline;
mod points;
mod queue;
mod refusal;
mod replica;
mod returning;
mod routing;
mod rules;
mod scheduler;
mod sizes;
mod snapshot;
mod spread;
mod table;
mod turns;
mod waiting;

pub use estimate::Occupied;
pub use message::{
    Action, Arrival, BatchRule, Config, CurvePoint, Event, Hedging, Objective, Refusal, Room, ShapeKey,
    SizeBucket, SizeCurve, Snapshot,
};
pub use scheduler::Scheduler;

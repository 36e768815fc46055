//! What a model's name means now: which generations are behind it, and which of them answers a request.
//!
//! `table` maps names to routes and is swapped whole; `rules` says how a route picks; `registry` changes the table.
//! Knows nothing of how a generation runs its requests.

mod registry;
mod rules;
mod table;

pub use registry::{Drained, Registry};
pub use rules::Rules;
pub(crate) use table::{RouteTable, Routes};

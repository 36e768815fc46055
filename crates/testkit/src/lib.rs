//! What the tests of several crates share: full settings, replicas in the hands of a test, virtual time, waiting.
//!
//! A dev-dependency of the others, never a dependency: it is in nothing that is shipped.
//! Knows nothing of what is tested with it.
#![forbid(unsafe_code)]

mod agenda;
mod random;
mod replica;
mod settings;
mod virtual_replica;
mod waiting;

pub use agenda::Agenda;
pub use random::Random;
pub use replica::{Echo, FakeLauncher, FakeReplica, Held, Step};
pub use settings::{gateway_settings, settings};
pub use virtual_replica::{VirtualBatch, VirtualReplica};
pub use waiting::{PATIENCE, until, within};

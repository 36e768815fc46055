//! Names for things that are counted. Each is unique within one model's dispatcher, never across models.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// One inference request, from admission to its answer. Increases with arrival.
    RequestId(u64)
);
id!(
    /// One set of requests that a replica runs together. Increases with formation; never used twice.
    BatchId(u64)
);
id!(
    /// One place where a model runs. A restarted worker is a new replica with a new id.
    ReplicaId(u32)
);

/// On whose behalf a request comes. Tenants of one class share it by their weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tenant {
    /// Its number; 0 is everyone who doesn't say.
    pub id: u32,
    /// Its share relative to other tenants' that wait; at least 1.
    pub weight: u32,
}

impl Default for Tenant {
    /// Nobody in particular.
    fn default() -> Self {
        Tenant { id: 0, weight: 1 }
    }
}

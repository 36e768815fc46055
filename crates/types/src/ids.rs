//! Identifiers. Each is unique within one model's dispatcher, not across models.

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
    /// One inference request, from admission to its response. Increases with arrival.
    RequestId(u64)
);
id!(
    /// One batch. Increases with formation; never reused.
    BatchId(u64)
);
id!(
    /// One worker of a model. A restarted worker is a new replica with a new id.
    ReplicaId(u32)
);

/// A group of callers with a weight. Tenants of one class share it by their weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tenant {
    /// Its number; 0 is the default tenant, of callers without a known one.
    pub id: u32,
    /// Its share relative to other tenants in the queue; at least 1.
    pub weight: u32,
}

impl Default for Tenant {
    /// The default tenant.
    fn default() -> Self {
        Tenant { id: 0, weight: 1 }
    }
}

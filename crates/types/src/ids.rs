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

//! What waits, and in which order it is served.

pub(crate) mod classes;
pub(crate) mod fair;
pub(crate) mod heads;
pub(crate) mod line;
pub(crate) mod octaves;
pub(crate) mod order;
pub(crate) mod table;
pub(crate) mod turns;
pub(crate) mod waiting;

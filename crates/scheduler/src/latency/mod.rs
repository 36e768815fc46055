//! What batches take: learned from every run, by size, with the spread.

pub(crate) mod curve;
pub(crate) mod drift;
pub(crate) mod estimate;
pub(crate) mod pace;
pub(crate) mod points;
pub(crate) mod sizes;
pub(crate) mod spread;

//! The replicas: what each holds, how it does, and which of them is given work.

pub(crate) mod ejection;
pub(crate) mod health;
pub(crate) mod hedging;
pub(crate) mod held;
pub(crate) mod routing;

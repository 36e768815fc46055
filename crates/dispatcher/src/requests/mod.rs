//! Requests between their admission and their answer.

pub(crate) mod id_hasher;
pub(crate) mod in_flight;
pub(crate) mod padding;
pub(crate) mod parts;
pub(crate) mod validator;

//! Operators that have the same effect on rows.

use super::super::call::{Call, Outcome};

pub(super) const ONNX: &str = "";
pub(super) const LEARNING: &str = "ai.onnx.ml";
pub(super) const MICROSOFT: &str = "com.microsoft";

type Apply = for<'c, 'a> fn(&Call<'c, 'a>) -> Outcome<'a>;

/// Operators with the same effect on rows.
pub(super) struct Family {
    pub(super) domain: &'static str,
    pub(super) operators: &'static [&'static str],
    /// Attributes without effect on rows, or that `apply` reads. A node with another one is unknown.
    pub(super) attributes: &'static [&'static str],
    /// Whether its inputs may contain the number of rows.
    pub(super) counts: bool,
    pub(super) apply: Apply,
}

impl Family {
    pub(super) const fn new(
        domain: &'static str,
        operators: &'static [&'static str],
        attributes: &'static [&'static str],
        apply: Apply,
    ) -> Family {
        Family { domain, operators, attributes, counts: false, apply }
    }

    pub(super) const fn counting(self) -> Family {
        Family { counts: true, ..self }
    }
}

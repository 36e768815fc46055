//! The verdict whether requests may share a batch.

use serde::{Deserialize, Serialize};

/// What decided whether requests may share a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decider {
    /// The operator's setting.
    Setting,
    /// The declared shapes, or the kind of model: a stream, a stateful model.
    Shapes,
    /// A proof from the operators of a graph or from the kind of the model.
    Analysis,
    /// Generated rows, run alone and in a batch.
    Probe,
    /// Rows of real requests, run alone and in a batch.
    Traffic,
}

impl Decider {
    /// Its label in metrics and messages.
    pub fn name(self) -> &'static str {
        match self {
            Decider::Setting => "setting",
            Decider::Shapes => "shapes",
            Decider::Analysis => "analysis",
            Decider::Probe => "probe",
            Decider::Traffic => "traffic",
        }
    }
}

/// The verdict whether requests may share a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// What decided.
    pub by: Decider,
    /// The reason, for the operator.
    pub why: String,
    /// Number of compared rows; 0 if none were.
    #[serde(default)]
    pub rows: u64,
}

//! What the decision whether requests may share a run rests on.

use serde::{Deserialize, Serialize};

/// What decided whether requests may share a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decider {
    /// The operator's word.
    Setting,
    /// The shapes that the model declares, or what it is: a stream, a model of state.
    Shapes,
    /// A proof, from the operators of a graph or from the kind of the model.
    Analysis,
    /// Rows that were made up, alone and in company.
    Probe,
    /// Rows that came, alone and in company.
    Traffic,
}

impl Decider {
    /// The word for it in metrics and messages.
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

/// What the decision whether requests may share a run rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Who decided.
    pub by: Decider,
    /// In words for the operator.
    pub why: String,
    /// Rows that were compared; 0 where none were.
    #[serde(default)]
    pub rows: u64,
}

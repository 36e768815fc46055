//! The messages on the control socket.
//!
//! Reads packets, hands on validated messages. The parser of a worker's messages is a function of bytes alone: a
//! worker is not trusted. Knows nothing of sockets and descriptors.

use std::collections::HashSet;

use inferd_types::Signature;
use inferd_types::settings::LoadedModel;
use serde::{Deserialize, Serialize};

use crate::layout::{Layout, RANK_MAX, TENSORS_MAX};

/// The version of this protocol and of the arena's layout; both sides come from one release.
pub(crate) const PROTOCOL: u32 = 2;

/// Maximum length of a tensor or column name, and of a fact, in bytes.
const NAME_MAX: usize = 1024;
/// Maximum number of facts.
const FACTS_MAX: usize = 64;

/// What a worker sends.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum WorkerFrame {
    /// The model is loaded.
    Loaded(Box<LoadedModel>),
    /// Loading failed.
    Failed {
        /// The message for clients.
        message: String,
        /// The detail for the log.
        detail: String,
    },
    /// The outputs of the current batch need more memory.
    Room {
        /// The batch's slot: 0 or 1.
        slot: usize,
        /// The batch's generation.
        generation: u32,
        /// Size in bytes.
        bytes: usize,
    },
}

impl WorkerFrame {
    /// Parses one message.
    ///
    /// # Errors
    /// A sentence on what is invalid.
    pub fn parse(packet: &[u8]) -> Result<WorkerFrame, String> {
        let frame = serde_json::from_slice(packet).map_err(|error| error.to_string())?;
        match &frame {
            WorkerFrame::Loaded(model) => {
                check_signature(&model.signature)?;
                let long = |(name, fact): (&String, &String)| name.len() > NAME_MAX || fact.len() > NAME_MAX;
                if model.facts.len() > FACTS_MAX || model.facts.iter().any(long) {
                    return Err(format!("more than {FACTS_MAX} facts, or one longer than {NAME_MAX} bytes"));
                }
            }
            WorkerFrame::Failed { .. } => {}
            WorkerFrame::Room { slot, bytes, .. } => {
                if *slot > 1 || *bytes == 0 {
                    return Err(format!("room of {bytes} bytes for slot {slot}"));
                }
            }
        }
        Ok(frame)
    }
}

/// Checks a signature against the limits of the arena.
pub(crate) fn check_signature(signature: &Signature) -> Result<(), String> {
    let extras = &signature.extras;
    let columns = extras.schemas.iter().flat_map(|schema| &schema.columns).chain(&extras.ignored_columns);
    if let Some(long) = columns.map(|name| name.len()).find(|length| *length > NAME_MAX) {
        return Err(format!("the name of a column has {long} bytes; {NAME_MAX} is the most"));
    }
    for (what, specs) in [("inputs", &signature.inputs), ("outputs", &signature.outputs)] {
        if specs.len() > TENSORS_MAX {
            return Err(format!("the model has {} {what}; {TENSORS_MAX} is the most", specs.len()));
        }
        let mut names = HashSet::new();
        for spec in specs {
            let name = &*spec.name;
            if name.is_empty() || name.len() > NAME_MAX {
                return Err(format!(
                    "the name of one of the {what} has {} bytes, not 1 to {NAME_MAX}",
                    name.len()
                ));
            }
            if spec.shape.len() > RANK_MAX {
                return Err(format!("'{name}' has {} dimensions; {RANK_MAX} is the most", spec.shape.len()));
            }
            if spec.shape.iter().any(|dim| *dim < -1) {
                return Err(format!("'{name}' has the shape {:?}; -1 is the least dimension", spec.shape));
            }
            if !names.insert(name) {
                return Err(format!("two of the {what} are called '{name}'"));
            }
            if signature.batched() && spec.shape.is_empty() {
                return Err(format!(
                    "'{name}' has no dimension, so the model can't be batched; set batching: off"
                ));
            }
        }
    }
    Ok(())
}

/// A message from the gateway. Memory and doorbell are passed as descriptors with it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum GatewayFrame {
    /// The settings; the first message.
    Load { protocol: u32, settings: serde_json::Value },
    /// The arena and the doorbell. Later messages are counted.
    Arena(Box<Layout>),
    /// More memory for a slot.
    Segment { slot: usize, id: u32, bytes: usize, outputs: bool },
    /// A segment that is no longer used.
    Drop { id: u32 },
    /// The requested memory exceeds the limit.
    NoRoom { slot: usize, arena_max_bytes: usize },
    /// Stop the current run.
    Terminate {},
    /// Finish the current batch and exit.
    Close {},
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        let room = WorkerFrame::Room { slot: 1, generation: 7, bytes: 9 };
        let parsed = WorkerFrame::parse(&serde_json::to_vec(&room).unwrap()).unwrap();
        assert!(matches!(parsed, WorkerFrame::Room { slot: 1, generation: 7, bytes: 9 }));
        let close = serde_json::to_string(&GatewayFrame::Close {}).unwrap();
        assert!(matches!(serde_json::from_str(&close), Ok(GatewayFrame::Close {})));
    }

    #[test]
    fn garbage_is_refused_with_a_reason() {
        let input =
            |shape: &str, name: &str| format!(r#"{{"name":"{name}","datatype":"FP32","shape":{shape}}}"#);
        let loaded = |inputs: &[String]| {
            let inputs = inputs.join(",");
            format!(r#"{{"loaded":{{"signature":{{"inputs":[{inputs}],"outputs":[],"batching":"on"}}}}}}"#)
        };
        let good = loaded(&[input("[-1,3]", "x")]);
        assert!(WorkerFrame::parse(good.as_bytes()).is_ok(), "{good}");
        let many: Vec<_> = (0..1025).map(|index| input("[-1]", &format!("x{index}"))).collect();
        for bad in [
            String::new(),
            "{".into(),
            "[".repeat(100_000),
            r#"{"loaded":null}"#.into(),
            r#"{"room":{"slot":2,"generation":1,"bytes":1}}"#.into(),
            r#"{"room":{"slot":0,"generation":1,"bytes":0}}"#.into(),
            r#"{"room":{"slot":0,"generation":1,"bytes":-1}}"#.into(),
            r#"{"room":{"slot":0,"generation":1,"bytes":1,"more":1}}"#.into(),
            loaded(&[input("[-2]", "x")]),
            loaded(&[input("[]", "x")]),
            loaded(&[input("[1,1,1,1,1,1,1,1,1]", "x")]),
            loaded(&[input("[-1]", "")]),
            loaded(&[input("[-1]", "x"), input("[-1]", "x")]),
            loaded(&many),
            format!("{}{{}}", "\0".repeat(100)),
        ] {
            assert!(WorkerFrame::parse(bad.as_bytes()).is_err(), "{bad:.200}");
        }
    }
}

//! What the control plane says about loading a model.
//!
//! Reads the opaque `load` value of the model's settings, hands on typed settings.
//! Knows nothing of files: whether they exist is for the loader to find out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use inferd_types::compare::Tolerance;
use inferd_types::{Error, ErrorKind, InputSchema, Result};
use serde::Deserialize;

/// How to load and run one model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadSettings {
    /// The model's file. Weights beside it (external data) are found relative to it.
    pub path: PathBuf,
    /// The shared library of ONNX Runtime.
    pub library: PathBuf,
    /// `cpu` or `cuda:N`.
    #[serde(default)]
    pub device: Device,
    /// Threads of one run; 1 runs on the calling thread alone.
    #[serde(default = "one")]
    pub threads: u32,
    /// Whether requests may share a run.
    #[serde(default)]
    pub batching: BatchingMode,
    /// Most rows of one run; 1 leaves nothing to batch.
    #[serde(default = "default_rows")]
    pub batch_rows_max: u32,
    /// How far a row may differ between running alone and running with others.
    #[serde(default)]
    pub tolerance: Tolerance,
    /// What the control plane knows about the model, told with the worker's own facts.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// Inputs that may be constants of the graph which a run can replace: those are served where they are named here.
    #[serde(default)]
    pub initializers: Vec<String>,
    /// What the library that the model was converted from takes and refuses.
    #[serde(default)]
    pub schemas: Vec<InputSchema>,
    /// Columns that the library was fitted with and does not read.
    #[serde(default)]
    pub ignored_columns: Vec<Arc<str>>,
    /// Whether rows that ran alone were compared with rows in company when the model was converted.
    #[serde(default)]
    pub compared: bool,
    /// Tensors that clients see in another shape than the model.
    #[serde(default)]
    pub reshape: ReshapeSettings,
}

/// Tensors that clients see in another shape than the model, by name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReshapeSettings {
    /// Of the inputs.
    pub inputs: BTreeMap<String, Reshape>,
    /// Of the outputs.
    pub outputs: BTreeMap<String, Reshape>,
}

/// One tensor's two shapes; -1 is any size, as often in one as in the other.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reshape {
    /// What clients see.
    pub seen: Vec<i64>,
    /// What the model has.
    pub own: Vec<i64>,
}

impl LoadSettings {
    /// The settings in `value`.
    ///
    /// # Errors
    /// `Internal` where they are not what this worker expects: control plane and worker differ in version.
    pub fn from_json(value: &serde_json::Value) -> Result<LoadSettings> {
        LoadSettings::deserialize(value).map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                format!("the settings for loading make no sense to the ONNX worker: {error}"),
            )
        })
    }
}

/// Where a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Device {
    /// On the host.
    #[default]
    Cpu,
    /// On the NVIDIA GPU of this number.
    Cuda(u32),
}

impl TryFrom<String> for Device {
    type Error = String;

    fn try_from(name: String) -> Result<Device, String> {
        match name.split_once(':') {
            None if name == "cpu" => Ok(Device::Cpu),
            None if name == "cuda" => Ok(Device::Cuda(0)),
            Some(("cuda", number)) => number.parse().map(Device::Cuda).map_err(|_| ()),
            _ => Err(()),
        }
        .map_err(|()| format!("unknown device '{name}'; 'cpu' or 'cuda:0' is expected"))
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Whether requests may share a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchingMode {
    /// Where a probe shows that it is right.
    #[default]
    Auto,
    /// The operator says so.
    On,
    /// Never.
    Off,
    /// Where rows that come show that it is right, if nothing proves it.
    Verify,
}

fn one() -> u32 {
    1
}

fn default_rows() -> u32 {
    32
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_and_a_library_are_enough_and_unknown_keys_are_refused() {
        let settings = LoadSettings::from_json(&json!({"path": "m.onnx", "library": "l.so"})).unwrap();
        assert_eq!((settings.device, settings.threads), (Device::Cpu, 1));
        assert_eq!(settings.batching, BatchingMode::Auto);
        let error = LoadSettings::from_json(&json!({"path": "m", "library": "l", "speed": 1})).unwrap_err();
        assert!(error.message().contains("speed"), "{error}");
    }

    #[test]
    fn devices_are_read_by_name_and_number() {
        let device = |name: &str| Device::try_from(name.to_owned());
        assert_eq!(device("cpu"), Ok(Device::Cpu));
        assert_eq!(device("cuda:3"), Ok(Device::Cuda(3)));
        assert_eq!(device("cuda:3").unwrap().to_string(), "cuda:3");
        assert!(device("gpu").unwrap_err().contains("'cuda:0'"));
        assert!(device("cuda:x").is_err());
    }
}

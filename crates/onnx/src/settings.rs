//! Settings for loading an ONNX model.
//!
//! Reads the opaque `load` value of the model's settings, hands on typed settings. Does not check whether files
//! exist.

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
    /// The model's file. External data is found relative to it.
    pub path: PathBuf,
    /// The shared library of ONNX Runtime.
    pub library: PathBuf,
    /// `cpu` or `cuda:N`.
    #[serde(default)]
    pub device: Device,
    /// Threads per run; 1 runs on the calling thread alone.
    #[serde(default = "one")]
    pub threads: u32,
    /// Whether requests may share a batch.
    #[serde(default)]
    pub batching: BatchingMode,
    /// Maximum rows per batch; 1 turns batching off.
    #[serde(default = "default_rows")]
    pub batch_rows_max: u32,
    /// How far a row's outputs may differ alone and in a batch.
    #[serde(default)]
    pub tolerance: Tolerance,
    /// Facts from the control plane, reported with the worker's own.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// Candidates for inputs from constants that a run can replace: only those that are named here are served.
    #[serde(default)]
    pub initializers: Vec<String>,
    /// Schemas of the library that the model was converted from.
    #[serde(default)]
    pub schemas: Vec<InputSchema>,
    /// Columns that the library was fitted with and ignores.
    #[serde(default)]
    pub ignored_columns: Vec<Arc<str>>,
    /// Whether outputs of rows alone and in a batch were compared when the model was converted.
    #[serde(default)]
    pub compared: bool,
    /// Tensors whose shape for clients differs from the model's.
    #[serde(default)]
    pub reshape: ReshapeSettings,
}

/// Tensors whose shape for clients differs from the model's, by name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReshapeSettings {
    /// Inputs.
    pub inputs: BTreeMap<String, Reshape>,
    /// Outputs.
    pub outputs: BTreeMap<String, Reshape>,
}

/// One tensor's two shapes; -1 is any size, equally often in both.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reshape {
    /// The shape for clients.
    pub seen: Vec<i64>,
    /// The model's shape.
    pub own: Vec<i64>,
}

impl LoadSettings {
    /// Parses the settings.
    ///
    /// # Errors
    /// `Internal` if they are not what this worker expects: control plane and worker differ in version.
    pub fn from_json(value: &serde_json::Value) -> Result<LoadSettings> {
        LoadSettings::deserialize(value).map_err(|error| {
            Error::new(ErrorKind::Internal, format!("invalid settings for the ONNX worker: {error}"))
        })
    }
}

/// The device of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Device {
    /// The CPU.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this number.
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

/// Whether requests may share a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchingMode {
    /// If a proof or a probe shows that rows are independent.
    #[default]
    Auto,
    /// The operator says so.
    On,
    /// Never.
    Off,
    /// If real requests show that rows are independent, unless a proof decides.
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

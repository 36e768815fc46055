//! What a server says of itself and of its models: metadata, configuration, statistics, index.
//!
//! Reads plain values, hands on JSON (`*_json`) and messages (`*_pb`) in the form that Triton's clients expect.
//! Does not know where the values come from.

mod example;
mod json;
mod message;
mod openapi;

use inferd_types::{DataType, InputSchema, Signature};
use serde_json::{Map, Value, json};
use smallvec::SmallVec;

pub use json::{config_json, index_json, model_metadata_json, server_metadata_json, statistics_json};
pub use message::{config_pb, index_pb, model_metadata_pb, server_metadata_pb, statistics_pb};
pub use openapi::openapi_json;

/// The extensions of the protocol that every server has.
pub const EXTENSIONS: &[&str] = &[
    "binary_tensor_data",
    "classification",
    "generate",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
];

/// The same where clients may register shared memory.
pub const EXTENSIONS_WITH_SHARED_MEMORY: &[&str] = &[
    "binary_tensor_data",
    "classification",
    "generate",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
    "system_shared_memory",
];

/// The server as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// The protocol's extensions that it serves.
    pub extensions: &'a [&'a str],
}

/// One version of one model.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    /// The name in every path.
    pub name: &'a str,
    /// The version described here.
    pub version: u64,
    /// Every version that is served.
    pub versions: &'a [u64],
    /// What kind of model, e.g. `onnx_onnxruntime`.
    pub platform: &'a str,
    /// What it takes and gives.
    pub signature: &'a Signature,
    /// Most rows that run together. Counts only where the signature is batched.
    pub batch_rows_max: u32,
    /// Number of workers.
    pub replicas: u32,
    /// The GPUs that it runs on; empty: the CPU.
    pub gpus: &'a [u32],
    /// Free parameters, by name.
    pub parameters: &'a [(&'a str, &'a str)],
}

impl Model<'_> {
    /// `max_batch_size`: 0 where requests are not batched.
    fn batch_size_max(&self) -> i32 {
        if self.signature.batched() { i32::try_from(self.batch_rows_max).unwrap_or(i32::MAX) } else { 0 }
    }

    /// The dimensions that the configuration shows: without the batch dimension where there is one.
    fn dims<'s>(&self, shape: &'s [i64]) -> &'s [i64] {
        let batch = usize::from(self.signature.batched()).min(shape.len());
        &shape[batch..]
    }

    /// The file with the names of the classes that the output at `index` holds the scores of.
    fn label_file(&self, index: usize) -> Option<&str> {
        self.signature.labels_of(index)?.file.as_deref()
    }

    /// What the configuration's parameter [`INPUT_SCHEMAS`] says; `None` where nothing is known of any input.
    fn input_schemas(&self) -> Option<String> {
        let extras = &self.signature.extras;
        if extras.schemas.is_empty() && extras.ignored_columns.is_empty() {
            return None;
        }
        let schemas: Map<String, Value> =
            extras.schemas.iter().map(|schema| (schema.input.to_string(), schema_json(schema))).collect();
        Some(json!({"inputs": schemas, "ignored_columns": extras.ignored_columns}).to_string())
    }

    /// The part of the platform behind `_`, which is how Triton names its backends: `onnxruntime`.
    fn backend(&self) -> &str {
        self.platform.split_once('_').map_or(self.platform, |(_, backend)| backend)
    }

    /// The name and kind of the one instance group.
    fn instance_kind(&self) -> &'static str {
        if self.gpus.is_empty() { "KIND_CPU" } else { "KIND_GPU" }
    }
}

/// The parameter of the configuration that says what is known of inputs beside their types: JSON, an object with the
/// members `inputs`, by name what metadata over REST says as an input's `parameters`, and `ignored_columns`.
pub const INPUT_SCHEMAS: &str = "input_schemas";

/// What is known of an input beside its type.
fn schema_json(schema: &InputSchema) -> Value {
    let mut known = json!({"missing": schema.missing});
    if !schema.columns.is_empty() {
        known["columns"] = json!(schema.columns);
    }
    if let Some(largest) = schema.largest {
        known["largest"] = json!(largest);
    }
    known
}

/// How the configuration calls an element type.
fn config_datatype(datatype: DataType) -> String {
    match datatype {
        DataType::Bytes => "TYPE_STRING".to_owned(),
        other => format!("TYPE_{other}"),
    }
}

/// How often something happened and how long it took altogether.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Times.
    pub count: u64,
    /// Nanoseconds altogether.
    pub nanos: u64,
}

/// What happened to one model version since it was loaded.
#[derive(Clone, Debug, Default)]
pub struct Statistics<'a> {
    /// The model.
    pub name: &'a str,
    /// Its version.
    pub version: u64,
    /// When the last request was answered, in milliseconds since 1970; 0: never.
    pub last_inference_ms: u64,
    /// Rows that were answered.
    pub inference_count: u64,
    /// Runs of the model.
    pub execution_count: u64,
    /// Requests that were answered, from admission to answer.
    pub success: Span,
    /// Requests that failed.
    pub fail: Span,
    /// Waiting, by request.
    pub queue: Span,
    /// Writing batches.
    pub compute_input: Span,
    /// Running the model.
    pub compute_infer: Span,
    /// Reading results.
    pub compute_output: Span,
    /// Requests that were answered from a cache: lookup and answer.
    pub cache_hit: Span,
    /// Requests that a cache had no answer to: the lookup.
    pub cache_miss: Span,
    /// Runs by the rows that ran together.
    pub batches: SmallVec<[BatchStatistics; 4]>,
}

/// Runs of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchStatistics {
    /// Rows that ran together.
    pub rows: u64,
    /// Writing such batches.
    pub compute_input: Span,
    /// Running them.
    pub compute_infer: Span,
    /// Reading their results.
    pub compute_output: Span,
}

/// A line of the repository index.
#[derive(Clone, Copy, Debug)]
pub struct IndexEntry<'a> {
    /// The model.
    pub name: &'a str,
    /// Its version.
    pub version: u64,
    /// What it is doing.
    pub state: IndexState,
    /// Why it is not ready; empty where it is.
    pub reason: &'a str,
}

/// What the index says of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexState {
    /// It answers.
    Ready,
    /// It is being loaded.
    Loading,
    /// It is being stopped.
    Unloading,
    /// It cannot answer.
    Unavailable,
}

impl IndexState {
    /// Triton's word for it.
    pub const fn name(self) -> &'static str {
        match self {
            IndexState::Ready => "READY",
            IndexState::Loading => "LOADING",
            IndexState::Unloading => "UNLOADING",
            IndexState::Unavailable => "UNAVAILABLE",
        }
    }
}

#[cfg(test)]
mod tests;

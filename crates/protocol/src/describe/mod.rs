//! Descriptions of a server and its models: metadata, configuration, statistics, index.
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

/// Protocol extensions of every server.
pub const EXTENSIONS: &[&str] = &[
    "binary_tensor_data",
    "classification",
    "generate",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
];

/// The same with shared memory enabled.
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
    /// Its protocol extensions.
    pub extensions: &'a [&'a str],
}

/// One version of one model.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    /// The name in URLs.
    pub name: &'a str,
    /// The version described here.
    pub version: u64,
    /// Every version that is served.
    pub versions: &'a [u64],
    /// The platform, e.g. `onnx_onnxruntime`.
    pub platform: &'a str,
    /// Its inputs and outputs.
    pub signature: &'a Signature,
    /// Maximum rows per batch. Applies only if the signature is batched.
    pub batch_rows_max: u32,
    /// Number of workers.
    pub replicas: u32,
    /// The GPUs that it runs on; empty: the CPU.
    pub gpus: &'a [u32],
    /// Free parameters, by name.
    pub parameters: &'a [(&'a str, &'a str)],
}

impl Model<'_> {
    /// `max_batch_size`: 0 if requests are not batched.
    fn batch_size_max(&self) -> i32 {
        if self.signature.batched() { i32::try_from(self.batch_rows_max).unwrap_or(i32::MAX) } else { 0 }
    }

    /// The dimensions in the configuration: without the batch dimension.
    fn dims<'s>(&self, shape: &'s [i64]) -> &'s [i64] {
        let batch = usize::from(self.signature.batched()).min(shape.len());
        &shape[batch..]
    }

    /// The file with the class labels of the output at `index`.
    fn label_file(&self, index: usize) -> Option<&str> {
        self.signature.labels_of(index)?.file.as_deref()
    }

    /// The value of the configuration's parameter [`INPUT_SCHEMAS`]; `None` if no input has a schema.
    fn input_schemas(&self) -> Option<String> {
        let extras = &self.signature.extras;
        if extras.schemas.is_empty() && extras.ignored_columns.is_empty() {
            return None;
        }
        let schemas: Map<String, Value> =
            extras.schemas.iter().map(|schema| (schema.input.to_string(), schema_json(schema))).collect();
        Some(json!({"inputs": schemas, "ignored_columns": extras.ignored_columns}).to_string())
    }

    /// The part of the platform after `_`, which is how Triton names its backends: `onnxruntime`.
    fn backend(&self) -> &str {
        self.platform.split_once('_').map_or(self.platform, |(_, backend)| backend)
    }

    /// The name and kind of the one instance group.
    fn instance_kind(&self) -> &'static str {
        if self.gpus.is_empty() { "KIND_CPU" } else { "KIND_GPU" }
    }
}

/// The configuration's parameter with the schemas of inputs: a JSON object with the members `inputs`, by name with
/// the `parameters` of REST metadata, and `ignored_columns`.
pub const INPUT_SCHEMAS: &str = "input_schemas";

/// The schema of an input.
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

/// The configuration's name of an element type.
fn config_datatype(datatype: DataType) -> String {
    match datatype {
        DataType::Bytes => "TYPE_STRING".to_owned(),
        other => format!("TYPE_{other}"),
    }
}

/// The count and total duration of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Number of events.
    pub count: u64,
    /// Total duration in nanoseconds.
    pub nanos: u64,
}

/// Statistics of one model version since it was loaded.
#[derive(Clone, Debug, Default)]
pub struct Statistics<'a> {
    /// The model.
    pub name: &'a str,
    /// Its version.
    pub version: u64,
    /// When the last response was sent, in milliseconds since 1970; 0: never.
    pub last_inference_ms: u64,
    /// Rows of successful requests.
    pub inference_count: u64,
    /// Runs of the model.
    pub execution_count: u64,
    /// Successful requests, from admission to response.
    pub success: Span,
    /// Requests that failed.
    pub fail: Span,
    /// Time in the queue, by request.
    pub queue: Span,
    /// Writing batches.
    pub compute_input: Span,
    /// Running the model.
    pub compute_infer: Span,
    /// Reading results.
    pub compute_output: Span,
    /// Requests answered from the cache: lookup and response.
    pub cache_hit: Span,
    /// Requests not in the cache: the lookup.
    pub cache_miss: Span,
    /// Runs by batch size.
    pub batches: SmallVec<[BatchStatistics; 4]>,
}

/// Runs of one batch size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchStatistics {
    /// Rows per batch.
    pub rows: u64,
    /// Writing such batches.
    pub compute_input: Span,
    /// Running them.
    pub compute_infer: Span,
    /// Reading their results.
    pub compute_output: Span,
}

/// An entry of the repository index.
#[derive(Clone, Copy, Debug)]
pub struct IndexEntry<'a> {
    /// The model.
    pub name: &'a str,
    /// Its version.
    pub version: u64,
    /// Its state.
    pub state: IndexState,
    /// Why it is not ready; empty if it is.
    pub reason: &'a str,
}

/// The state of a model version in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexState {
    /// It serves requests.
    Ready,
    /// It is being loaded.
    Loading,
    /// It is being unloaded.
    Unloading,
    /// It can't serve requests.
    Unavailable,
}

impl IndexState {
    /// Triton's name for it.
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

//! Settings as the data plane receives them: one validated value from the control plane.
//!
//! Python declares every setting once, with its meaning, unit, default and reason (`inferd/spec`); these structs
//! are the resolved form. Unknown fields are errors, so the two sides can't drift apart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::compare::Tolerance;
use crate::{DataType, Signature};

/// A duration, serialized in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map(Seconds).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

/// Settings of the gateway as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewaySettings {
    /// Address of the data port.
    pub host: String,
    /// Data port: HTTP/1.1, HTTP/2 and gRPC. 0: any free port.
    pub port: u16,
    /// Port of the metrics, always on loopback. 0: any free port; `None`: no metrics are served.
    pub metrics_port: Option<u16>,
    /// Reactor threads of the gateway.
    pub gateway_threads: usize,
    /// Maximum size of a body, as sent and as decompressed.
    pub body_max_bytes: usize,
    /// Maximum bytes of requests that are read, queued or run, over all models.
    pub inflight_max_bytes: usize,
    /// Maximum size of request headers.
    pub header_max_bytes: usize,
    /// Maximum nesting of a JSON body.
    pub json_depth_max: usize,
    /// Maximum number of open connections.
    pub connections_max: usize,
    /// Maximum concurrent streams of one HTTP/2 connection.
    pub streams_max: u32,
    /// Timeout for receiving request headers.
    pub header_timeout_s: Seconds,
    /// Timeout for receiving a body.
    pub body_timeout_s: Seconds,
    /// Maximum time that shutdown waits for admitted requests.
    pub drain_timeout_s: Seconds,
    /// OTLP/gRPC endpoint for spans; `None`: none are exported.
    pub otlp_endpoint: Option<String>,
    /// Whether clients may register shared memory for tensors.
    pub shared_memory: bool,
    /// Folder of the page at `/docs`; `None`: no page.
    #[serde(default)]
    pub docs_folder: Option<PathBuf>,
    /// Header that names the tenant of a request; `None`: tenancy is disabled.
    pub tenant_header: Option<String>,
    /// Weights of tenants; unknown tenants share the default one, of weight 1.
    #[serde(default)]
    pub tenants: BTreeMap<String, u32>,
}

/// A latency objective: `percentile` of the requests within `latency_s`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// From admission to response.
    pub latency_s: Seconds,
    /// In percent, e.g. 99.
    pub percentile: f64,
}

/// The dimension of an input that is padded, so that requests of different lengths share a batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaddedInput {
    /// The dimension, which is free in the signature; not the first.
    pub axis: usize,
    /// The padding value.
    pub value: f64,
}

/// The dimension of an output that is as long as the padded inputs, and is cut to each request's own length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutOutput {
    /// The dimension.
    pub axis: usize,
}

/// How inputs of different lengths are padded, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaddingSettings {
    /// Inputs that are padded; those of one request have one length.
    pub inputs: BTreeMap<String, PaddedInput>,
    /// Outputs that are cut.
    pub outputs: BTreeMap<String, CutOutput>,
}

/// What the gateway puts into an input that clients don't send. One element per row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// Whether the row is the first of its sequence: BOOL, FP32 or an integer, 0 or 1.
    SequenceStart,
    /// Whether it is the last.
    SequenceEnd,
    /// Always 1: there are no padding rows.
    SequenceReady,
    /// The sequence's id: an integer or BYTES.
    SequenceId,
    /// The request's context as JSON in BYTES: `id`, `headers`, `parameters`, `sequence`, and `deadline_ns` on the
    /// machine's monotonic clock.
    Context,
    /// BOOL, which turns true during a run when the row's caller has cancelled.
    Cancelled,
}

/// A state tensor: an output of one request of a sequence that is an input of the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateSettings {
    /// The input; zeros (or empty strings) for a sequence's first request.
    pub input: String,
    /// The output.
    pub output: String,
    /// Its initial shape, including the batch dimension; `None`: the input's shape, which must then be fixed.
    #[serde(default)]
    pub shape: Option<Vec<u64>>,
}

/// Settings of sequences: ordered requests that share state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequenceSettings {
    /// Idle time after which a sequence is discarded.
    pub idle_max_s: Seconds,
    /// Maximum number of concurrent sequences.
    pub sequences_max: usize,
    /// Inputs that give the model the request's position in its sequence.
    #[serde(default)]
    pub controls: BTreeMap<String, Control>,
    /// The state tensors. Empty: the model keeps its own state, in one replica.
    #[serde(default)]
    pub state: Vec<StateSettings>,
}

/// How a worker process is started.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Launch {
    /// A program of its own.
    Exec {
        /// The program and its arguments. The number of its channel's descriptor is appended as the last argument.
        command: Vec<String>,
    },
    /// A fork of the zygote that this command starts; equal commands share a zygote.
    Zygote {
        /// The program and its arguments, as for `Exec`.
        command: Vec<String>,
    },
}

/// Class labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelSettings {
    /// By class index.
    pub names: Vec<std::sync::Arc<str>>,
    /// The file that they come from, as the settings name it; shown in the configuration.
    pub file: Option<String>,
}

/// A warm-up request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Its name in errors.
    pub name: String,
    /// Number of rows that it is repeated to; `None`: as many as it has.
    pub rows: Option<u32>,
    /// Number of runs.
    pub count: u32,
    /// By input name; empty: zeros.
    pub inputs: BTreeMap<String, SampleInput>,
}

/// One input of a sample.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleInput {
    /// The expected datatype; `None`: any.
    pub datatype: Option<DataType>,
    /// Its shape; `None`: as the values are nested.
    pub shape: Option<Vec<u64>>,
    /// Its elements.
    pub data: SampleData,
}

/// The elements of a sample.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SampleData {
    /// Zeros, or empty strings.
    Zeros,
    /// Generated deterministically: numbers from 0 to 1, words.
    Random,
    /// Plain JSON: nested as the shape, or flat if a shape is given.
    Values(serde_json::Value),
    /// The protocol's raw form, in base64.
    Raw(String),
}

/// How outputs of requests are compared that ran alone and in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Comparison {
    /// Whether requests run one at a time until enough rows were compared, if nothing proves that rows are
    /// independent.
    pub verify: bool,
    /// The tolerance of the comparison.
    pub tolerance: Tolerance,
}

/// How the replicas of a model share the machine. What depends on their number is worked out from it here, so that it
/// follows a number that changes while they serve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MachineShare {
    /// Cores that the process may run on.
    pub cpus: Vec<usize>,
    /// Cores that it may keep busy: all of these, or fewer where a quota says so.
    pub cores: u32,
    /// Threads of each replica; `None`: its share of the cores.
    pub threads: Option<u32>,
    /// Variables of the worker's environment that say how many threads its libraries start.
    pub thread_variables: Vec<String>,
    /// Whether each replica is pinned to cores of its own.
    pub pin: bool,
    /// Most replicas that execute at once; `None`: as `takes_turns` says.
    pub running_max: Option<u32>,
    /// Whether replicas compute on these cores, and no more of them at once than the cores take with their threads. Else all
    /// execute at once.
    pub takes_turns: bool,
}

impl MachineShare {
    /// Threads of each of `replicas`.
    pub fn threads(&self, replicas: u32) -> u32 {
        self.threads.unwrap_or(self.cores / replicas.max(1)).max(1)
    }

    /// Most of `replicas` that execute at once; `None`: all.
    pub fn running_max(&self, replicas: u32) -> Option<u32> {
        let at_once = (self.cores / self.threads(replicas)).max(1);
        self.running_max.or((self.takes_turns && at_once < replicas).then_some(at_once))
    }

    /// The cores that a replica is pinned to, ascending: its own while there are enough, then round again. Empty: it is not
    /// pinned, as the spare never is.
    pub fn cpus_of(&self, placement: Placement) -> Vec<usize> {
        if !self.pin || placement.is_spare || self.cpus.is_empty() {
            return Vec::new();
        }
        let threads = self.threads(placement.replicas) as usize;
        let first = placement.replica * threads;
        let cpus: BTreeSet<usize> =
            (first..first + threads).map(|position| self.cpus[position % self.cpus.len()]).collect();
        cpus.into_iter().collect()
    }
}

/// Which of a model's replicas one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Its number, from 0; one that is started again keeps it.
    pub replica: usize,
    /// How many there are, the spare not counted.
    pub replicas: u32,
    /// Whether it is the spare, which runs suspects and takes the place of a replica that stalls.
    pub is_spare: bool,
}

impl Placement {
    /// The only replica of its model.
    pub const ALONE: Placement = Placement { replica: 0, replicas: 1, is_spare: false };
}

/// Settings of one version of one model.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    /// The name in URLs.
    pub name: String,
    /// The version; positive.
    pub version: u64,
    /// The metadata's `platform`, e.g. `onnx_onnxruntime`.
    pub platform: String,
    /// How a worker is started.
    pub launch: Launch,
    /// The worker's whole environment.
    pub env: BTreeMap<String, String>,
    /// What the worker needs to load the model; opaque to the data plane.
    pub load: serde_json::Value,
    /// The worker's working directory.
    pub directory: Option<PathBuf>,
    /// Number of workers.
    pub replicas: u32,
    /// How its replicas share the machine.
    #[serde(default)]
    pub machine: MachineShare,
    /// Maximum rows per batch.
    pub batch_rows_max: u32,
    /// How outputs are compared with and without batching.
    #[serde(default)]
    pub comparison: Comparison,
    /// Padding of inputs of different lengths; `None`: only equal shapes share a batch.
    pub padding: Option<PaddingSettings>,
    /// The objective; `None`: best effort.
    pub slo: Option<Objective>,
    /// Class of requests without a priority.
    pub priority_default: u8,
    /// Maximum rows in the queue.
    pub queue_rows_max: usize,
    /// Maximum bytes in the queue.
    pub queue_max_bytes: usize,
    /// Whether a request is retried when its worker died.
    pub retry_on_worker_loss: bool,
    /// Maximum execution time of a batch, after which the worker is killed. `None`: no limit.
    pub execution_max_s: Option<Seconds>,
    /// How long a request that can no longer meet its objective waits before it is refused, in multiples of the
    /// objective.
    pub late_wait_objectives: f64,
    /// Maximum time for loading and warm-up.
    pub load_max_s: Seconds,
    /// Maximum number of workers that suspect requests may kill in a minute.
    pub kills_per_minute_max: u32,
    /// Maximum shared memory of one replica.
    pub arena_max_bytes: usize,
    /// Whether a real inference must succeed before a replica is ready.
    pub warmup: bool,
    /// The warm-up requests; empty: one row of zeros.
    #[serde(default)]
    pub samples: Vec<Sample>,
    /// Optional inputs with their defaults; null: the model's own default.
    #[serde(default)]
    pub optional: BTreeMap<String, serde_json::Value>,
    /// Class labels, by the output that holds the scores.
    #[serde(default)]
    pub labels: BTreeMap<String, LabelSettings>,
    /// Whether the latency curve is measured on idle capacity once the first replica is ready.
    pub profiling: bool,
    /// A latency curve measured before: pairs of rows and seconds. Empty: unknown.
    pub profile: Vec<(u32, f64)>,
    /// Whether a batch smaller than recent ones waits briefly for more rows.
    pub linger: bool,
    /// Whether a replica that fails or is far slower than the others is ejected for a while.
    pub ejection: bool,
    /// Maximum fraction of batches that are hedged on an idle replica; 0: none.
    pub hedge_budget: f64,
    /// How sequences are served; `None`: as the worker reports, or not at all.
    pub sequence: Option<SequenceSettings>,
    /// Maximum size of the response cache; `None`: no cache.
    pub cache_max_bytes: Option<usize>,
}

/// Settings of a pipeline: steps over loaded models, with one name and one objective.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineSettings {
    /// The name in URLs.
    pub name: String,
    /// The end-to-end objective; `None`: best effort.
    pub slo: Option<Objective>,
    /// Class of requests without a priority.
    pub priority_default: u8,
    /// The steps, in any order: each begins when its inputs are ready.
    pub steps: Vec<StepSettings>,
    /// The pipeline's outputs: names, and the tensors that each comes from (the first whose step ran).
    pub outputs: Vec<(String, Vec<String>)>,
}

/// One step of a pipeline. A tensor is named `step.output`, or by the name of an input of the pipeline.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepSettings {
    /// Its name in the pipeline.
    pub name: String,
    /// The models that run it, with their weights.
    pub models: Vec<(String, u32)>,
    /// For each input of the model, the tensors that it comes from (the first whose step ran).
    pub inputs: Vec<(String, Vec<String>)>,
    /// When it runs; `None`: always.
    pub when: Option<When>,
    /// Whether the pipeline continues without it if it fails.
    pub optional: bool,
}

/// A condition on a tensor's value.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// The tensor. All its elements must pass, or none.
    pub tensor: String,
    /// The test that each element must pass.
    pub test: Test,
}

/// A test of values.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Test {
    /// In this list: numbers, or text for BYTES.
    In(Vec<serde_json::Value>),
    /// Greater than this.
    Above(f64),
    /// Less than this.
    Below(f64),
}

/// What a worker reports when its model is loaded.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadedModel {
    /// Its inputs and outputs.
    pub signature: Signature,
    /// Facts for the start-up table, e.g. `{"runtime": "onnxruntime 1.32"}`.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// Inputs of the signature that clients don't send.
    #[serde(default)]
    pub controls: BTreeMap<String, Control>,
    /// How the model wants sequences to be served, unless the settings say.
    #[serde(default)]
    pub sequence: Option<SequenceSettings>,
}

impl LoadedModel {
    /// A model whose tensors are all visible to clients.
    pub fn new(signature: Signature, facts: BTreeMap<String, String>) -> LoadedModel {
        LoadedModel { signature, facts, controls: BTreeMap::new(), sequence: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cores: u32, threads: Option<u32>) -> MachineShare {
        MachineShare { cores, threads, takes_turns: true, ..MachineShare::default() }
    }

    #[test]
    fn replicas_share_the_cores_and_each_has_one_thread_at_least() {
        let threads = [1, 2, 3, 8, 100].map(|replicas| machine(8, None).threads(replicas));
        assert_eq!(threads, [8, 4, 2, 1, 1]);
        assert_eq!(machine(8, Some(3)).threads(100), 3);
        assert_eq!(MachineShare::default().threads(1), 1);
    }

    #[test]
    fn no_more_replicas_execute_at_once_than_the_cores_take_with_their_threads() {
        let most = [1, 2, 3, 8, 100].map(|replicas| machine(8, None).running_max(replicas));
        assert_eq!(most, [None, None, None, None, Some(8)]);
        let most = [1, 2, 3, 4].map(|replicas| machine(8, Some(4)).running_max(replicas));
        assert_eq!(most, [None, None, Some(2), Some(2)]);
        assert_eq!(machine(2, Some(4)).running_max(3), Some(1));
        assert_eq!(MachineShare { takes_turns: false, ..machine(2, Some(4)) }.running_max(3), None);
        assert_eq!(MachineShare { running_max: Some(5), ..machine(2, Some(4)) }.running_max(3), Some(5));
    }

    #[test]
    fn pinned_replicas_get_cores_of_their_own_while_there_are_enough() {
        let pinned = |cpus: &[usize], replicas: u32, threads: u32| -> Vec<Vec<usize>> {
            let cpus = cpus.to_vec();
            let machine = MachineShare { cpus, pin: true, threads: Some(threads), ..MachineShare::default() };
            let placements =
                (0..replicas as usize).map(|replica| Placement { replica, replicas, is_spare: false });
            placements.map(|placement| machine.cpus_of(placement)).collect()
        };
        assert_eq!(pinned(&[0, 2, 4, 6], 2, 2), [[0, 2], [4, 6]]);
        assert_eq!(pinned(&[0, 2], 3, 1), [[0], [2], [0]]);
        assert_eq!(pinned(&[0, 2], 1, 4), [[0, 2]]);
        let machine = MachineShare { cpus: vec![0, 1], cores: 2, pin: true, ..MachineShare::default() };
        assert!(machine.cpus_of(Placement { is_spare: true, ..Placement::ALONE }).is_empty());
        assert!(MachineShare { pin: false, ..machine }.cpus_of(Placement::ALONE).is_empty());
    }
}

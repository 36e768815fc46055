//! Settings as the data plane receives them: one value from the control plane, already checked.
//!
//! Python declares every setting once, with its meaning, unit, default and reason (`inferd/spec`); these
//! structs are the resolved form. Unknown fields are refused, so the two sides can't drift apart in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::compare::Tolerance;
use crate::{DataType, Signature};

/// A duration that crosses as a number of seconds.
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
    /// Data port: HTTP/1.1, HTTP/2 and gRPC. 0 takes a free one.
    pub port: u16,
    /// Port of the metrics, always on loopback. 0 takes a free one; `None` serves none.
    pub metrics_port: Option<u16>,
    /// Reactor threads of the gateway.
    pub gateway_threads: usize,
    /// Largest body, as sent and as unpacked.
    pub body_max_bytes: usize,
    /// Most bytes of requests that are read, queued or run, over all models.
    pub inflight_max_bytes: usize,
    /// Largest head of an HTTP request.
    pub header_max_bytes: usize,
    /// Deepest nesting of a JSON body.
    pub json_depth_max: usize,
    /// Most open connections.
    pub connections_max: usize,
    /// Most concurrent streams of one HTTP/2 connection.
    pub streams_max: u32,
    /// Longest time to send a head.
    pub header_timeout_s: Seconds,
    /// Longest time to send a body.
    pub body_timeout_s: Seconds,
    /// Longest time that stopping waits for admitted requests.
    pub drain_timeout_s: Seconds,
    /// Where spans go (OTLP over gRPC); `None` makes none.
    pub otlp_endpoint: Option<String>,
    /// Whether tensors may stand in shared memory that clients register.
    pub shared_memory: bool,
    /// Folder of the files for the page at `/docs`; `None`: there is no page.
    #[serde(default)]
    pub docs_folder: Option<PathBuf>,
    /// Header that names the tenant of a request; `None`: nobody is told from anybody.
    pub tenant_header: Option<String>,
    /// Shares of tenants relative to each other and to unknown ones, which have 1.
    #[serde(default)]
    pub tenants: BTreeMap<String, u32>,
}

/// A latency objective: `percentile` of the requests within `latency_s`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// From admission to answer.
    pub latency_s: Seconds,
    /// In per cent, e.g. 99.
    pub percentile: f64,
}

/// Which dimension of an input may be filled up, so that requests of different lengths share a batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaddedInput {
    /// The dimension, which the signature leaves free; not the first.
    pub axis: usize,
    /// What it is filled up with.
    pub value: f64,
}

/// Which dimension of an output is as long as the padded inputs, and is cut back to what each request sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutOutput {
    /// The dimension.
    pub axis: usize,
}

/// How inputs of different lengths are made equal; by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaddingSettings {
    /// Inputs that are filled up; those of one request have one length.
    pub inputs: BTreeMap<String, PaddedInput>,
    /// Outputs that are cut back.
    pub outputs: BTreeMap<String, CutOutput>,
}

/// What the gateway itself puts into an input that no client sends. One element for each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// Whether the row is the first of its sequence: BOOL, FP32 or an integer of 0 or 1.
    SequenceStart,
    /// Whether it is the last.
    SequenceEnd,
    /// Always 1: rows that nobody sent are not run.
    SequenceReady,
    /// The sequence's name: an integer or BYTES.
    SequenceId,
    /// What came with the request, as JSON in BYTES: `id`, `headers`, `parameters`, `sequence` and `deadline_ns` on the
    /// machine's monotonic clock.
    Context,
    /// BOOL: turns true in the middle of a run where nobody waits for the row any more.
    Cancelled,
}

/// A tensor that a model gives with each answer of a sequence and gets back with its next request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateSettings {
    /// The input that gets it; zeros (or empty strings) at first.
    pub input: String,
    /// The output that gives it.
    pub output: String,
    /// Its shape at first, the batch dimension included; `None`: as the input says, which leaves no size open then.
    #[serde(default)]
    pub shape: Option<Vec<u64>>,
}

/// Requests that belong together, with what the model remembers between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequenceSettings {
    /// A sequence that nobody asked for so long is forgotten.
    pub idle_max_s: Seconds,
    /// Most sequences at once.
    pub sequences_max: usize,
    /// Inputs that tell the model where in a sequence it is.
    #[serde(default)]
    pub controls: BTreeMap<String, Control>,
    /// What is remembered for the model. Empty: it remembers by itself, and has one replica.
    #[serde(default)]
    pub state: Vec<StateSettings>,
}

/// How a worker process comes to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Launch {
    /// A program of its own.
    Exec {
        /// The program and its arguments. It finds its channel as the descriptor whose number is appended as the
        /// last argument.
        command: Vec<String>,
    },
    /// A fork of the zygote that this command starts; equal commands share one zygote.
    Zygote {
        /// The program and its arguments, as for `Exec`.
        command: Vec<String>,
    },
}

/// What classes are called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelSettings {
    /// By the number of the class.
    pub names: Vec<std::sync::Arc<str>>,
    /// The file that they come from, as it was named; shown in the configuration.
    pub file: Option<String>,
}

/// A request that is run while a replica is warmed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// How errors call it.
    pub name: String,
    /// Rows that it is repeated to; `None`: those that it has.
    pub rows: Option<u32>,
    /// How often it is run.
    pub count: u32,
    /// By the input's name; empty: zeros.
    pub inputs: BTreeMap<String, SampleInput>,
}

/// One input of a sample.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleInput {
    /// What the input must be of; `None`: whatever it is of.
    pub datatype: Option<DataType>,
    /// Its dimensions; `None`: as the values are nested.
    pub shape: Option<Vec<u64>>,
    /// Its elements.
    pub data: SampleData,
}

/// Where the elements of a sample come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SampleData {
    /// Zeros, and empty strings.
    Zeros,
    /// Made up, the same every time: numbers from 0 to 1, words.
    Random,
    /// Plain JSON: nested as the shape, or flat where that is given.
    Values(serde_json::Value),
    /// The protocol's raw form, in base64.
    Raw(String),
}

/// How rows that come are compared, alone and in company.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Comparison {
    /// Whether requests run one at a time until enough rows were compared, where nothing proves that they may share a run.
    pub verify: bool,
    /// What is no difference.
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
    /// The name in every path.
    pub name: String,
    /// The version; positive.
    pub version: u64,
    /// What `platform` says in the metadata, e.g. `onnx_onnxruntime`.
    pub platform: String,
    /// How a worker is started.
    pub launch: Launch,
    /// The worker's environment: nothing else is handed on.
    pub env: BTreeMap<String, String>,
    /// What the worker needs to load the model; opaque to the data plane.
    pub load: serde_json::Value,
    /// Directory that the worker runs in.
    pub directory: Option<PathBuf>,
    /// Number of workers.
    pub replicas: u32,
    /// How its replicas share the machine.
    #[serde(default)]
    pub machine: MachineShare,
    /// Most rows that run together.
    pub batch_rows_max: u32,
    /// How rows that come are compared, alone and in company.
    #[serde(default)]
    pub comparison: Comparison,
    /// How inputs of different lengths share a batch; `None`: only equal ones do.
    pub padding: Option<PaddingSettings>,
    /// The objective; `None`: best effort.
    pub slo: Option<Objective>,
    /// Class of requests that don't say.
    pub priority_default: u8,
    /// Most rows that wait.
    pub queue_rows_max: usize,
    /// Most bytes that wait.
    pub queue_max_bytes: usize,
    /// Whether a request whose worker died is run again.
    pub retry_on_worker_loss: bool,
    /// Longest run of a batch; past it the worker is killed. `None`: a run may take as long as it takes.
    pub execution_max_s: Option<Seconds>,
    /// How many times its objective a request waits that can no longer meet it, before it is refused.
    pub late_wait_objectives: f64,
    /// Longest loading and warm-up.
    pub load_max_s: Seconds,
    /// Workers that suspects may kill in a minute.
    pub kills_per_minute_max: u32,
    /// Largest shared memory of one replica.
    pub arena_max_bytes: usize,
    /// Whether a real inference must pass before a replica is ready.
    pub warmup: bool,
    /// What is run for that; empty: one row of zeros.
    #[serde(default)]
    pub samples: Vec<Sample>,
    /// Inputs that a request may leave out, and what they are then; null: as the model itself has them.
    #[serde(default)]
    pub optional: BTreeMap<String, serde_json::Value>,
    /// Names of classes, by the output that holds their scores.
    #[serde(default)]
    pub labels: BTreeMap<String, LabelSettings>,
    /// Whether the latency curve is measured on idle capacity after the first replica is ready.
    pub profiling: bool,
    /// A latency curve measured before: pairs of rows and seconds. Empty: not known.
    pub profile: Vec<(u32, f64)>,
    /// Whether a batch smaller than the recent load waits a moment for more rows.
    pub linger: bool,
    /// Whether a replica that fails or is far slower than the others is left out for a while.
    pub ejection: bool,
    /// Most batches that are run again on an idle replica because they take too long, as a share of all; 0: none.
    pub hedge_budget: f64,
    /// How sequences of requests are answered; `None`: as the worker says, or not at all.
    pub sequence: Option<SequenceSettings>,
    /// Most bytes of answers that are kept and given again to equal requests; `None`: every request is run.
    pub cache_max_bytes: Option<usize>,
}

/// Settings of a pipeline: steps over models that are loaded, one name, one objective.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineSettings {
    /// The name in every path.
    pub name: String,
    /// The end-to-end objective; `None`: best effort.
    pub slo: Option<Objective>,
    /// Class of requests that don't say.
    pub priority_default: u8,
    /// The steps, in any order: each begins when what it needs is there.
    pub steps: Vec<StepSettings>,
    /// What the pipeline gives: names, and where each comes from (the first of these that ran).
    pub outputs: Vec<(String, Vec<String>)>,
}

/// One step of a pipeline. A tensor is named `step.output`, or by the name of an input of the pipeline.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepSettings {
    /// Its name in the pipeline.
    pub name: String,
    /// The models that run it, with the share of requests that each gets.
    pub models: Vec<(String, u32)>,
    /// For each input of the model, the tensor that it gets: the first of these whose step ran.
    pub inputs: Vec<(String, Vec<String>)>,
    /// When it runs; `None`: always.
    pub when: Option<When>,
    /// Whether the pipeline goes on without it when it fails.
    pub optional: bool,
}

/// A condition on a tensor's value.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// The tensor. All its elements must pass, or none.
    pub tensor: String,
    /// What passes.
    pub test: Test,
}

/// What values pass.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Test {
    /// Those in this list: numbers, or text for BYTES.
    In(Vec<serde_json::Value>),
    /// Numbers greater than this.
    Above(f64),
    /// Numbers less than this.
    Below(f64),
}

/// What a worker tells when its model is loaded.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadedModel {
    /// What it takes and gives.
    pub signature: Signature,
    /// Facts for the start-up table, e.g. `{"runtime": "onnxruntime 1.32"}`.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// Inputs of the signature that no client sends.
    #[serde(default)]
    pub controls: BTreeMap<String, Control>,
    /// How the model wants sequences to be answered, where its settings don't say.
    #[serde(default)]
    pub sequence: Option<SequenceSettings>,
}

impl LoadedModel {
    /// A model whose every tensor clients see.
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

"""Every setting, declared once: type, default, meaning, unit and the reason for the default.

Read by the loader, the command line, the JSON schema and the reference table, which are all derived from it. Knows
nothing of how a setting is used. Names are the data plane's, so that its errors name what a user can write.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from inferd.spec.declare import about
from inferd.spec.samples import Sample  # noqa: TC001 (msgspec reads the annotations)
from inferd.spec.values import Objective, Padding, Sequences, Versions
from inferd.types import TensorSpec  # noqa: TC001 (msgspec reads the annotations)

__all__ = [
    "NAME_PATTERN",
    "ModelSpec",
    "RuntimeName",
    "ServerSpec",
]

RuntimeName = Literal[
    "onnx",
    "python",
    "sklearn",
    "xgboost",
    "lightgbm",
    "catboost",
    "openvino",
    "litert",
    "torch",
    "mlflow",
    "huggingface",
    "tensorflow",
]

KiB, MiB, GiB = 2**10, 2**20, 2**30

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"


class ServerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Server-wide settings: ``server:`` in ``inferd.yaml``."""

    host: Annotated[
        str,
        about(
            "Address that the data port binds to.",
            why="Not reachable from other hosts by default; the metrics port stays on loopback in any case.",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        about(
            "Data port: HTTP/1.1, HTTP/2 and gRPC. 0: any free port.",
            why="The default of Open Inference Protocol clients.",
            ge=0,
            le=65535,
        ),
    ] = 8000
    metrics_port: Annotated[
        int | None,
        about(
            "Port of the Prometheus metrics, always on loopback. 0: any free port; null: disabled.",
            why="The default of Prometheus configurations for model servers.",
            ge=0,
            le=65535,
        ),
    ] = 8002
    gateway_threads: Annotated[
        int | None,
        about(
            "Threads that read, decode and answer requests. null: one per four cores.",
            why="One thread serves tens of thousands of small requests per second; cores are for models.",
            ge=1,
            le=256,
        ),
    ] = None
    body_max_bytes: Annotated[
        int,
        about(
            "Maximum request body size, both compressed and decompressed.",
            why="Fits a batch of 100 FP32 images of 224 × 224.",
            kind="size",
            ge=1,
        ),
    ] = 64 * MiB
    inflight_max_bytes: Annotated[
        int,
        about(
            "Maximum total size of requests being read, queued or run, over all models.",
            why="Sixteen maximum-size bodies: overload causes refusals, not an out-of-memory kill.",
            kind="size",
            ge=1,
        ),
    ] = 1 * GiB
    header_max_bytes: Annotated[
        int,
        about("Maximum size of request headers.", why="The limit of common proxies.", kind="size", ge=KiB, le=MiB),
    ] = 32 * KiB
    json_depth_max: Annotated[
        int,
        about(
            "Maximum nesting depth of a JSON body.",
            why="Tensors have at most 8 dimensions; the rest is for parameters.",
            ge=8,
            le=512,
        ),
    ] = 64
    connections_max: Annotated[
        int,
        about("Maximum number of open connections.", why="Each may buffer headers and data.", ge=1, le=1_000_000),
    ] = 10_000
    streams_max: Annotated[
        int,
        about(
            "Maximum number of concurrent streams per HTTP/2 connection.",
            why="The limit of common gRPC servers.",
            ge=1,
            le=100_000,
        ),
    ] = 256
    header_timeout_s: Annotated[
        float,
        about("Time limit to receive request headers.", why="Slow clients must not hold connections.", kind="duration"),
    ] = 30.0
    body_timeout_s: Annotated[
        float, about("Time limit to receive a request body.", why="Enough for 64 MiB at 2.3 MB/s.", kind="duration")
    ] = 30.0
    drain_timeout_s: Annotated[
        float,
        about(
            "Time limit for draining: how long shutdown waits for admitted requests.",
            why="Below the 30 s grace period of Kubernetes.",
            kind="duration",
        ),
    ] = 25.0
    otlp_endpoint: Annotated[
        str | None,
        about(
            "OTLP gRPC endpoint that receives spans, e.g. http://127.0.0.1:4317. null: tracing is disabled.",
            why="Tracing is opt-in.",
        ),
    ] = None
    shared_memory: Annotated[
        bool,
        about(
            "Whether clients on this machine may register shared memory (/dev/shm) and pass tensors in it.",
            why="Anyone who can reach the port could read and write every such object of the user that runs inferd.",
        ),
    ] = False
    docs: Annotated[
        bool,
        about(
            "Whether /docs serves a page to try every model. Its files come with the extra docs.",
            why="It shows only what /openapi.json already serves, and sends only what its reader could send.",
        ),
    ] = True
    tenant_header: Annotated[
        str | None,
        about(
            "Header (or gRPC metadata) that names the tenant of a request, e.g. x-tenant; tenants share each model by"
            " their weights. null: tenancy is disabled.",
            why="Only a trusted proxy in front of inferd can vouch for the header.",
            pattern=r"^[A-Za-z0-9-]{1,64}$",
        ),
    ] = None
    tenants: Annotated[
        dict[str, Annotated[int, msgspec.Meta(ge=1, le=1000)]],
        about(
            "Weights of tenants: {gold: 4, silver: 2}. Other tenants have weight 1 and no label in the metrics.",
            why="Equal weights need no list.",
            flag=False,
        ),
    ] = msgspec.field(default_factory=dict)
    log_format: Annotated[
        Literal["text", "json"],
        about("Format of the log on stderr.", why="Readable in a terminal; log collectors need json."),
    ] = "text"
    log_level: Annotated[
        str,
        about(
            "Log level: error, warn, info, debug, or a filter such as info,worker=debug.",
            why="The usual default.",
        ),
    ] = "info"


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, rename={"class_": "class"}):
    """Settings of one model: ``model.yaml``, an entry of ``models:`` or ``defaults:`` in ``inferd.yaml``."""

    name: Annotated[
        str | None,
        about(
            "The model's name in URLs. null: the name of its file or folder.",
            why="The likely choice.",
            scope="one",
            pattern=NAME_PATTERN,
        ),
    ] = None
    file: Annotated[
        str | None,
        about(
            "The model's file or folder inside a version's folder; in a Hugging Face folder, the ONNX model:"
            " onnx/model_quantized.onnx. null: model with the extension of a runtime, such as model.onnx, or the"
            " version's folder itself.",
            why="The common layout of model repositories.",
            scope="one",
            flag=False,
            pattern=r"^(?!\.\.?(/|$))[^/]+(/(?!\.\.?$)[^/]+)?$",
        ),
    ] = None
    versions: Annotated[
        Versions,
        about(
            "Versions to serve: latest, {latest: N}, all, or a list of numbers.",
            why="A new version replaces the old one once it is ready.",
            kind="versions",
            flag=False,
        ),
    ] = Versions()
    runtime: Annotated[
        RuntimeName | None,
        about(
            "Runtime that runs the model. null: detected from the file's extension and first bytes.",
            why="The file usually determines it.",
            scope="one",
            flag=False,
        ),
    ] = None
    class_: Annotated[
        str | None,
        about(
            "The class to load from a Python file. null: the only class in it with load and predict.",
            why="Most files define one.",
            scope="one",
            flag=False,
        ),
    ] = None
    inputs: Annotated[
        tuple[TensorSpec, ...] | None,
        about(
            "Inputs of a model that runs in Python: name, datatype and shape of each. null: those that the model"
            " declares. For an ONNX model: the inputs it is required to have.",
            why="Most models declare them.",
            kind="tensors",
            scope="one",
            flag=False,
        ),
    ] = None
    outputs: Annotated[
        tuple[TensorSpec, ...] | None,
        about(
            "Outputs of the model, in the same form as inputs.",
            why="Most models declare them.",
            kind="tensors",
            scope="one",
            flag=False,
        ),
    ] = None
    optional: Annotated[
        dict[str, Any],
        about(
            "Optional inputs, and the value of each row if a request omits them: {top: 5}. One value fills every"
            " element of a row. null: the model's own default (an ONNX initializer of the input's name, or the default"
            " of a method's argument).",
            why="A default changes answers: only the model or its owner can choose one.",
            kind="values",
            scope="one",
            flag=False,
        ),
    ] = msgspec.field(default_factory=dict)
    labels: Annotated[
        dict[str, str | list[str]],
        about(
            "Class names of an output that holds scores, for the classification extension: {scores: [cat, dog]}, or a"
            " file next to the version folders with one name per line.",
            why="Most models don't store them.",
            scope="one",
            flag=False,
        ),
    ] = msgspec.field(default_factory=dict)
    parameters: Annotated[
        dict[str, Any],
        about(
            "Arguments for a Python model's load(), and options of other runtimes.",
            why="Most models need none.",
            scope="one",
            flag=False,
        ),
    ] = msgspec.field(default_factory=dict)
    python: Annotated[
        str | None,
        about(
            "Interpreter for Python models, with inferd installed in it. null: the interpreter that runs inferd.",
            why="Few models need other dependencies.",
        ),
    ] = None
    trusted_sha256: Annotated[
        str | None,
        about(
            "SHA-256 of a model file (or folder) that may execute code when it is loaded, e.g. a pickle. The error that"
            " refuses such a file shows it. null: none.",
            why="A pickle can execute any code on load.",
            scope="one",
            flag=False,
            pattern=r"^[0-9a-f]{64}$",
        ),
    ] = None
    faster: Annotated[
        bool,
        about(
            "Whether a scikit-learn, XGBoost or LightGBM model is served from ONNX if that gives the same answers"
            " faster. It is converted and compared once, at the first load.",
            why="The same answers in a fraction of the time, without Python on the request path.",
        ),
    ] = True
    faster_tolerance: Annotated[
        float | None,
        about(
            "Maximum difference between the two that counts as equal, as a fraction of the value, or of a thousandth of"
            " the output's usual magnitude if the value is smaller. A label may differ where its score is that close to"
            " the library's. null: the precision of the output, 1e-10 for FP64 and 1e-6 for FP32.",
            why="Keeps the library's precision. inferd explain shows what a larger tolerance would allow.",
            ge=0,
        ),
    ] = None
    env: Annotated[
        dict[str, str | None],
        about(
            "Environment variables for the worker, in addition to the few that every worker gets. null:"
            " inferd's own value.",
            why="Workers see no secrets by default.",
            flag=False,
        ),
    ] = msgspec.field(default_factory=dict)
    slo: Annotated[
        Objective | None,
        about(
            "Latency objective: 20ms, or {latency: 20ms, percentile: 99}. null: best effort.",
            why="Only its owner knows the latency a model needs.",
            kind="objective",
        ),
    ] = None
    replicas: Annotated[
        int,
        about("Worker processes of the model.", why="One replica uses every core through its threads.", ge=1, le=256),
    ] = 1
    threads: Annotated[
        int | None,
        about(
            "Threads per replica. null: its share of the cores available to this process.",
            why="Replicas that share cores slow each other down.",
            ge=1,
            le=1024,
        ),
    ] = None
    running_max: Annotated[
        int | None,
        about(
            "Maximum number of replicas that run at once. null: for ONNX models on CPU, as many as the cores hold with"
            " their threads, else all.",
            why="Concurrent replicas on the same cores are slower than sequential ones.",
            ge=1,
            le=256,
        ),
    ] = None
    pin: Annotated[
        bool,
        about(
            "Whether to pin each replica to its own cores.",
            why="It helps only if inferd has the machine to itself.",
        ),
    ] = False
    device: Annotated[
        str,
        about(
            "Where the model runs: cpu, or cuda:N with onnxruntime-gpu installed (no GPU was at hand to test it on).",
            why="Every machine has a CPU.",
            pattern=r"^(cpu|cuda:[0-9]{1,3})$",
        ),
    ] = "cpu"
    batching: Annotated[
        Literal["auto", "verify", "on", "off"],
        about(
            "Whether requests share a run. auto: if a proof, or a probe at load, shows that batched rows equal rows run"
            " alone; a probe's result is audited with live rows, and a difference disables batching until the next"
            " load. verify: without a proof, each request runs alone and whole until 400 live rows were rerun in"
            " batches, in idle time, without a difference.",
            why="A dynamic dimension 0 need not be a batch dimension.",
            kind="batching",
        ),
    ] = "auto"
    batch_rows_max: Annotated[
        int | None,
        about(
            "Maximum number of rows per batch. A larger request is split and its answer joined; with batching off, or"
            " not verified yet, it runs whole. null: with an objective, as many as the objective and the measured batch"
            " latency allow, at most 128; else 32.",
            why="An objective bounds the wait, and larger batches absorb larger bursts. Without one, most models gain"
            " little past 32 rows and every caller waits longer.",
            ge=1,
            le=65536,
        ),
    ] = None
    padding: Annotated[
        Padding | None,
        about(
            "Inputs of different lengths that share a batch: {inputs: {tokens: {axis: 1, value: 0}, mask: {axis: 1}},"
            " outputs: {scores: {axis: 1}}}. Each input is padded to the longest in its batch, each output cut back."
            " null: only inputs of equal shape share a batch.",
            why="Only its owner knows that the model masks the padding.",
            kind="padding",
            flag=False,
        ),
    ] = None
    batch_tolerance_absolute: Annotated[
        float,
        about(
            "Maximum absolute difference that counts as equal, in the probe and in the audit of live rows.",
            why="Rounding depends on the order of sums.",
            ge=0,
        ),
    ] = 1e-5
    batch_tolerance_relative: Annotated[
        float,
        about(
            "Maximum relative difference that counts as equal.",
            why="FP32 has about seven digits; a deep model loses a few.",
            ge=0,
        ),
    ] = 1e-3
    linger: Annotated[
        bool,
        about(
            "Whether a batch below the recent load waits (at most about 1 ms) for more rows.",
            why="Callers answered together return together; a lone caller never waits.",
        ),
    ] = True
    ejection: Annotated[
        bool,
        about(
            "Whether to eject a replica that fails, or takes three times as long as the others, for 5 s, longer each"
            " time; at most one in three.",
            why="One bad replica would delay its share of all answers.",
        ),
    ] = True
    hedge_budget: Annotated[
        float,
        about(
            "Maximum share of batches to hedge: run again on an idle replica because they take longer than 95 % of"
            " runs; the first result answers. 0: none.",
            why="It costs capacity, and helps only if runs are slow by chance, not by input. 0.05 is usual.",
            ge=0,
            le=1,
        ),
    ] = 0.0
    priority_default: Annotated[
        int,
        about(
            "Priority of requests without one; 0 is served first.",
            why="The middle of three: leaves room on both sides.",
            ge=0,
            le=255,
        ),
    ] = 1
    queue_rows_max: Annotated[
        int,
        about(
            "Maximum number of queued rows. Beyond it requests are refused with 503.",
            why="A hundred full batches: longer queues only add latency.",
            ge=1,
            le=10_000_000,
        ),
    ] = 4096
    queue_max_bytes: Annotated[
        int, about("Maximum size of queued requests.", why="Four maximum-size bodies.", kind="size", ge=1)
    ] = 256 * MiB
    cache_max_bytes: Annotated[
        int | None,
        about(
            "Maximum size of the response cache, which answers equal requests; concurrent equal requests run once."
            " null: no cache.",
            why="Only its owner knows that a model is deterministic and that requests repeat.",
            kind="size",
            ge=KiB,
        ),
    ] = None
    sequence: Annotated[
        Sequences | None,
        about(
            "Stateful requests, grouped by the parameter sequence_id: {idle_max: 60s, sequences_max: 10000, start:"
            " INPUT, end: INPUT, ready: INPUT, id: INPUT, state: {INPUT: OUTPUT}}, every key optional. The server keeps"
            " the tensors of state between requests; without it the model keeps its own state and has one replica."
            " null: every request is independent.",
            why="Most models are stateless.",
            kind="sequence",
            scope="one",
            flag=False,
        ),
    ] = None
    retry_on_worker_loss: Annotated[
        bool,
        about(
            "Whether to retry a request whose worker died. false: it is answered 503 at once.",
            why="Most models have no side effects; set it to false for one that has.",
        ),
    ] = True
    execution_max_s: Annotated[
        float | None,
        about(
            "Time limit of one run; past it the run is asked to stop, and its worker is killed half a second later."
            " null: no limit. An unusually long run gets a spare replica, and one that no caller waits for is stopped"
            " after the larger of ten seconds and twenty times the usual time.",
            why="Only its owner knows how long a run of the model may take.",
            kind="duration",
        ),
    ] = None
    late_wait_objectives: Annotated[
        float,
        about(
            "How long a request that can no longer meet its objective waits, in multiples of the objective, before it"
            " is refused with 503 and Retry-After. Requests that can still meet theirs go first.",
            why="Under lasting overload it would wait until the load ends; four times the objective outlasts a burst.",
            ge=1,
            le=1000,
        ),
    ] = 4.0
    load_max_s: Annotated[
        float,
        about("Time limit for loading and warm-up.", why="Enough for gigabytes from a slow disk.", kind="duration"),
    ] = 600.0
    kills_per_minute_max: Annotated[
        int,
        about(
            "Maximum workers per minute that suspect requests may kill; beyond it they are answered WorkerLost.",
            why="Finding one poison request among 32 takes about ten kills.",
            ge=1,
            le=1000,
        ),
    ] = 20
    arena_max_bytes: Annotated[
        int,
        about(
            "Maximum shared memory of one replica; each of its two batches gets half.",
            why="Batches of the largest bodies fit; untouched pages take no memory.",
            kind="size",
            ge=MiB,
        ),
    ] = 1 * GiB
    warmup: Annotated[
        bool | tuple[Sample, ...],
        about(
            "Whether a real inference must succeed before a replica is ready. A list of requests runs instead of zeros,"
            " and each must succeed: {inputs: {text: [a good day]}, rows: 8, count: 3}, values as in plain requests, or"
            " {file: request.json} in the folder warmup next to the version folders, a body of /v2/models/NAME/infer.",
            why="The first run is the slow one.",
            kind="warmup",
        ),
    ] = True
    profiling: Annotated[
        bool,
        about(
            "Whether to measure the latency of every batch size on idle capacity once the model is ready.",
            why="The objective holds from the first burst.",
        ),
    ] = True

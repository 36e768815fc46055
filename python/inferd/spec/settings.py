"""Every setting, once: its type, default, meaning, unit, and why the default is what it is.

Read by the loader, the command line, the JSON schema and the reference table, which are all derived from here.
Knows nothing of how a setting is used. Names are the data plane's, so that its errors name what a user can write.
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
    """Settings of the server as a whole: ``server:`` in ``inferd.yaml``."""

    host: Annotated[
        str,
        about(
            "Address of the data port.",
            why="Nothing is reachable from outside until someone says so; metrics stay on loopback even then.",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        about(
            "Data port: HTTP/1.1, HTTP/2 and gRPC. 0 takes a free one.",
            why="Where clients of the Open Inference Protocol look first.",
            ge=0,
            le=65535,
        ),
    ] = 8000
    metrics_port: Annotated[
        int | None,
        about(
            "Port of the metrics, always on loopback. 0 takes a free one, null serves none.",
            why="Where Prometheus configurations for model servers look first.",
            ge=0,
            le=65535,
        ),
    ] = 8002
    gateway_threads: Annotated[
        int | None,
        about(
            "Threads that read, decode and answer requests. null: one for every four cores.",
            why="A thread answers tens of thousands of small requests a second; cores are for models.",
            ge=1,
            le=256,
        ),
    ] = None
    body_max_bytes: Annotated[
        int,
        about(
            "Largest body of a request, as sent and as unpacked.",
            why="Room for a batch of 100 images of 224 × 224 in FP32.",
            kind="size",
            ge=1,
        ),
    ] = 64 * MiB
    inflight_max_bytes: Annotated[
        int,
        about(
            "Most bytes of requests that are read, queued or run, over all models together.",
            why="Sixteen of the largest bodies: overload ends in refusals, not in a killed process.",
            kind="size",
            ge=1,
        ),
    ] = 1 * GiB
    header_max_bytes: Annotated[
        int,
        about("Largest head of a request.", why="What common proxies accept.", kind="size", ge=KiB, le=MiB),
    ] = 32 * KiB
    json_depth_max: Annotated[
        int,
        about(
            "Deepest nesting of a JSON body.",
            why="Tensors have at most 8 dimensions; the rest is room for parameters.",
            ge=8,
            le=512,
        ),
    ] = 64
    connections_max: Annotated[
        int,
        about("Most open connections.", why="Each may hold a head and a socket's buffers.", ge=1, le=1_000_000),
    ] = 10_000
    streams_max: Annotated[
        int,
        about(
            "Most concurrent streams of one HTTP/2 connection.",
            why="What gRPC servers allow.",
            ge=1,
            le=100_000,
        ),
    ] = 256
    header_timeout_s: Annotated[
        float,
        about("Longest time to send a head.", why="Slow senders must not hold connections.", kind="duration"),
    ] = 30.0
    body_timeout_s: Annotated[
        float, about("Longest time to send a body.", why="64 MiB at 2 MB/s takes 30 s.", kind="duration")
    ] = 30.0
    drain_timeout_s: Annotated[
        float,
        about(
            "Longest time that stopping waits for admitted requests.",
            why="Shorter than the 30 s after which Kubernetes kills.",
            kind="duration",
        ),
    ] = 25.0
    otlp_endpoint: Annotated[
        str | None,
        about(
            "Where spans go (OTLP over gRPC), e.g. http://127.0.0.1:4317. null makes none.",
            why="Tracing is opt-in.",
        ),
    ] = None
    shared_memory: Annotated[
        bool,
        about(
            "Whether clients on this machine may register shared memory (/dev/shm) and leave tensors in it.",
            why="Whoever reaches the port could read and write every such object of the user that runs inferd.",
        ),
    ] = False
    docs: Annotated[
        bool,
        about(
            "Whether /docs shows a page on which every model can be asked. Its files come with the extra docs.",
            why="It shows what /openapi.json says to everyone anyway, and sends what its reader could send.",
        ),
    ] = True
    tenant_header: Annotated[
        str | None,
        about(
            "Header (or gRPC metadata) that names the tenant of a request, e.g. x-tenant; tenants share each model by"
            " their weights. null: all requests are alike.",
            why="Only who sets the header before inferd can vouch for it.",
            pattern=r"^[A-Za-z0-9-]{1,64}$",
        ),
    ] = None
    tenants: Annotated[
        dict[str, Annotated[int, msgspec.Meta(ge=1, le=1000)]],
        about(
            "Weights of tenants: {gold: 4, silver: 2}. Others have 1, and no label in the metrics.",
            why="Equal shares need no list.",
            flag=False,
        ),
    ] = msgspec.field(default_factory=dict)
    log_format: Annotated[
        Literal["text", "json"],
        about("Form of the log on stderr.", why="A person reads it first; collectors want json."),
    ] = "text"
    log_level: Annotated[
        str,
        about(
            "How much is logged: error, warn, info, debug, or a filter such as info,worker=debug.",
            why="As usual.",
        ),
    ] = "info"


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, rename={"class_": "class"}):
    """Settings of one model: ``model.yaml``, an entry of ``models:`` or ``defaults:`` in ``inferd.yaml``."""

    name: Annotated[
        str | None,
        about(
            "The model's name in every path. null: the name of its file or folder.",
            why="What one would have typed.",
            scope="one",
            pattern=NAME_PATTERN,
        ),
    ] = None
    file: Annotated[
        str | None,
        about(
            "The model's file or folder inside a version's folder; of a Hugging Face folder also the ONNX model in it:"
            " onnx/model_quantized.onnx. null: model with the ending of a runtime, such as model.onnx, or the version's"
            " folder itself.",
            why="The layout that model repositories share.",
            scope="one",
            flag=False,
            pattern=r"^(?!\.\.?(/|$))[^/]+(/(?!\.\.?$)[^/]+)?$",
        ),
    ] = None
    versions: Annotated[
        Versions,
        about(
            "Versions to serve: latest, {latest: N}, all, or a list of numbers.",
            why="A new version takes over once it is there.",
            kind="versions",
            flag=False,
        ),
    ] = Versions()
    runtime: Annotated[
        RuntimeName | None,
        about(
            "What runs the model. null: what its file says, by its ending and its first bytes.",
            why="The file knows.",
            scope="one",
            flag=False,
        ),
    ] = None
    class_: Annotated[
        str | None,
        about(
            "The class to load from a Python file. null: the only one in it that has load and predict.",
            why="Most files hold one.",
            scope="one",
            flag=False,
        ),
    ] = None
    inputs: Annotated[
        tuple[TensorSpec, ...] | None,
        about(
            "Inputs of a model that runs in Python: name, datatype and shape of each. null: what the model says. Of an"
            " ONNX model: what it must have.",
            why="Most models know.",
            kind="tensors",
            scope="one",
            flag=False,
        ),
    ] = None
    outputs: Annotated[
        tuple[TensorSpec, ...] | None,
        about(
            "Outputs of such a model, as inputs.",
            why="Most models know.",
            kind="tensors",
            scope="one",
            flag=False,
        ),
    ] = None
    optional: Annotated[
        dict[str, Any],
        about(
            "Inputs that a request may leave out, and what a row of each is then: {top: 5}. One value stands for every"
            " element of a row. null: the default that the model itself has (an ONNX initializer of the input's name,"
            " or the default of a method's argument).",
            why="A default changes answers: only the model or its owner has one.",
            kind="values",
            scope="one",
            flag=False,
        ),
    ] = msgspec.field(default_factory=dict)
    labels: Annotated[
        dict[str, str | list[str]],
        about(
            "Names of the classes that an output holds the scores of, for answers of the classification extension:"
            " {scores: [cat, dog]}, or a file beside the versions with one on each line.",
            why="Most models don't know them.",
            scope="one",
            flag=False,
        ),
    ] = msgspec.field(default_factory=dict)
    parameters: Annotated[
        dict[str, Any],
        about(
            "Arguments for a Python model's load(), and what other runtimes need to be told of a model.",
            why="Most need none.",
            scope="one",
            flag=False,
        ),
    ] = msgspec.field(default_factory=dict)
    python: Annotated[
        str | None,
        about(
            "Interpreter for Python models, with inferd installed in it. null: the one that runs inferd.",
            why="Models may differ in their dependencies, most don't.",
        ),
    ] = None
    trusted_sha256: Annotated[
        str | None,
        about(
            "SHA-256 of a model file (or folder) whose code may run when it is loaded: a pickle, say. The message that"
            " refuses one names it. null: none.",
            why="Whoever writes a pickle runs code wherever it is read.",
            scope="one",
            flag=False,
            pattern=r"^[0-9a-f]{64}$",
        ),
    ] = None
    faster: Annotated[
        bool,
        about(
            "Whether a model of scikit-learn, XGBoost or LightGBM is served from ONNX, where that gives the same"
            " answers faster. It is converted and compared once, at the first load.",
            why="The same answers in a fraction of the time, and no Python in their way.",
        ),
    ] = True
    faster_tolerance: Annotated[
        float | None,
        about(
            "Largest difference between the two that counts as the same, as a fraction of the value, or of a thousandth"
            " of the output's usual magnitude where the value is smaller. A label may differ where its score is that"
            " close to the library's. null: the precision of the output, 1e-10 for FP64 and 1e-6 for FP32.",
            why="What a library computes stays exact to its precision. inferd explain tells what more would allow.",
            ge=0,
        ),
    ] = None
    env: Annotated[
        dict[str, str | None],
        about(
            "Environment variables for the worker besides the few that every worker gets. null hands on inferd's own.",
            why="Workers see no secrets that they were not given.",
            flag=False,
        ),
    ] = msgspec.field(default_factory=dict)
    slo: Annotated[
        Objective | None,
        about(
            "Latency objective: 20ms, or {latency: 20ms, percentile: 99}. null: best effort.",
            why="Only its owner knows what a model must keep.",
            kind="objective",
        ),
    ] = None
    replicas: Annotated[
        int,
        about("Worker processes of the model.", why="One uses every core through its threads.", ge=1, le=256),
    ] = 1
    threads: Annotated[
        int | None,
        about(
            "Threads of one replica. null: its share of the cores that this process may use.",
            why="Replicas that share cores slow each other down.",
            ge=1,
            le=1024,
        ),
    ] = None
    running_max: Annotated[
        int | None,
        about(
            "Most replicas that execute at once. null: for ONNX models on CPU as many as the cores take with their"
            " threads, else all.",
            why="Replicas that compute on the same cores are slower together than one after the other.",
            ge=1,
            le=256,
        ),
    ] = None
    pin: Annotated[
        bool,
        about(
            "Whether each replica is pinned to its own cores.",
            why="It helps where inferd has the machine to itself, and hurts elsewhere.",
        ),
    ] = False
    device: Annotated[
        str,
        about(
            "Where the model runs: cpu, or cuda:N with onnxruntime-gpu installed (no GPU was at hand to test it on).",
            why="Every machine has one.",
            pattern=r"^(cpu|cuda:[0-9]{1,3})$",
        ),
    ] = "cpu"
    batching: Annotated[
        Literal["auto", "verify", "on", "off"],
        about(
            "Whether requests share a run. auto: where a proof, or a probe at load, shows that batched rows equal lone"
            " rows; what a probe showed is audited with rows that come, and a difference switches it off until the next"
            " load. verify: where nothing proves it, requests run one at a time, whole, until 400 rows that came were"
            " run once more in company, in idle moments, without a difference.",
            why="That dimension 0 has no fixed size does not make it a batch.",
            kind="batching",
        ),
    ] = "auto"
    batch_rows_max: Annotated[
        int | None,
        about(
            "Most rows that run together. A larger request is cut into parts and answered whole; where batching is off,"
            " or not verified yet, it runs as it came. null: with an objective as many as it and what batches take"
            " allow, at most 128; else 32.",
            why="An objective bounds how long callers wait, and larger batches hold it through larger bursts. Without"
            " one nothing does: past 32 rows most models gain little and every caller waits longer.",
            ge=1,
            le=65536,
        ),
    ] = None
    padding: Annotated[
        Padding | None,
        about(
            "Inputs of different lengths that share a batch: {inputs: {tokens: {axis: 1, value: 0}, mask: {axis: 1}},"
            " outputs: {scores: {axis: 1}}}. Each input is filled up to the longest in its batch, each output cut back."
            " null: only inputs of equal shape share one.",
            why="Only its owner knows that a model's answer does not depend on the padding.",
            kind="padding",
            flag=False,
        ),
    ] = None
    batch_tolerance_absolute: Annotated[
        float,
        about(
            "Largest difference that counts as none, in the probe and between rows that come.",
            why="Rounding differs with the order of sums.",
            ge=0,
        ),
    ] = 1e-5
    batch_tolerance_relative: Annotated[
        float,
        about(
            "The same, relative to the value.",
            why="FP32 keeps some seven digits, a deep model loses a few.",
            ge=0,
        ),
    ] = 1e-3
    linger: Annotated[
        bool,
        about(
            "Whether a batch smaller than the recent load waits a moment (at most about 1 ms) for more rows.",
            why="Callers that were answered together come back together; a lone caller never waits.",
        ),
    ] = True
    ejection: Annotated[
        bool,
        about(
            "Whether a replica that fails, or takes three times what the others take, is left out for a while (5 s, the"
            " next time longer); at most every third.",
            why="One bad replica would make its share of all answers late.",
        ),
    ] = True
    hedge_budget: Annotated[
        float,
        about(
            "Most batches, as a share of all, that are run once more on an idle replica because they take longer than"
            " 95 % of runs do; whoever is done first answers. 0: none.",
            why="It costs work, and helps only where a run is slow by chance and not by its inputs. 0.05 is usual.",
            ge=0,
            le=1,
        ),
    ] = 0.0
    priority_default: Annotated[
        int,
        about(
            "Class of requests that don't say; 0 is served first.",
            why="The middle of three: room on both sides.",
            ge=0,
            le=255,
        ),
    ] = 1
    queue_rows_max: Annotated[
        int,
        about(
            "Most rows that wait. Past it requests are refused with 503.",
            why="A hundred full batches: longer queues only make answers late.",
            ge=1,
            le=10_000_000,
        ),
    ] = 4096
    queue_max_bytes: Annotated[
        int, about("Most bytes that wait.", why="Four of the largest bodies.", kind="size", ge=1)
    ] = 256 * MiB
    cache_max_bytes: Annotated[
        int | None,
        about(
            "Most bytes of answers that are kept and given again to equal requests; equal requests that come together"
            " are run once. null: every request is run.",
            why="Only its owner knows that a model gives equal inputs equal answers, and that they are asked again.",
            kind="size",
            ge=KiB,
        ),
    ] = None
    sequence: Annotated[
        Sequences | None,
        about(
            "Requests that belong together, by the parameter sequence_id: {idle_max: 60s, sequences_max: 10000, start:"
            " INPUT, end: INPUT, ready: INPUT, id: INPUT, state: {INPUT: OUTPUT}}, all of it optional. What state names"
            " is kept by the server from one request to the next; without it the model remembers by itself and has one"
            " replica. null: every request stands for itself.",
            why="Most models remember nothing.",
            kind="sequence",
            scope="one",
            flag=False,
        ),
    ] = None
    retry_on_worker_loss: Annotated[
        bool,
        about(
            "Whether a request whose worker died is run again. false: it is answered 503 at once.",
            why="Models are functions; set it to false for one with side effects.",
        ),
    ] = True
    execution_max_s: Annotated[
        float | None,
        about(
            "Longest run of a batch; past it the run is asked to stop, and its worker is killed half a second later."
            " null: a run may take as long as it takes. One that is unusually long gets a spare replica beside it, and"
            " one that nobody waits for any more is ended after ten seconds or twenty times what is usual.",
            why="Only the model's owner knows how long its honest work may take.",
            kind="duration",
        ),
    ] = None
    late_wait_objectives: Annotated[
        float,
        about(
            "How many times its objective a request waits that can no longer meet it, before it is refused with 503"
            " and Retry-After. Requests that still can go first.",
            why="Under lasting overload it would wait until the load ends; four times the objective is late for every"
            " caller, and long enough for a burst to pass.",
            ge=1,
            le=1000,
        ),
    ] = 4.0
    load_max_s: Annotated[
        float,
        about("Longest loading and warm-up.", why="Gigabytes from a slow disk fit.", kind="duration"),
    ] = 600.0
    kills_per_minute_max: Annotated[
        int,
        about(
            "Workers that requests under suspicion may kill in a minute; past it they are answered WorkerLost.",
            why="Finding one poison request among 32 takes about ten.",
            ge=1,
            le=1000,
        ),
    ] = 20
    arena_max_bytes: Annotated[
        int,
        about(
            "Largest shared memory of one replica; half of it for each of two batches.",
            why="Batches of the largest bodies fit; pages that nothing was written to take no memory.",
            kind="size",
            ge=MiB,
        ),
    ] = 1 * GiB
    warmup: Annotated[
        bool | tuple[Sample, ...],
        about(
            "Whether a real inference must pass before a replica is ready. A list of requests is run instead of zeros,"
            " and each must pass: {inputs: {text: [a good day]}, rows: 8, count: 3}, values as in plain requests, or"
            " {file: request.json} in the folder warmup beside the versions, a body as /v2/models/NAME/infer takes it.",
            why="The first run is the slow one.",
            kind="warmup",
        ),
    ] = True
    profiling: Annotated[
        bool,
        about(
            "Whether the latency of every batch size is measured on idle capacity after the model is ready.",
            why="The objective can be kept from the first burst on.",
        ),
    ] = True

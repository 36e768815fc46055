"""Classify the fields of a ``config.pbtxt``: mapped, without effect, or unsupported.

Reads the file's fields, hands on notes and faults. Knows nothing of how a mapped field is mapped. A field in none of
the three tables is a fault, so that none is ignored by oversight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from inferd.spec.triton.text import Config, Mention

__all__ = ["MAPPED", "REFUSED", "WITHOUT_EFFECT", "judge"]

Kind = Literal["onnx", "python", "pipeline"]

MAPPED = frozenset(
    {
        "name",
        "platform",
        "backend",
        "version_policy",
        "max_batch_size",
        "input",
        "input.name",
        "input.data_type",
        "input.dims",
        "output",
        "output.name",
        "output.data_type",
        "output.dims",
        "input.reshape",
        "output.reshape",
        "input.optional",
        "output.label_filename",
        "model_warmup",
        "dynamic_batching",
        "dynamic_batching.default_priority_level",
        "dynamic_batching.default_queue_policy",
        "dynamic_batching.default_queue_policy.max_queue_size",
        "ensemble_scheduling",
        "ensemble_scheduling.step",
        "instance_group",
        "instance_group.kind",
        "instance_group.count",
        "instance_group.gpus",
        "instance_group.passive",
        "default_model_filename",
        "parameters",
        "model_transaction_policy",
        "response_cache",
        "sequence_batching",
        "sequence_batching.max_sequence_idle_microseconds",
        "sequence_batching.control_input",
        "sequence_batching.state",
    }
)
"""Fields that become settings or steps. A mapped message does not cover its nested fields."""

# Messages that are mapped including every nested field.
_WHOLE = frozenset(
    {
        "version_policy",
        "ensemble_scheduling.step",
        "parameters",
        "input.reshape",
        "output.reshape",
        "model_warmup",
        "sequence_batching.control_input",
        "sequence_batching.state",
    }
)

_DERIVED = "batch sizes follow from load, measured latency and objective; set slo: instead"
_TIMEOUTS = "the request's own timeout covers queueing; with slo:, requests that would miss it are refused on arrival"

WITHOUT_EFFECT = {
    "runtime": "the runtime is part of inferd and follows from backend",
    "input.format": "tensors are passed to the model as sent",
    "optimization": "sessions use ONNX Runtime's default optimizations, on the device of device:",
    "dynamic_batching.preferred_batch_size": _DERIVED,
    "dynamic_batching.max_queue_delay_microseconds": _DERIVED,
    "dynamic_batching.preserve_ordering": "each response is sent as soon as it is ready",
    "dynamic_batching.priority_levels": "priorities 0 to 255 always exist, 0 first; requests set theirs as before",
    "dynamic_batching.default_queue_policy.timeout_action": _TIMEOUTS,
    "dynamic_batching.default_queue_policy.default_timeout_microseconds": _TIMEOUTS,
    "dynamic_batching.default_queue_policy.allow_timeout_override": _TIMEOUTS,
    "dynamic_batching.priority_queue_policy": "all priorities share one queue, bounded by queue_rows_max:",
    "sequence_batching.direct": "rows of different sequences share batches like any others",
    "sequence_batching.oldest": "rows of different sequences share batches like any others",
    "ensemble_scheduling.max_inflight_requests": "each step's model bounds its own queue with queue_rows_max:",
    "instance_group.name": "replicas are numbered",
    "instance_group.rate_limiter": "running_max: sets how many replicas run at once",
    "instance_group.secondary_devices": "replicas run on the device of device: only",
    "instance_group.profile": "TensorRT only; ONNX shapes are dynamic",
    "instance_group.host_policy": "pin: gives each replica its own cores",
    "cc_model_filenames": "the file of default_model_filename is served on every device",
    "metric_tags": "metrics are labelled with model and version; add labels in the scrape configuration",
    "response_cache.enable": "every request is run",
    "model_metrics": "histogram buckets are fixed; see the metrics page",
}
"""Fields that change no answer: why they have no effect, or what to set instead."""

REFUSED = {
    "input.is_shape_tensor": ("shape tensors are TensorRT only", "serve the model's ONNX form"),
    "output.is_shape_tensor": ("shape tensors are TensorRT only", "serve the model's ONNX form"),
    "input.is_non_linear_format_io": ("tensors are row-major", "serve the model's ONNX form"),
    "output.is_non_linear_format_io": ("tensors are row-major", "serve the model's ONNX form"),
    "input.allow_ragged_batch": (
        "rows of different lengths are not concatenated",
        "set padding: in model.yaml for a model that masks, or send requests of one length",
    ),
    "batch_input": ("ragged batches are not supported", "give the model plain inputs"),
    "batch_output": ("ragged batches are not supported", "give the model plain outputs"),
    "sequence_batching.iterative_sequence": (
        "a request runs once",
        "have the client send the next request of the sequence",
    ),
    "ensemble_scheduling.step.model_namespace": (
        "a step's model must be in the ensemble's own repository",
        "move the model into it, or declare the pipeline in inferd.yaml with NAMESPACE.MODEL as the step's model",
    ),
    "model_operations": (
        "custom operator libraries are not loaded",
        "export the model with standard operators, or run it from a model.py",
    ),
    "model_transaction_policy.decoupled": ("a request has one response", "return the whole response from execute()"),
    "model_repository_agents": (
        "files are loaded as they are",
        "run the agents before serving, and remove the field",
    ),
}
"""Fields that would change answers: why they are unsupported, and the remedy."""

# Properties of ensemble tensors that the steps' models define.
_OF_STEPS = ("input.optional", "output.label_filename")

# Fields that apply to a pipeline; all others belong to its models.
_OF_PIPELINES = ("name", "platform", "backend", "max_batch_size", "input", "output", "ensemble_scheduling")


def judge(config: Config, kind: Kind, notes: list[str], faults: list[str]) -> None:
    """Report the fields of ``config`` that have no effect (``notes``) or are unsupported (``faults``)."""
    seen = set()
    for mention in config.mentions:
        field = _decisive(mention.names)
        # Once per tensor or group, not for every nested or repeated field.
        key = (field, mention.path[: _depth(mention, field)])
        if mention.idle or key in seen:
            continue
        seen.add(key)
        place = f"{config.source.name}:{mention.line}"
        if field in REFUSED:
            why, remedy = REFUSED[field]
            faults.append(f"{place}: '{field}' is not supported: {why}\nhelp: {remedy}")
        elif field in WITHOUT_EFFECT:
            notes.append(f"{place}: '{field}' has no effect: {WITHOUT_EFFECT[field]}")
        elif field not in MAPPED:
            faults.append(f"{place}: unknown field '{'.'.join(mention.names)}'\nhelp: remove it")
        elif kind != "onnx" and field.endswith(".reshape"):
            faults.append(
                f"{place}: '{field}' is not supported: only ONNX models have reshapes\n"
                "help: reshape the array in the model, and write the shape that clients send as dims"
            )
        elif kind == "pipeline" and field in _OF_STEPS:
            notes.append(f"{place}: '{field}' has no effect: a pipeline takes it from its steps' models")
        elif kind == "pipeline" and mention.names[0] not in _OF_PIPELINES and len(mention.names) == 1:
            notes.append(f"{place}: '{field}' has no effect on a pipeline; set it on its models")


def _decisive(names: tuple[str, ...]) -> str:
    """Return the longest prefix of ``names`` that is in a table, else all of them."""
    for length in range(len(names), 0, -1):
        part = ".".join(names[:length])
        if part in REFUSED or part in WITHOUT_EFFECT or part in _WHOLE or (part in MAPPED and length == len(names)):
            return part
    return ".".join(names)


def _depth(mention: Mention, field: str) -> int:
    """Return the length of the part of the mention's path that leads to ``field``."""
    wanted = field.count(".") + 1
    for position, part in enumerate(mention.path):
        wanted -= isinstance(part, str)
        if wanted == 0:
            return position + 1
    return len(mention.path)

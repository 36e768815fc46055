"""What a field of a ``config.pbtxt`` comes to here: it is mapped, it has no effect, or it can't be.

Reads what a file says, hands on notes and faults. Knows nothing of how a mapped field is mapped.

A field that is left out of all three tables is a fault: nothing is ignored because nobody thought of it.
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
"""Fields that become settings or steps. A message vouches for nothing below it."""

# Messages that are mapped with all that is in them.
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

_DERIVED = "derived: batches follow from the load, the model's measured latency and its objective; state that with slo:"
_TIMEOUTS = "a request's own timeout holds, in the queue too; slo: refuses at the door what would be late"

WITHOUT_EFFECT = {
    "runtime": "what runs a model is part of inferd; it follows from backend",
    "input.format": "tensors reach the model as they are sent",
    "optimization": "sessions run with ONNX Runtime's own optimizations, on the device that device: names",
    "dynamic_batching.preferred_batch_size": _DERIVED,
    "dynamic_batching.max_queue_delay_microseconds": _DERIVED,
    "dynamic_batching.preserve_ordering": "every answer goes to its own request as soon as it is there",
    "dynamic_batching.priority_levels": "every class from 0 to 255 is there, 0 first; requests name theirs as before",
    "dynamic_batching.default_queue_policy.timeout_action": _TIMEOUTS,
    "dynamic_batching.default_queue_policy.default_timeout_microseconds": _TIMEOUTS,
    "dynamic_batching.default_queue_policy.allow_timeout_override": _TIMEOUTS,
    "dynamic_batching.priority_queue_policy": "all classes share one queue; queue_rows_max: bounds it",
    "sequence_batching.direct": "rows of different sequences share batches as any others do",
    "sequence_batching.oldest": "rows of different sequences share batches as any others do",
    "ensemble_scheduling.max_inflight_requests": "each step's model bounds its own queue with queue_rows_max:",
    "instance_group.name": "replicas are numbered",
    "instance_group.rate_limiter": "running_max: says how many replicas run at once",
    "instance_group.secondary_devices": "replicas run on the one device that device: names",
    "instance_group.profile": "profiles of TensorRT; shapes are free here",
    "instance_group.host_policy": "pin: gives each replica its own cores",
    "cc_model_filenames": "one file is served on every device, the one that default_model_filename names",
    "metric_tags": "metrics are labelled with model and version; add others where they are scraped",
    "response_cache.enable": "every request is run",
    "model_metrics": "histograms have buckets of their own; see the metrics page",
}
"""Fields that change no answer and do nothing: why, or what to do instead."""

REFUSED = {
    "input.is_shape_tensor": ("shape tensors belong to TensorRT", "serve the model's ONNX form"),
    "output.is_shape_tensor": ("shape tensors belong to TensorRT", "serve the model's ONNX form"),
    "input.is_non_linear_format_io": ("tensors are row-major here", "serve the model's ONNX form"),
    "output.is_non_linear_format_io": ("tensors are row-major here", "serve the model's ONNX form"),
    "input.allow_ragged_batch": (
        "rows of different lengths are not strung together",
        "write padding: in model.yaml for a model that masks, or send requests of one length",
    ),
    "batch_input": ("the model would lack inputs that only ragged batches have", "give the model plain inputs"),
    "batch_output": ("the outputs of ragged batches can't be told apart", "give the model plain outputs"),
    "sequence_batching.iterative_sequence": (
        "a request is run once",
        "have the client send the next request of the sequence",
    ),
    "ensemble_scheduling.step.model_namespace": (
        "a step's model is looked up in the ensemble's own repository",
        "move the model into it, or write the pipeline in inferd.yaml with NAMESPACE.MODEL as the step's model",
    ),
    "model_operations": (
        "libraries of custom operators are not loaded",
        "export the model with standard operators, or run it from a model.py",
    ),
    "model_transaction_policy.decoupled": ("a request has one answer", "return all of the answer from execute()"),
    "model_repository_agents": (
        "files are loaded as they lie there, checked and changed by nobody",
        "do what the agents do before serving, and take them out",
    ),
}
"""Fields without which answers would be others: why they can't be, and the remedy."""

# What an ensemble's tensors have where the tensors of its steps' models do.
_OF_STEPS = ("input.optional", "output.label_filename")

# What a pipeline takes from its file; all else belongs to the models that run.
_OF_PIPELINES = ("name", "platform", "backend", "max_batch_size", "input", "output", "ensemble_scheduling")


def judge(config: Config, kind: Kind, notes: list[str], faults: list[str]) -> None:
    """Say what of ``config`` has no effect (in ``notes``), and what can't be served (in ``faults``)."""
    told = set()
    for mention in config.mentions:
        field = _decisive(mention.names)
        # Once for each tensor or group, not for everything below or repeated.
        key = (field, mention.path[: _depth(mention, field)])
        if mention.idle or key in told:
            continue
        told.add(key)
        place = f"{config.source.name}:{mention.line}"
        if field in REFUSED:
            why, remedy = REFUSED[field]
            faults.append(f"{place}: '{field}' is not supported: {why}\nhelp: {remedy}")
        elif field in WITHOUT_EFFECT:
            notes.append(f"{place}: '{field}' has no effect here: {WITHOUT_EFFECT[field]}")
        elif field not in MAPPED:
            faults.append(f"{place}: '{'.'.join(mention.names)}' is not known to inferd\nhelp: take it out")
        elif kind != "onnx" and field.endswith(".reshape"):
            faults.append(
                f"{place}: '{field}' is not supported: only ONNX models are given other shapes than clients send\n"
                "help: reshape the array where it is used, and write the shape that clients send as dims"
            )
        elif kind == "pipeline" and field in _OF_STEPS:
            notes.append(f"{place}: '{field}' has no effect here: a pipeline has it from the models of its steps")
        elif kind == "pipeline" and mention.names[0] not in _OF_PIPELINES and len(mention.names) == 1:
            notes.append(f"{place}: '{field}' has no effect here: a pipeline runs nothing; write it at its models")


def _decisive(names: tuple[str, ...]) -> str:
    """The longest part of ``names`` that stands in a table, else all of them."""
    for length in range(len(names), 0, -1):
        part = ".".join(names[:length])
        if part in REFUSED or part in WITHOUT_EFFECT or part in _WHOLE or (part in MAPPED and length == len(names)):
            return part
    return ".".join(names)


def _depth(mention: Mention, field: str) -> int:
    """How much of the mention's path leads to ``field``."""
    wanted = field.count(".") + 1
    for position, part in enumerate(mention.path):
        wanted -= isinstance(part, str)
        if wanted == 0:
            return position + 1
    return len(mention.path)

"""Translate a ``config.pbtxt`` into the equivalent ``model.yaml``.

Reads the file's values, hands on settings. Knows nothing of versions on disk and of ensembles.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from inferd.spec.convert import Source, read_settings
from inferd.spec.samples import Sample, SampleInput
from inferd.spec.settings import ModelSpec
from inferd.spec.triton.sequences import read_sequence

if TYPE_CHECKING:
    from inferd.spec.convert import Path
    from inferd.spec.triton.text import Config

__all__ = ["kind_of", "read_model", "reshapes_of", "tensors_of"]

_RUNTIMES = {"onnxruntime": "onnx", "onnxruntime_onnx": "onnx", "python": "python", "ensemble": "pipeline"}
_FILES = {"onnx": "model.onnx", "python": "model.py"}
# ONNX Runtime's session option that equals the setting ``threads``.
_THREADS = "intra_op_thread_count"


def kind_of(config: Config, faults: list[str]) -> str | None:
    """Return ``onnx``, ``python`` or ``pipeline``; None if the file names none, or an unsupported backend."""
    values = config.values
    if "ensemble_scheduling" in values:
        return "pipeline"
    named = [name for name in ("backend", "platform") if values[name]]
    kinds = {_RUNTIMES.get(values[name]) for name in named}
    if len(kinds) > 1 or None in kinds:
        place = config.source.at((named[0],))
        what = " and ".join(f"{name} '{values[name]}'" for name in named)
        faults.append(
            f"{place}: unsupported {what}\n"
            'help: export the model to ONNX (backend: "onnxruntime"), or run its framework from a model.py (backend: '
            '"python")'
        )
        return None
    if kinds:
        return kinds.pop()
    return _RUNTIMES.get({".onnx": "onnxruntime", ".py": "python"}.get(_ending(values["default_model_filename"]), ""))


def read_model(config: Config, kind: str | None, notes: list[str], faults: list[str]) -> dict[str, Any]:
    """Return the settings of a model that is not an ensemble.

    Args:
        config: the file's content.
        kind: ``onnx`` or ``python``; None: decided by the file's extension.
        notes: list that receives fields without effect.
        faults: list that receives every fault.
    """
    plain = _Plain(config)
    values = config.values
    plain.put("name", values["name"] or None, ("name",))
    plain.put("runtime", kind, ("backend",) if values["backend"] else ("platform",))
    plain.put("file", values["default_model_filename"] or _FILES.get(kind or ""), ("default_model_filename",))
    plain.put("versions", _versions(values), ("version_policy",))
    if kind != "python":
        # A Python model may complete its tensors in auto_complete_config; its worker reads them.
        for key in ("input", "output"):
            plain.put(f"{key}s", tensors_of(config, key, faults) or None, (key,))
        _check_reshapes(config, faults)
        # None: the model's initializer; without one the load fails with the remedy. Python models declare no defaults.
        plain.put("optional", {one["name"]: None for one in values["input"] if one["optional"]} or None, ("input",))
    plain.put("sequence", read_sequence(config, faults), ("sequence_batching",))
    labels = {one["name"]: one["label_filename"] for one in values["output"] if one["label_filename"]}
    plain.put("labels", labels or None, ("output",))
    plain.put("warmup", _samples(config, notes, faults) or None, ("model_warmup",))
    _batching(plain, config, kind)
    _queue(plain, values)
    _instances(plain, config, notes)
    _parameters(plain, config, kind, notes)
    return read_settings(ModelSpec, plain.values, Source(config.source.name, plain.lines), faults)


def tensors_of(config: Config, key: str, faults: list[str]) -> list[dict[str, Any]]:
    """Return the tensors of ``input`` or ``output``, shapes including the batch dimension."""
    batch = [-1] if config.values["max_batch_size"] > 0 else []
    tensors = []
    for position, tensor in enumerate(config.values[key]):
        missing = [name for name, empty in (("name", ""), ("data_type", "TYPE_INVALID")) if tensor[name] == empty]
        if missing:
            faults.append(
                f"{config.source.at((key, position))}: {key} '{tensor['name']}' has no {' and no '.join(missing)}\n"
                f"help: add it, or omit every {key}: the model then declares its own"
            )
            continue
        tensors.append(
            {"name": tensor["name"], "datatype": datatype_of(tensor["data_type"]), "shape": batch + tensor["dims"]}
        )
    return tensors


def reshapes_of(values: dict[str, Any]) -> dict[str, dict[str, dict[str, list[int]]]]:
    """Return both shapes of tensors that clients and model see differently, by side and name."""
    batch = [-1] if values["max_batch_size"] > 0 else []
    return {
        f"{side}s": {
            tensor["name"]: {"seen": batch + tensor["dims"], "own": batch + tensor["reshape"]["shape"]}
            for tensor in values[side]
            if "reshape" in tensor
        }
        for side in ("input", "output")
    }


def _check_reshapes(config: Config, faults: list[str]) -> None:
    for side in ("input", "output"):
        for position, tensor in enumerate(config.values[side]):
            dims, shape = tensor["dims"], tensor.get("reshape", {}).get("shape", tensor["dims"])
            if dims.count(-1) != shape.count(-1) or abs(math.prod(dims)) != abs(math.prod(shape)):
                place = config.source.at((side, position, "reshape"))
                faults.append(
                    f"{place}: {side} '{tensor['name']}': element counts of dims {dims} and reshape {shape} differ\n"
                    "help: write the same sizes, and the same number of -1, in both"
                )


class _Plain:
    """Settings as YAML would have them, and their source lines."""

    def __init__(self, config: Config) -> None:
        self.values: dict[str, Any] = {}
        self.lines: dict[Path, int] = {}
        self._config = config

    def put(self, key: str, value: Any, path: Path) -> None:
        """Set ``key``, unless ``value`` is None; ``path`` locates it in the file."""
        if value is None:
            return
        self.values[key] = value
        lines = self._config.source.lines
        if path in lines:
            self.lines[key,] = lines[path]


def _ending(name: str) -> str:
    return f".{name.rpartition('.')[2]}"


def _versions(values: dict[str, Any]) -> Any:
    policy = values.get("version_policy")
    if policy is None:
        return None
    if "specific" in policy:
        return policy["specific"]["versions"]
    return "all" if "all" in policy else {"latest": max(1, policy.get("latest", {}).get("num_versions", 1))}


def _batching(plain: _Plain, config: Config, kind: str | None) -> None:
    rows = config.values["max_batch_size"]
    if rows:
        plain.put("batch_rows_max", rows, ("max_batch_size",))
        # dynamic_batching states that rows may run together. Without it Triton runs every request alone, and a model
        # may depend on that: the probe decides. Triton batches sequences too.
        choice = next((name for name in ("dynamic_batching", "sequence_batching") if name in config.values), None)
        plain.put("batching", choice and "on", (choice or "",))
    elif kind != "python" and (config.says("max_batch_size") or config.values["input"]):
        plain.put("batching", "off", ("max_batch_size",))


def _samples(config: Config, notes: list[str], faults: list[str]) -> tuple[Sample, ...]:
    """Return the requests of ``model_warmup``; their dims exclude the batch dimension."""
    batched = config.values["max_batch_size"] > 0
    samples = []
    for position, sample in enumerate(config.values["model_warmup"]):
        place = config.source.at(("model_warmup", position))
        name, size = sample["name"] or str(position), sample["batch_size"]
        if size == 0:
            notes.append(f"{place}: warm-up sample '{name}' has batch_size 0 and is not run")
            continue
        inputs = {key: _sample_input(one, batched) for key, one in sample["inputs"].items()}
        faults.extend(
            f"{place}: warm-up sample '{name}': input '{key}' has dynamic dims {sample['inputs'][key]['dims']}; write"
            " fixed sizes"
            for key, one in inputs.items()
            if any(dim < 0 for dim in one.shape or ())
        )
        # Without a batch dimension, a batch is that many single requests.
        count = max(1, sample["count"]) * (1 if batched else size)
        samples.append(Sample(name, inputs, rows=size if batched else None, count=count))
    return tuple(samples)


def _sample_input(one: dict[str, Any], batched: bool) -> SampleInput:
    shape = tuple([1, *one["dims"]] if batched else one["dims"])
    datatype = None if one["data_type"] == "TYPE_INVALID" else datatype_of(one["data_type"])
    if one["input_data_file"]:
        return SampleInput("file", one["input_data_file"], datatype, shape)
    return SampleInput("random" if one["random_data"] else "zeros", None, datatype, shape)


def datatype_of(name: str) -> str:
    """Return the protocol's name of a ``data_type``."""
    return name.removeprefix("TYPE_").replace("STRING", "BYTES")


def _queue(plain: _Plain, values: dict[str, Any]) -> None:
    batching = values.get("dynamic_batching", {})
    plain.put(
        "priority_default",
        batching.get("default_priority_level") or None,
        ("dynamic_batching", "default_priority_level"),
    )
    # Triton counts requests, queue_rows_max counts rows.
    requests = batching.get("default_queue_policy", {}).get("max_queue_size", 0)
    plain.put(
        "queue_rows_max",
        requests * max(1, values["max_batch_size"]) or None,
        ("dynamic_batching", "default_queue_policy", "max_queue_size"),
    )


def _instances(plain: _Plain, config: Config, notes: list[str]) -> None:
    groups = [
        (position, group) for position, group in enumerate(config.values["instance_group"]) if not group["passive"]
    ]
    if not groups:
        return
    replicas, devices = 0, []
    for position, group in groups:
        on_gpu = group["kind"] == "KIND_GPU" or (group["kind"] == "KIND_AUTO" and group["gpus"])
        here = [f"cuda:{gpu}" for gpu in group["gpus"] or [0]] if on_gpu else ["cpu"]
        # ``count`` is per GPU of the group.
        replicas += max(1, group["count"]) * len(here)
        devices += [(device, position) for device in here]
    plain.put("replicas", replicas, ("instance_group",))
    first = devices[0][0]
    plain.put("device", first, ("instance_group", groups[0][0]))
    noted = set()
    for device, position in devices:
        if device != first and device not in noted:
            noted.add(device)
            place = config.source.at(("instance_group", position))
            notes.append(
                f"{place}: '{device}' has no effect: all replicas of a model run on one device, {first}\n"
                "help: serve the model under another name, with device:, to use it"
            )


def _parameters(plain: _Plain, config: Config, kind: str | None, notes: list[str]) -> None:
    parameters = {key: value["string_value"] for key, value in config.values["parameters"].items()}
    if kind == "python":
        plain.put("parameters", parameters or None, ("parameters",))
        if "EXECUTION_ENV_PATH" in parameters:
            notes.append(
                f"{config.source.at(('parameters',))}: parameter 'EXECUTION_ENV_PATH' has no effect\n"
                "help: set python: in model.yaml to the interpreter of an environment with inferd"
            )
        return
    for key, value in parameters.items():
        if key == _THREADS and value.isdecimal():
            plain.put("threads", int(value) or None, ("parameters",))
        else:
            notes.append(
                f"{config.source.at(('parameters',))}: parameter '{key}' has no effect: ONNX Runtime's default session"
                f" options apply, except threads: ({_THREADS})"
            )

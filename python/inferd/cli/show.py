"""What a person reads: progress, tables, errors.

Reads what is wanted and how loading goes, hands on text. Knows nothing of how they came about.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from inferd.spec.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inferd.control.control_plane import Progress
    from inferd.control.dataplane import Loaded
    from inferd.control.desired import DesiredState, ResolvedModel
    from inferd.errors import InferdError
    from inferd.types import Signature, TensorSpec

__all__ = [
    "address_lines",
    "curl_line",
    "desired_table",
    "error_text",
    "left_out",
    "note_lines",
    "pipeline_table",
    "progress_line",
    "serving_table",
    "table",
]

# Longer bodies are no help on a command line.
_CURL_ELEMENTS_MAX = 64


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns, the first row in capitals as their heads."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def pipeline_table(desired: DesiredState, loaded: Mapping[str, Loaded]) -> str:
    """The pipelines: what each takes, its steps, what it gives."""
    rows = [("PIPELINE", "STEPS", "INPUTS", "OUTPUTS", "SLO")]
    for pipeline in desired.pipelines:
        signature = loaded[pipeline["name"]].signature
        steps = ", ".join(map(_step, pipeline["steps"]))
        slo = pipeline["slo"]
        promised = "-" if slo is None else f"p{slo['percentile']:g} {format_duration(slo['latency_s'])}"
        rows.append((pipeline["name"], steps, _tensors(signature.inputs), _tensors(signature.outputs), promised))
    return table(rows)


def serving_table(desired: DesiredState, loaded: Mapping[tuple[str, int], Loaded]) -> str:
    """What is served, and why requests are batched or not."""
    rows = [("MODEL", "VERSION", "RUNTIME", "INPUTS", "OUTPUTS", "REPLICAS", "SLO", "BATCHING")]
    for model in desired.models:
        ready = loaded[model.name, model.version]
        signature = ready.signature
        rows.append(
            (
                model.name,
                str(model.version),
                ready.facts.get("runtime", model.settings["platform"]),
                _tensors(signature.inputs),
                _tensors(signature.outputs),
                _replicas(model),
                _slo(model),
                _batching(model, signature),
            )
        )
    return table(rows)


# Who decided that requests share runs, in a word.
_DECIDED = {"analysis": "proven", "probe": "probed"}


def _batching(model: ResolvedModel, signature: Signature) -> str:
    if not signature.batched:
        return f"off: {signature.batching_off}"
    by = None if signature.verdict is None else signature.verdict.by
    if by == "traffic":
        return "one at a time until 400 rows are compared"
    rows = f"up to {model.spec.batch_rows_max} rows"
    return f"{rows} ({_DECIDED[by]})" if by in _DECIDED else rows


def left_out(loaded: Mapping[tuple[str, int], Loaded]) -> list[str]:
    """What models have that clients don't see, what was assumed of them, and why."""
    said = {"left_out": "clients don't see ", "note": ""}
    return [
        f"model '{name}' {version}: {begin}{ready.facts[fact]}"
        for (name, version), ready in loaded.items()
        for fact, begin in said.items()
        if fact in ready.facts
    ]


def note_lines(notes: Sequence[str]) -> str:
    """What stands in files and has no effect, and what models have that is not served."""
    return "\n".join(f"note: {note}" for note in notes)


def desired_table(desired: DesiredState, unread: Mapping[tuple[str, int], str]) -> str:
    """What would be served, and how it was checked; ``unread``: what became of models that were not loaded."""
    rows = [("MODEL", "VERSION", "FILE", "REPLICAS", "SLO", "BATCHING", "CHECKED")]
    rows += [
        (
            model.name,
            str(model.version),
            str(model.file),
            _replicas(model),
            _slo(model),
            model.spec.batching,
            unread.get((model.name, model.version), "loaded"),
        )
        for model in desired.models
    ]
    return table(rows)


def progress_line(progress: Progress) -> str:
    """One line of progress."""
    name = f"{progress.model.name} {progress.model.version}"
    if progress.error is not None:
        return f"failed   {name}"
    return f"ready    {name}" if progress.loaded is not None else f"loading  {name}"


def address_lines(addresses: Mapping[str, str], *, docs: bool) -> str:
    """Where clients, people (where there is a page: ``docs``) and Prometheus find it."""
    lines = [f"REST and gRPC  http://{addresses['data']}"]
    if docs:
        lines.append(f"docs           http://{addresses['data']}/docs")
    if "metrics" in addresses:
        lines.append(f"metrics        http://{addresses['metrics']}/metrics")
    return "\n".join(lines)


def curl_line(address: str, name: str, signature: Signature) -> str:
    """A request that works as pasted: zeros of the least size, or the metadata where that would be long."""
    base = f"curl -s http://{address}/v2/models/{name}"
    tensors = [_zeros(spec) for spec in signature.inputs]
    raw_only = any(spec.datatype == "BF16" for spec in signature.inputs)
    if raw_only or sum(len(tensor["data"]) for tensor in tensors) > _CURL_ELEMENTS_MAX:
        return base
    body = json.dumps({"inputs": tensors}, separators=(",", ":"))
    return f"{base}/infer -d '{body}'"


def error_text(error: InferdError | str, detail: str | None = None) -> str:
    """An error as it is printed: every fault on a line, then what only the operator reads."""
    text = f"error: {error}"
    return f"{text}\n{detail.rstrip()}" if detail else text


def _step(step: dict[str, Any]) -> str:
    models = [model for model, _ in step["models"]]
    return step["name"] if models == [step["name"]] else f"{step['name']} ({' | '.join(models)})"


def _zeros(spec: TensorSpec) -> dict[str, Any]:
    shape = [1 if dim < 0 else dim for dim in spec.shape]
    zero: object = {"BOOL": False, "BYTES": "text"}.get(spec.datatype, 0)
    return {"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": [zero] * math.prod(shape)}


def _tensors(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(map(str, specs))


def _replicas(model: ResolvedModel) -> str:
    threads = "1 thread" if model.threads == 1 else f"{model.threads} threads"
    device = "" if model.spec.device == "cpu" else f" on {model.spec.device}"
    return f"{model.spec.replicas} × {threads}{device}"


def _slo(model: ResolvedModel) -> str:
    slo = model.spec.slo
    return "-" if slo is None else f"p{slo.percentile:g} {format_duration(slo.latency_s)}"

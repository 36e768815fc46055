"""Pipelines, declared in ``inferd.yaml`` or in Python with the same meaning.

Reads plain values and the declarations, hands on the data plane's pipeline settings and the place of every fault. Knows
nothing of models: whether tensors match is checked at load.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from inferd.spec.convert import Path, Source, nearest, read_settings
from inferd.spec.declare import about, settings_of
from inferd.spec.settings import NAME_PATTERN
from inferd.spec.values import Objective

__all__ = ["Pipeline", "Step", "read_pipelines"]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a pipeline: a model and the sources of its inputs.

    A tensor is named ``step.output``, or by the name of an input of the pipeline. Of several sources, the first whose
    step ran is used.
    """

    name: Annotated[
        str, about("The step's name in its pipeline.", why="Sources refer to it.", flag=False, pattern=NAME_PATTERN)
    ]
    model: Annotated[
        str | dict[str, int],
        about(
            "The model to run, or several with traffic weights: {new: 1, old: 9}.",
            why="A step runs a model.",
            kind="shares",
            flag=False,
        ),
    ]
    inputs: Annotated[
        dict[str, str | list[str]],
        about(
            "The source of each input of the model; of a list, the first whose step ran.",
            why="Every input needs a value.",
            kind="sources",
            flag=False,
        ),
    ]
    when: Annotated[
        dict[str, Any] | None,
        about(
            "Runs only if a tensor's value matches: {tensor: kind.label, equals: 3}; or in: […], above:, below:.",
            why="Most steps always run.",
            kind="when",
            flag=False,
        ),
    ] = None
    optional: Annotated[
        bool,
        about(
            "Whether the pipeline continues without this step if it fails or misses its deadline.",
            why="A partial response must be opted into.",
            flag=False,
        ),
    ] = False


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """A graph of model steps, served under one name with one objective: an entry of ``pipelines:``.

    >>> inferd.Pipeline(  # doctest: +SKIP
    ...     name="ocr",
    ...     slo="400ms",
    ...     steps=[
    ...         inferd.Step(name="detect", model="detect", inputs={"x": "image"}),
    ...         inferd.Step(name="crop", model="crop", inputs={"image": "image", "map": "detect.map"}),
    ...     ],
    ...     outputs={"crops": "crop.crops"},
    ... )
    """

    name: Annotated[
        str, about("The pipeline's name in URLs.", why="Clients request it.", flag=False, pattern=NAME_PATTERN)
    ]
    steps: Annotated[
        list[Step],
        about(
            "The steps, in any order: each starts once its inputs are available.",
            why="A pipeline is its steps.",
            kind="steps",
            flag=False,
        ),
    ]
    outputs: Annotated[
        dict[str, str | list[str]],
        about(
            "The pipeline's outputs: names, and the source tensor of each; of a list, the first whose step ran.",
            why="Only its owner knows what callers need.",
            kind="sources",
            flag=False,
        ),
    ]
    slo: Annotated[
        Objective | str | None,
        about(
            "End-to-end latency objective, as for a model. Each request divides it among its steps.",
            why="Best effort unless an objective is set.",
            kind="objective",
            flag=False,
        ),
    ] = None
    priority_default: Annotated[
        int,
        about("Priority of requests without one; 0 is served first.", why="As for a model.", flag=False, ge=0, le=255),
    ] = 1


def read_pipelines(given: Any, source: Source, faults: list[str], path: Path = ("pipelines",)) -> list[dict[str, Any]]:
    """Return the data plane's ``PipelineSettings`` for each entry of ``given``.

    Args:
        given: a list of mappings or of :class:`Pipeline`, or None.
        source: the origin of ``given``.
        faults: list that receives every fault, as ``place: what is wrong``.
        path: path of ``given`` in its source.
    """
    if given is None:
        return []
    if not isinstance(given, (list, tuple)):
        faults.append(f"{source.at(path)}: pipelines: expected a list; write - name: NAME and its steps under it")
        return []
    read = [_pipeline(entry, source, faults, (*path, position)) for position, entry in enumerate(given)]
    return [pipeline for pipeline in read if pipeline is not None]


def _pipeline(given: Any, source: Source, faults: list[str], path: Path) -> dict[str, Any] | None:
    given = _plain(given)
    before = len(faults)
    values = read_settings(Pipeline, given, source, faults, path=path, besides=("steps",))
    _require(Pipeline, given, source, faults, path)
    steps = given.get("steps") if isinstance(given, Mapping) else None
    if not isinstance(steps, (list, tuple)) or not steps:
        faults.append(f"{source.at(path)}: a pipeline needs steps; write steps: and under it - name: NAME")
        return None
    read = [_step(step, source, faults, (*path, "steps", position)) for position, step in enumerate(steps)]
    if len(faults) > before:
        return None
    _check_references(values, read, source, faults, path)
    if len(faults) > before:
        return None
    slo = values.get("slo")
    return {
        "name": values["name"],
        "slo": None if slo is None else {"latency_s": slo.latency_s, "percentile": slo.percentile},
        "priority_default": values.get("priority_default", 1),
        "steps": read,
        "outputs": list(values["outputs"].items()),
    }


def _step(given: Any, source: Source, faults: list[str], path: Path) -> dict[str, Any]:
    given = _plain(given)
    values = read_settings(Step, given, source, faults, path=path)
    _require(Step, given, source, faults, path)
    return {
        "name": values.get("name", ""),
        "models": list(values.get("model", {}).items()),
        "inputs": list(values.get("inputs", {}).items()),
        "when": values.get("when"),
        "optional": values.get("optional", False),
    }


def _plain(given: Any) -> Any:
    """Return a struct as the mapping that YAML would give."""
    if not isinstance(given, (Pipeline, Step)):
        return given
    plain = {key: value for key, value in msgspec.structs.asdict(given).items() if value is not None}
    if isinstance(plain.get("slo"), Objective):
        plain["slo"] = {"latency": f"{plain['slo'].latency_s}s", "percentile": plain["slo"].percentile}
    return plain


def _require(spec: type[msgspec.Struct], given: Any, source: Source, faults: list[str], path: Path) -> None:
    if isinstance(given, Mapping):
        faults.extend(
            f"{source.at(path)}: '{setting.key}' is missing: {setting.meaning}"
            for setting in settings_of(spec).values()
            if setting.required and setting.key not in given
        )


def _check_references(
    values: dict[str, Any], steps: list[dict[str, Any]], source: Source, faults: list[str], path: Path
) -> None:
    """Report duplicate step names and references to unknown steps."""
    names = [step["name"] for step in steps]
    for position, step in enumerate(steps):
        place = source.at((*path, "steps", position))
        if names.index(step["name"]) != position:
            faults.append(f"{place}: duplicate step name '{step['name']}'; rename one")
        needed = [tensor for _, tensors in step["inputs"] for tensor in tensors]
        needed += [step["when"]["tensor"]] if step["when"] else []
        faults.extend(f"{place}: step '{step['name']}': {fault}" for fault in map(_unknown(names), needed) if fault)
    place = source.at((*path, "outputs"))
    for output, tensors in values["outputs"].items():
        faults.extend(f"{place}: output '{output}': {fault}" for fault in map(_unknown(names), tensors) if fault)
        faults.extend(
            f"{place}: output '{output}': '{tensor}' is an input; name a step's output, as step.output"
            for tensor in tensors
            if "." not in tensor
        )


def _unknown(names: list[str]) -> Any:
    def fault(tensor: str) -> str | None:
        if "." not in tensor or any(tensor.startswith(f"{name}.") for name in names):
            return None
        step = tensor.partition(".")[0]
        return f"'{tensor}' refers to unknown step '{step}'{nearest(step, names)}"

    return fault

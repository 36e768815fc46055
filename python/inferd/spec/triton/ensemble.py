"""Translate an ensemble of a ``config.pbtxt`` into an entry of ``pipelines:``.

Reads the steps and their tensor maps, hands on a pipeline. Knows nothing of the models that the steps run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from inferd.spec.convert import Source, nearest
from inferd.spec.pipelines import read_pipelines

if TYPE_CHECKING:
    from inferd.spec.convert import Path
    from inferd.spec.triton.text import Config

__all__ = ["Wanted", "read_ensemble"]


class Wanted(NamedTuple):
    """A version that a step requests by number."""

    model: str
    version: int
    place: str


def read_ensemble(config: Config, name: str, wanted: list[Wanted], faults: list[str]) -> dict[str, Any] | None:
    """Return the data plane's ``PipelineSettings``; None if there are faults.

    Args:
        config: the file's content.
        name: the name of the pipeline.
        wanted: list that receives the versions that steps request.
        faults: list that receives every fault.
    """
    steps = config.values.get("ensemble_scheduling", {}).get("step", [])
    names = _step_names([step["model_name"] for step in steps])
    # Ensembles name tensors freely; pipelines name them by the step that produces them.
    given = {
        tensor: f"{step_name}.{output}"
        for step_name, step in zip(names, steps, strict=True)
        for output, tensor in step["output_map"].items()
    }
    inputs = [tensor["name"] for tensor in config.values["input"]]
    before = len(faults)
    place: Path = ("ensemble_scheduling", "step")
    for position, step in enumerate(steps):
        here = config.source.at((*place, position))
        faults.extend(
            f"{here}: step '{step['model_name']}': no input or step provides tensor '{tensor}'"
            f"{nearest(tensor, [*inputs, *given])}"
            for tensor in step["input_map"].values()
            if tensor not in given and tensor not in inputs
        )
        if step["model_version"] > 0:
            wanted.append(Wanted(step["model_name"], step["model_version"], here))
    outputs = [tensor["name"] for tensor in config.values["output"]]
    faults.extend(
        f"{config.source.at(('output', position))}: no step provides output '{output}'{nearest(output, list(given))}"
        for position, output in enumerate(outputs)
        if output not in given
    )
    if len(faults) > before:
        return None
    plain = {
        "name": name,
        "steps": [
            {
                "name": step_name,
                "model": step["model_name"],
                "inputs": {own: given.get(tensor, tensor) for own, tensor in step["input_map"].items()},
            }
            for step_name, step in zip(names, steps, strict=True)
        ],
        "outputs": {output: given[output] for output in outputs},
    }
    read = read_pipelines([plain], Source(config.source.name, _lines(config)), faults)
    return read[0] if read else None


def _step_names(models: list[str]) -> list[str]:
    """Name steps after their models, numbered if a model runs in several steps."""
    return [
        model if models.count(model) == 1 else f"{model}-{models[: position + 1].count(model)}"
        for position, model in enumerate(models)
    ]


def _lines(config: Config) -> dict[Path, int]:
    """Return the ensemble's line numbers by path in ``pipelines:``."""
    lines: dict[Path, int] = {}
    for path, line in config.source.lines.items():
        if path == ("ensemble_scheduling",):
            lines["pipelines", 0] = line
        elif path[:2] == ("ensemble_scheduling", "step") and len(path) == 3:
            lines["pipelines", 0, "steps", path[2]] = line
        elif path == ("output",):
            lines["pipelines", 0, "outputs"] = line
    return lines

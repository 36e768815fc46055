"""A model's folder of a Triton model repository.

Reads its ``config.pbtxt``, hands on what the folder is: settings of a model, or a pipeline.
Knows nothing of versions and of other folders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from inferd.control.names import name_of
from inferd.control.sources.sidecars import SAMPLES_FOLDER
from inferd.spec.convert import read_settings
from inferd.spec.settings import ModelSpec
from inferd.spec.triton.ensemble import Wanted, read_ensemble
from inferd.spec.triton.mapping import kind_of, read_model, tensors_of
from inferd.spec.triton.meaning import judge
from inferd.spec.triton.text import load_config

if TYPE_CHECKING:
    from pathlib import Path as FilePath

    from inferd.spec.convert import Path
    from inferd.spec.files import Given
    from inferd.spec.triton.text import Config

__all__ = ["CONFIG_FILE", "TritonFolder", "check_versions", "read_folder", "settle"]

CONFIG_FILE = "config.pbtxt"


class TritonFolder(NamedTuple):
    """What a ``config.pbtxt`` makes of its folder."""

    given: Given
    """Settings of the model; of an ensemble its inputs and outputs."""
    config: dict[str, Any]
    """The configuration, as models in Python read it."""
    pipeline: dict[str, Any] | None = None
    """``PipelineSettings`` of the data plane, where it is an ensemble."""
    wanted: tuple[Wanted, ...] = ()
    """Versions that an ensemble's steps ask for."""
    is_pipeline: bool = False
    undecided: tuple[tuple[str, str], ...] = ()
    """Inputs that may be left out and whose default the model can't tell: the name, and where that is written."""


def read_folder(folder: FilePath, notes: list[str], faults: list[str]) -> TritonFolder:
    """Read ``config.pbtxt`` in ``folder``.

    Args:
        folder: one model's.
        notes: takes what has no effect.
        faults: takes what is wrong, or can't be served.
    """
    config = load_config(folder / CONFIG_FILE, faults)
    if config is None:
        return TritonFolder({}, {})
    name = config.values["name"] or name_of(folder)
    before = len(faults)
    kind = kind_of(config, faults)
    if len(faults) > before:
        return TritonFolder({}, {})
    if kind == "pipeline":
        wanted: list[Wanted] = []
        judge(config, "pipeline", notes, faults)
        pipeline = read_ensemble(config, name, wanted, faults)
        sides = {f"{key}s": tensors_of(config, key, faults) for key in ("input", "output")}
        given = read_settings(ModelSpec, sides, config.source, faults)
        return TritonFolder(given, config.values, pipeline, tuple(wanted), is_pipeline=True)
    kind = kind or _kind_of_files(folder)
    judge(config, "python" if kind == "python" else "onnx", notes, faults)
    given = read_model(config, kind, notes, faults)
    _check_files(folder, config, faults)
    undecided = tuple(
        (tensor["name"], config.source.at(("input", position, "optional")))
        for position, tensor in enumerate(config.values["input"])
        if tensor["optional"] and kind == "python"
    )
    return TritonFolder(given, {**config.values, "name": name}, undecided=undecided)


def settle(triton: TritonFolder, defaults: Given, own: Given, over: Given, notes: list[str]) -> Given:
    """The settings of a model's folder: later ones override earlier ones.

    Args:
        triton: its ``config.pbtxt``; empty where there is none.
        defaults: below every file of its own.
        own: its ``model.yaml``.
        over: above every file.
        notes: takes inputs that no request can leave out after all.
    """
    given = defaults | triton.given | own | over
    for key in ("optional", "labels"):
        if key in triton.given:
            # Merged tensor by tensor, not replaced as a whole.
            given[key] = {**triton.given[key], **own.get(key, {}), **over.get(key, {})}
    optional = given.get("optional", {})
    for name, place in triton.undecided:
        if name not in optional:
            notes.append(
                f"{place}: 'input.optional' has no effect here: '{name}' has no default, and a request without it is"
                f" answered 400; write optional: {{{name}: 0}} in model.yaml, say"
            )
    return given


def _check_files(folder: FilePath, config: Config, faults: list[str]) -> None:
    """Every file that the configuration names must be there."""
    named: list[tuple[Path, FilePath]] = [
        (("output", position, "label_filename"), folder / output["label_filename"])
        for position, output in enumerate(config.values["output"])
        if output["label_filename"]
    ]
    named += [
        (("model_warmup", position), folder / SAMPLES_FOLDER / one["input_data_file"])
        for position, sample in enumerate(config.values["model_warmup"])
        for one in sample["inputs"].values()
        if one["input_data_file"]
    ]
    faults.extend(f"{config.source.at(path)}: there is no '{file}'" for path, file in named if not file.is_file())


def check_versions(wanted: list[Wanted], served: dict[str, set[int]], faults: list[str]) -> None:
    """Steps run the greatest version that is served of their model; one that asks for another is a fault."""
    faults.extend(
        f"{step.place}: the step asks for version {step.version} of '{step.model}', and gets {max(versions)}\n"
        f"help: set version_policy: {{ specific: {{ versions: [ {step.version} ] }} }} at '{step.model}', or"
        " model_version: -1 at the step"
        for step in wanted
        if (versions := served.get(step.model)) and max(versions) != step.version
    )


def _kind_of_files(folder: FilePath) -> str | None:
    """``python`` or ``onnx`` by the files of the versions; None where they don't say."""
    kinds = {
        kind
        for ending, kind in ((".onnx", "onnx"), (".py", "python"))
        for version in folder.iterdir()
        if version.name.isdigit() and (version / f"model{ending}").exists()
    }
    return kinds.pop() if len(kinds) == 1 else None

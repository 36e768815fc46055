"""Paths into models and versions.

Reads folders, hands on every model version that is to be served, with the settings that stand beside it.
Knows nothing of the machine and of defaults: what was not given is not filled in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from inferd.runtimes.registry import recognise
from inferd.spec.files import Given, ModelEntry, load_model_file, load_server_file
from inferd.spec.settings import Versions

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Found", "Repository", "discover"]

LAYOUT = "<name>/<version>/model.onnx (or model.py, model.ubj …), versions are 1, 2, 3 …"
SERVER_FILE, MODEL_FILE = "inferd.yaml", "model.yaml"


class Found(NamedTuple):
    """One model version on disk."""

    name: str
    version: int
    file: Path
    given: Given
    """What ``model.yaml`` and ``inferd.yaml`` set for it."""
    place: str
    """Where it was named, for messages."""


class Repository(NamedTuple):
    """All that was found."""

    models: list[Found]
    server: Given
    """What ``server:`` of an ``inferd.yaml`` sets."""
    pipelines: list[dict[str, Any]]
    """``PipelineSettings`` of the data plane."""


def discover(paths: list[Path], overrides: Given, faults: list[str]) -> Repository:
    """Everything that ``paths`` name.

    Args:
        paths: model files, folders of models, or ``inferd.yaml`` files.
        overrides: settings of the command line, which stand above every file's.
        faults: takes every fault.
    """
    models: list[Found] = []
    server: Given = {}
    pipelines: list[dict[str, Any]] = []
    for path in paths:
        file = path / SERVER_FILE if path.is_dir() and (path / SERVER_FILE).exists() else path
        if file.suffix in (".yaml", ".yml"):
            read = load_server_file(file, faults)
            server |= read.server
            pipelines += read.pipelines
            for entry in read.models:
                models += _entry(entry, read.defaults, overrides, faults)
        else:
            models += _entry(ModelEntry(path, {}, str(path)), {}, overrides, faults)
    _refuse_doubles(models, faults)
    return Repository(models, server, pipelines)


def _entry(entry: ModelEntry, defaults: Given, overrides: Given, faults: list[str]) -> list[Found]:
    path = entry.path
    over = entry.given | overrides
    if not path.exists():
        faults.append(
            f"{entry.place}: there is no '{path}'" if entry.place != str(path) else f"{path}: no such file or folder"
        )
        return []
    if path.is_file() or _is_lone_folder(path):
        return _lone_file(path, defaults | over, entry.place, faults)
    folders = _model_folders(path)
    if _is_model_folder(path):
        return _model_folder(path, defaults, over, entry.place, faults)
    loose = [file for file in sorted(path.iterdir()) if file.suffix == ".onnx" and file.is_file()]
    if not folders and not loose:
        faults.append(f"{path}: no models in this folder\nhelp: put them there as {LAYOUT}")
    if "name" in over and len(folders) + len(loose) > 1:
        count = len(folders) + len(loose)
        faults.append(f"{entry.place}: 'name' was given for a folder of {count} models; name one model's folder")
    found = [model for file in loose for model in _lone_file(file, defaults | over, str(file), faults)]
    return found + [model for folder in folders for model in _model_folder(folder, defaults, over, str(folder), faults)]


def _lone_file(file: Path, given: Given, place: str, faults: list[str]) -> list[Found]:
    if recognise(file) is None and "runtime" not in given:
        faults.append(
            f"{place}: '{file.name}' is no model that is known by its ending or its first bytes\n"
            f"help: name a model file, a folder of models or {SERVER_FILE}, or set runtime:"
        )
        return []
    name, version = file.name if file.is_dir() else file.stem, 1
    resolved = file.resolve()
    if resolved.stem == "model" and _version(resolved.parent.name):
        # One version of a repository, named by its file.
        name, version = resolved.parent.parent.name, int(resolved.parent.name)
    return [Found(given.get("name") or name, version, resolved, given, place)]


def _model_folder(folder: Path, defaults: Given, over: Given, place: str, faults: list[str]) -> list[Found]:
    beside = folder / MODEL_FILE
    given = defaults | (load_model_file(beside, faults) if beside.exists() else {}) | over
    name = given.get("name") or folder.resolve().name
    numbers = _versions_in(folder, given, faults)
    wanted = _select(sorted(numbers), given.get("versions", Versions()))
    missing = set(given.get("versions", Versions()).listed) - set(numbers)
    if missing:
        there = ", ".join(map(str, sorted(numbers))) or "none"
        faults.append(f"{folder}: versions {sorted(missing)} are asked for; there are {there}")
    files = {number: _model_file(numbers[number], given, faults) for number in wanted}
    return [
        Found(name, number, file.resolve(), given, place if file.parent == folder else str(file.parent))
        for number, file in files.items()
        if file is not None
    ]


def _versions_in(folder: Path, given: Given, faults: list[str]) -> dict[int, Path]:
    """The version folders by number. A model file beside no versions is version 1."""
    numbers: dict[int, Path] = {}
    strange = []
    for child in _visible(folder):
        if child.is_dir() and _version(child.name):
            numbers[int(child.name)] = child
        elif child.is_dir():
            strange.append(child.name)
    if not numbers and _candidates(folder, given):
        return {1: folder}
    if strange:
        faults.append(
            f"{folder}: {', '.join(map(repr, strange))} is no version\n"
            "help: version folders are positive numbers without leading zeros: 1, 2, 10"
        )
    elif not numbers:
        faults.append(f"{folder}: no versions in this folder\nhelp: put the model there as 1/model.onnx")
    return numbers


def _select(numbers: list[int], versions: Versions) -> list[int]:
    if versions.listed:
        return [number for number in numbers if number in versions.listed]
    # Compared as numbers: 10 is later than 9.
    return numbers if versions.latest is None else numbers[-versions.latest :]


def _model_file(folder: Path, given: Given, faults: list[str]) -> Path | None:
    candidates = _candidates(folder, given)
    if len(candidates) == 1:
        return candidates[0]
    wanted = given.get("file") or "model.onnx, model.py or another model file"
    names = " and ".join(candidate.name for candidate in candidates)
    what = f"both {names} are there" if candidates else f"there is no {wanted}"
    faults.append(f"{folder}: {what}\nhelp: name the model's file with file: in {MODEL_FILE}")
    return None


def _candidates(folder: Path, given: Given) -> list[Path]:
    """What may be the model in ``folder``: what ``file:`` names, else ``model.*``, else the folder itself."""
    if given.get("file"):
        return [folder / given["file"]] if (folder / given["file"]).exists() else []
    if recognise(folder):
        return [folder]
    return [path for path in _named_model(folder) if recognise(path)]


def _named_model(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.stem == "model"]


def _is_lone_folder(folder: Path) -> bool:
    """Whether ``folder`` is one model by itself, with neither versions nor settings: a SavedModel, say."""
    return not (folder / MODEL_FILE).exists() and recognise(folder) is not None


def _is_model_folder(folder: Path) -> bool:
    """Whether ``folder`` is one model rather than a folder of models."""
    return (
        (folder / MODEL_FILE).exists()
        or any(recognise(path) for path in _named_model(folder))
        or any(child.is_dir() and _version(child.name) for child in _visible(folder))
    )


def _model_folders(folder: Path) -> list[Path]:
    return [child for child in _visible(folder) if child.is_dir()]


def _visible(folder: Path) -> list[Path]:
    return [child for child in sorted(folder.iterdir()) if not child.name.startswith((".", "__"))]


def _version(name: str) -> bool:
    return name.isascii() and name.isdigit() and not name.startswith("0") and len(name) < 19


def _refuse_doubles(models: list[Found], faults: list[str]) -> None:
    seen: dict[tuple[str, int], Found] = {}
    for model in models:
        first = seen.setdefault((model.name, model.version), model)
        if first is not model:
            faults.append(
                f"{model.file}: model '{model.name}' version {model.version} is also {first.file}\n"
                "help: give one of them another name: or another version folder"
            )

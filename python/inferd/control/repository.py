"""Paths into models and versions.

Reads folders, hands on every model version that is to be served, with the settings that stand beside it.
Knows nothing of the machine and of defaults: what was not given is not filled in.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from inferd.control.beside import SAMPLES_FOLDER
from inferd.control.leftovers import left_out, loose_models
from inferd.control.names import name_of, visible
from inferd.control.triton import CONFIG_FILE, TritonFolder, check_versions, read_folder, settle
from inferd.runtimes.registry import recognise
from inferd.spec.files import Given, ModelEntry, load_model_file, load_server_file
from inferd.spec.settings import NAME_PATTERN
from inferd.spec.values import Versions

if TYPE_CHECKING:
    from inferd.spec.triton.ensemble import Wanted

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
    config: dict[str, Any] | None = None
    """The ``config.pbtxt`` beside it."""
    folder: Path = Path()
    """Where what belongs to it is looked for: labels, samples."""


class Repository(NamedTuple):
    """All that was found."""

    models: list[Found]
    server: Given
    """What ``server:`` of an ``inferd.yaml`` sets."""
    pipelines: list[dict[str, Any]]
    """``PipelineSettings`` of the data plane."""
    declared: dict[str, Given]
    """``inputs`` and ``outputs`` of pipelines that say what they are, by name."""
    notes: list[str]
    """What is left out: files and versions that are not served, what has no effect; ``place: what and why``."""
    wanted: list[Wanted]
    """Versions that steps ask for."""


def discover(paths: list[Path], overrides: Given, faults: list[str]) -> Repository:
    """Everything that ``paths`` name.

    Args:
        paths: model files, folders of models, or ``inferd.yaml`` files; ``NAMESPACE=PATH`` puts a namespace before the
            names of what is there.
        overrides: settings of the command line, which stand above every file's.
        faults: takes every fault.
    """
    all_of_it = Repository([], {}, [], {}, [], [])
    for path in paths:
        namespace, path_within = _namespace(path)
        into = Repository([], all_of_it.server, [], {}, all_of_it.notes, [])
        file = path_within / SERVER_FILE if (path_within / SERVER_FILE).exists() else path_within
        if file.suffix in (".yaml", ".yml"):
            read = load_server_file(file, faults)
            into.server.update(read.server)
            into.pipelines.extend(read.pipelines)
            for entry in read.models:
                part = into._replace(models=[], pipelines=[], declared={}, wanted=[])
                _entry(entry, read.defaults, overrides, part, faults)
                _gather(into, _named_within(entry.namespace, part))
            if file != path_within:
                into.notes.extend(_unlisted(file, [entry.path for entry in read.models]))
        else:
            _entry(ModelEntry(file, {}, str(path)), {}, overrides, into, faults)
        _gather(all_of_it, _named_within(namespace, into))
    _refuse_doubles(all_of_it.models, faults)
    served: dict[str, set[int]] = {}
    for model in all_of_it.models:
        served.setdefault(model.name, set()).add(model.version)
    check_versions(all_of_it.wanted, served, faults)
    return all_of_it


def _namespace(path: Path) -> tuple[str | None, Path]:
    """``a=REPO`` is the folder REPO, whose models are served as ``a.MODEL``."""
    namespace, equals, rest = str(path).partition("=")
    if not equals or path.exists() or not re.fullmatch(NAME_PATTERN, namespace):
        return None, path
    return namespace, Path(rest)


def _named_within(namespace: str | None, found: Repository) -> Repository:
    """``found`` with every name behind that of the namespace."""
    if namespace is None:
        return found

    def within(name: str) -> str:
        return f"{namespace}.{name}"

    def moved(pipeline: dict[str, Any]) -> dict[str, Any]:
        steps = [
            {**step, "models": [(within(model), share) for model, share in step["models"]]}
            for step in pipeline["steps"]
        ]
        return {**pipeline, "name": within(pipeline["name"]), "steps": steps}

    return found._replace(
        models=[model._replace(name=within(model.name)) for model in found.models],
        pipelines=[moved(pipeline) for pipeline in found.pipelines],
        declared={within(name): given for name, given in found.declared.items()},
        wanted=[step._replace(model=within(step.model)) for step in found.wanted],
    )


def _gather(into: Repository, found: Repository) -> None:
    """Server settings and notes are in one place already."""
    into.models.extend(found.models)
    into.pipelines.extend(found.pipelines)
    into.declared.update(found.declared)
    into.wanted.extend(found.wanted)


def _entry(entry: ModelEntry, defaults: Given, overrides: Given, into: Repository, faults: list[str]) -> None:
    path = entry.path
    over = entry.given | overrides
    folders = []
    if not path.exists():
        faults.append(
            f"{entry.place}: there is no '{path}'" if entry.place != str(path) else f"{path}: no such file or folder"
        )
    elif path.is_file() or _is_lone_folder(path):
        _lone_file(path, defaults | over, entry.place, into, faults)
    elif _is_model_folder(path):
        _model_folder(path, (defaults, over), entry.place, into, faults)
    else:
        folders = _model_folders(path)
        # That it is named by it says that it was read.
        read = [path / SERVER_FILE] if entry.place.startswith(f"{path / SERVER_FILE}:") else []
        loose = loose_models(path, defaults | over, read)
        into.notes.extend(f"{path}: {what}" for what in loose.left_out)
        count = len(folders) + len(loose.models)
        if count == 0:
            faults.append(
                f"{path}: no models in this folder{_because(loose.left_out)}\nhelp: put them there as {LAYOUT}"
            )
        if "name" in over and count > 1:
            faults.append(f"{entry.place}: 'name' was given for a folder of {count} models; name one model's folder")
        for file in loose.models:
            _lone_file(file, defaults | over, str(file), into, faults)
    for folder in folders:
        _model_folder(folder, (defaults, over), str(folder), into, faults)


def _lone_file(file: Path, given: Given, place: str, into: Repository, faults: list[str]) -> None:
    if recognise(file) is None and "runtime" not in given:
        faults.append(
            f"{place}: '{file.name}' is no model that is known by its ending or its first bytes\n"
            f"help: name a model file, a folder of models or {SERVER_FILE}, or set runtime:"
        )
        return
    # As it was named: links of volumes and caches lead to files of other names, and to none that lasts.
    file = file.absolute()
    folder = file.parent
    name, version = file.name if file.is_dir() else file.stem, 1
    if file.stem == "model" and _version(folder.name):
        # One version of a repository, named by its file.
        version, folder = int(folder.name), folder.parent
        name = name_of(folder)
    unread = [folder / name for name in (MODEL_FILE, CONFIG_FILE) if (folder / name).is_file()]
    into.notes.extend(f"{one}: left out, since the model is named by its file\nhelp: name {folder}" for one in unread)
    into.models.append(Found(given.get("name") or name, version, file, given, place, folder=folder))


def _model_folder(folder: Path, around: tuple[Given, Given], place: str, into: Repository, faults: list[str]) -> None:
    """Args: ``around``: the settings below and above those of the folder's own files."""
    defaults, over = around
    beside = folder / MODEL_FILE
    own = load_model_file(beside, faults) if beside.exists() else {}
    triton = TritonFolder({}, {})
    if (folder / CONFIG_FILE).exists():
        before = len(faults)
        triton = read_folder(folder, into.notes, faults)
        if triton.is_pipeline:
            _pipeline_folder(beside, triton, own, over.get("name"), into, faults)
        if triton.is_pipeline or len(faults) > before:
            return
    given = settle(triton, defaults, own, over, into.notes)
    name = given.get("name") or name_of(folder)
    numbers = _versions_in(folder, given, into, faults)
    wanted = _select(sorted(numbers), given.get("versions", Versions()))
    missing = set(given.get("versions", Versions()).listed) - set(numbers)
    if missing:
        there = ", ".join(map(str, sorted(numbers))) or "none"
        faults.append(f"{folder}: versions {sorted(missing)} are asked for; there are {there}")
    files = {number: _model_file(numbers[number], given, faults) for number in wanted}
    into.notes.extend(left_out(folder, numbers, files, given))
    into.models.extend(
        Found(
            name,
            number,
            file.absolute(),
            given,
            place if file.parent == folder else str(file.parent),
            triton.config or None,
            folder.absolute(),
        )
        for number, file in files.items()
        if file is not None
    )


def _pipeline_folder(
    beside: Path, triton: TritonFolder, own: Given, name: str | None, into: Repository, faults: list[str]
) -> None:
    """An ensemble. Only its name, objective and class are its own, the rest is its models'."""
    faults.extend(
        f"{beside}: '{key}' has no effect on an ensemble; write it at the models of its steps"
        for key in own
        if key not in ("name", "slo", "priority_default")
    )
    if triton.pipeline is None:
        return
    slo = own.get("slo")
    pipeline = {
        **triton.pipeline,
        "name": name or own.get("name") or triton.pipeline["name"],
        "slo": None if slo is None else {"latency_s": slo.latency_s, "percentile": slo.percentile},
        "priority_default": own.get("priority_default", triton.pipeline["priority_default"]),
    }
    into.pipelines.append(pipeline)
    into.declared[pipeline["name"]] = triton.given
    into.wanted.extend(triton.wanted)


def _versions_in(folder: Path, given: Given, into: Repository, faults: list[str]) -> dict[int, Path]:
    """The version folders by number. A model file beside no versions is version 1."""
    numbers: dict[int, Path] = {}
    strange = []
    for child in visible(folder):
        if child.is_dir() and _version(child.name):
            numbers[int(child.name)] = child
        elif child.is_dir() and child.name != SAMPLES_FOLDER:
            strange.append(child.name)
    if not numbers and _candidates(folder, given):
        return {1: folder}
    if strange and numbers and (folder / CONFIG_FILE).exists():
        # As Triton has it: models keep labels and tools beside their versions.
        into.notes.append(f"{folder}: {', '.join(map(repr, strange))} is no version, and is passed over")
    elif strange:
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
        return [path for path in map(_inner, [folder / given["file"]]) if path.exists()]
    if recognise(folder):
        return [folder]
    return [path for path in map(_inner, _named_model(folder)) if recognise(path)]


def _inner(path: Path) -> Path:
    """A model of several files is a folder of the same name, in which the model's own file has it once more."""
    return path / path.name if (path / path.name).is_file() else path


def _named_model(folder: Path) -> list[Path]:
    return [path for path in visible(folder) if path.stem == "model"]


def _because(left_out: list[str]) -> str:
    return "".join(f"\n  {what}" for what in left_out)


def _unlisted(file: Path, listed: list[Path]) -> list[str]:
    """What is said of models beside an ``inferd.yaml`` that does not name them."""
    folder = file.parent
    named = [path.absolute() for path in listed]
    models = [child for child in _model_folders(folder) if _is_lone_folder(child) or _is_model_folder(child)]
    models += loose_models(folder, {}).models
    strange = sorted(child.name for child in models if not any(path.is_relative_to(child.absolute()) for path in named))
    if not strange or any(path.samefile(folder) for path in named if path.exists()):
        return []
    what, them = ("are", "them") if len(strange) > 1 else ("is", "it")
    return [f"{file}: {', '.join(map(repr, strange))} beside it {what} left out: models: does not name {them}"]


def _is_lone_folder(folder: Path) -> bool:
    """Whether ``folder`` is one model by itself, with neither versions nor settings: a SavedModel, say."""
    alone = not (folder / MODEL_FILE).exists() and not (folder / CONFIG_FILE).exists()
    return alone and recognise(folder) is not None


def _is_model_folder(folder: Path) -> bool:
    """Whether ``folder`` is one model rather than a folder of models."""
    return (
        (folder / MODEL_FILE).exists()
        or (folder / CONFIG_FILE).exists()
        or any(recognise(path) for path in map(_inner, _named_model(folder)))
        or any(child.is_dir() and _version(child.name) for child in visible(folder))
    )


def _model_folders(folder: Path) -> list[Path]:
    return [child for child in visible(folder) if child.is_dir()]


def _version(name: str) -> bool:
    return name.isascii() and name.isdigit() and not name.startswith("0") and len(name) < 19


def _refuse_doubles(models: list[Found], faults: list[str]) -> None:
    seen: dict[tuple[str, int], Found] = {}
    for model in models:
        first = seen.setdefault((model.name, model.version), model)
        if first is not model:
            faults.append(
                f"{model.file}: model '{model.name}' version {model.version} is also {first.file}\n"
                "help: give one of them another name: or another version folder, or keep repositories apart with"
                " namespaces: inferd serve a=REPOSITORY b=REPOSITORY"
            )

"""Paths into models and versions.

Reads folders, hands on every model version that is to be served, with the settings in its folder's files.
Knows nothing of the machine and of defaults: what was not given is not filled in.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from inferd.control.names import name_of, visible
from inferd.control.sources.ignored import ignored_files, standalone_models
from inferd.control.sources.sidecars import SAMPLES_FOLDER
from inferd.control.sources.source import Fault, Found
from inferd.control.sources.triton import CONFIG_FILE, TritonFolder, check_versions, read_folder, settle
from inferd.runtimes.registry import recognise
from inferd.spec.files import Given, ModelEntry, load_model_file, load_server_file
from inferd.spec.settings import NAME_PATTERN
from inferd.spec.values import Versions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferd.spec.triton.ensemble import Wanted

__all__ = ["Repository", "discover"]

LAYOUT = "<name>/<version>/model.onnx (or model.py, model.ubj …), versions are 1, 2, 3 …"
SERVER_FILE, MODEL_FILE = "inferd.yaml", "model.yaml"


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
    """What is ignored: files and versions that are not served, what has no effect; ``place: what and why``."""
    wanted: list[Wanted]
    """Versions that steps ask for."""
    faults: list[Fault]


def discover(paths: list[Path], overrides: Given) -> Repository:
    """Everything that ``paths`` name. A fault of one model, of any kind, keeps no other from being found.

    Args:
        paths: model files, folders of models, or ``inferd.yaml`` files; ``NAMESPACE=PATH`` puts a namespace before the
            names of what is there.
        overrides: settings of the command line, which override every file's.
    """
    whole = Repository([], {}, [], {}, [], [], [])
    for path in paths:
        namespace, path_within = _namespace(path)
        into = _part(whole)
        with _isolated(str(path), into):
            _path(path_within, str(path), overrides, into)
        _gather(whole, _named_within(namespace, into))
    _refuse_doubles(whole.models, whole.faults)
    served: dict[str, set[int]] = {}
    for model in whole.models:
        served.setdefault(model.name, set()).add(model.version)
    for step in whole.wanted:
        faults: list[str] = []
        check_versions([step], served, faults)
        whole.faults.extend(Fault(message, (step.model,)) for message in faults)
    return whole


def _part(whole: Repository) -> Repository:
    """A part of ``whole`` to be gathered. Server settings and notes are in one place already."""
    return Repository([], whole.server, [], {}, whole.notes, [], [])


def _path(path: Path, place: str, overrides: Given, into: Repository) -> None:
    """What is at one path, which was named as ``place``."""
    file = path / SERVER_FILE if (path / SERVER_FILE).exists() else path
    if file.suffix not in (".yaml", ".yml"):
        _entry(ModelEntry(file, {}, place), {}, overrides, into)
        return
    faults: list[str] = []
    read = load_server_file(file, faults)
    into.server.update(read.server)
    into.pipelines.extend(read.pipelines)
    parts = []
    for entry in read.models:
        part = _part(into)
        with _isolated(entry.place, part):
            _entry(entry, read.defaults, overrides, part)
        parts.append(_named_within(entry.namespace, part))
    owners = {
        fault: _names(part) or (entry.path.stem,)
        for entry, part in zip(read.models, parts, strict=True)
        for fault in entry.faults
    }
    into.faults.extend(Fault(fault, owners.get(fault, ())) for fault in faults)
    for part in parts:
        _gather(into, part)
    if file != path:
        # A note is not worth a failure.
        with contextlib.suppress(OSError):
            into.notes.extend(_unlisted(file, [entry.path for entry in read.models]))


def _names(part: Repository) -> tuple[str, ...]:
    """What is served of it."""
    names = [found.name for found in part.models] + [pipeline["name"] for pipeline in part.pipelines]
    return tuple(dict.fromkeys(names))


@contextlib.contextmanager
def _isolated(place: str, into: Repository, label: str | None = None) -> Iterator[list[str]]:
    """Keep what goes wrong inside the block to what is read there.

    Args:
        place: what is read, for messages.
        into: takes the faults.
        label: of the one model that is read. The faults are those of what the block adds to ``into``, else of this
            name. None: several are read, and what is wrong is none of theirs.

    Yields:
        Where the block puts faults. What it raises is one more.
    """
    faults: list[str] = []
    before = len(into.models), len(into.pipelines)
    try:
        yield faults
    except OSError as fault:
        faults.append(f"{place}: '{fault.filename}' can't be read: {fault.strerror}")
    except Exception as fault:  # noqa: BLE001 (whatever it is, the others are sound)
        faults.append(f"{place}: {type(fault).__name__}: {fault}")
    names: tuple[str, ...] = ()
    if label is not None:
        added = into._replace(models=into.models[before[0] :], pipelines=into.pipelines[before[1] :])
        names = _names(added) or (label,)
    into.faults.extend(Fault(message, names) for message in faults)


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
        faults=[fault._replace(models=tuple(map(within, fault.models))) for fault in found.faults],
    )


def _gather(into: Repository, found: Repository) -> None:
    into.models.extend(found.models)
    into.pipelines.extend(found.pipelines)
    into.declared.update(found.declared)
    into.wanted.extend(found.wanted)
    into.faults.extend(found.faults)


def _entry(entry: ModelEntry, defaults: Given, overrides: Given, into: Repository) -> None:
    path = entry.path
    over = entry.given | overrides

    def lone_file(file: Path, place: str) -> None:
        with _isolated(place, into, over.get("name") or file.stem) as faults:
            _lone_file(file, defaults | over, place, into, faults)

    def model_folder(folder: Path, place: str) -> None:
        with _isolated(place, into, over.get("name") or name_of(folder)) as faults:
            _model_folder(folder, (defaults, over), place, into, faults)

    if not path.exists():
        what = f"there is no '{path}'" if entry.place != str(path) else "no such file or folder"
        into.faults.append(Fault(f"{entry.place}: {what}", (path.stem,)))
    elif path.is_file() or _is_lone_folder(path):
        lone_file(path, entry.place)
    elif _is_model_folder(path):
        model_folder(path, entry.place)
    else:
        folders = _model_folders(path)
        # It named the folder, so it was read.
        read = [path / SERVER_FILE] if entry.place.startswith(f"{path / SERVER_FILE}:") else []
        loose = standalone_models(path, defaults | over, read)
        into.notes.extend(f"{path}: {what}" for what in loose.ignored)
        count = len(folders) + len(loose.models)
        if count == 0:
            why = "".join(f"\n  {what}" for what in loose.ignored)
            message = f"{path}: no models in this folder{why}\nhelp: put them there as {LAYOUT}"
            into.faults.append(Fault(message, (path.stem,)))
        if "name" in over and count > 1:
            message = f"{entry.place}: 'name' was given for a folder of {count} models; name one model's folder"
            into.faults.append(Fault(message, (over["name"],)))
        for file in loose.models:
            lone_file(file, str(file))
        for folder in folders:
            model_folder(folder, str(folder))


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
    settings_file = folder / MODEL_FILE
    own = load_model_file(settings_file, faults) if settings_file.exists() else {}
    triton = TritonFolder({}, {})
    if (folder / CONFIG_FILE).exists():
        before = len(faults)
        triton = read_folder(folder, into.notes, faults)
        if triton.is_pipeline:
            _pipeline_folder(settings_file, triton, own, over.get("name"), into, faults)
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
    into.notes.extend(ignored_files(folder, numbers, files, given))
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
    settings_file: Path, triton: TritonFolder, own: Given, name: str | None, into: Repository, faults: list[str]
) -> None:
    """An ensemble. Only its name, objective and class are its own, the rest is its models'."""
    faults.extend(
        f"{settings_file}: '{key}' has no effect on an ensemble; write it at the models of its steps"
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
    """The version folders by number. Without version folders, the model's file is version 1."""
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
        # As Triton has it: folders of models also hold labels and tools.
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


def _unlisted(file: Path, listed: list[Path]) -> list[str]:
    """Notes about models in the folder of an ``inferd.yaml`` that does not name them."""
    folder = file.parent
    named = [path.absolute() for path in listed]
    models = [child for child in _model_folders(folder) if _is_lone_folder(child) or _is_model_folder(child)]
    models += standalone_models(folder, {}).models
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


def _refuse_doubles(models: list[Found], faults: list[Fault]) -> None:
    seen: dict[tuple[str, int], Found] = {}
    for model in models:
        first = seen.setdefault((model.name, model.version), model)
        if first is not model:
            message = (
                f"{model.file}: model '{model.name}' version {model.version} is also {first.file}\n"
                "help: give one of them another name: or another version folder, or keep repositories apart with"
                " namespaces: inferd serve a=REPOSITORY b=REPOSITORY"
            )
            faults.append(Fault(message, (model.name,)))

"""Files of a folder that are models, those that belong to one, and those that are ignored.

Reads folders and looks into files for the names of others, hands on what is served and notes about the rest.
Decides nothing of a model's own folder: what is served of it is an argument.
"""

from __future__ import annotations

import ast
import mmap
import re
from typing import TYPE_CHECKING, NamedTuple

from inferd.control.names import visible
from inferd.errors import Forbidden, InferdError
from inferd.runtimes.registry import recognise, runtime
from inferd.spec.settings import ModelSpec
from inferd.spec.values import Versions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from inferd.spec.files import Given

__all__ = ["Standalone", "ignored_files", "standalone_models"]

_UNKNOWN = "no model is known by the ending or the first bytes"
_SCRIPT = "no class with load() and predict() is in it; name the file itself to serve it"
_UNREAD = "settings stand in inferd.yaml, or in model.yaml in a model's folder"
_SETTINGS = (".yaml", ".yml", ".pbtxt")
# Files of every repository, which are no models.
_HARMLESS = re.compile(
    r"(readme|license|licence|copying|notice|changelog|authors|makefile|dockerfile)(\..*)?"
    r"|requirements.*\.txt|pyproject\.toml|setup\.(py|cfg)|.*\.(md|rst|lock)",
    re.IGNORECASE,
)
# A model that names files beside it is small: its weights are in them.
_LOOKED_INTO_MAX = 64 << 20
_NAMES_MAX = 10


class Standalone(NamedTuple):
    """The files of a folder that are models by themselves."""

    models: list[Path]
    """Each a model."""
    ignored: list[str]
    """What else is there: names and why, for a message."""


def standalone_models(folder: Path, given: Given, read: Collection[Path] = ()) -> Standalone:
    """The models among the files of ``folder``, and notes about the others.

    Args:
        folder: of models.
        given: settings of each.
        read: files of settings that were read.
    """
    files = [child for child in visible(folder) if child.is_file() and child not in read]
    models, reasons = [], {}
    for file in files:
        reason = _why_not(file, given)
        if reason is None:
            models.append(file)
        else:
            reasons[file] = reason
    by_reason: dict[str, list[str]] = {}
    for file, reason in reasons.items():
        if not _belongs(file, models):
            by_reason.setdefault(reason, []).append(file.name)
    return Standalone(models, [f"{_listed(names)} left out: {reason}" for reason, names in by_reason.items()])


def ignored_files(
    folder: Path, versions: Mapping[int, Path], files: Mapping[int, Path | None], given: Given
) -> Iterator[str]:
    """Notes about versions and files of a model that are not served.

    Args:
        folder: the model's.
        versions: the folders of all its versions.
        files: what is served, by version.
        given: its settings.
    """
    older = sorted(versions.keys() - files.keys())
    if older and not given.get("versions", Versions()).listed:
        what = f"versions {', '.join(map(str, older))} are" if len(older) > 1 else f"version {older[0]} is"
        yield f"{folder}: {what} left out: versions: latest serves {', '.join(map(str, sorted(files)))}"
    chosen = [file for file in files.values() if file is not None]
    places = {versions[number]: file for number, file in files.items() if file is not None}
    for place in dict.fromkeys((folder, *places)):
        unread = [name for name in _unread(folder, place) if (place / name).is_file()]
        if unread:
            yield f"{place}: {_listed(unread)} left out: {_UNREAD}"
    if chosen and folder not in places:
        others = _others([child for child in visible(folder) if child.is_file()], chosen)
        if others:
            yield f"{folder}: {_listed(others)} left out: the model is in the folders of its versions"
    if given.get("file"):
        return
    for place, file in places.items():
        others = [] if file == place else _others(visible(place), [file])
        if others:
            yield f"{place}: {_listed(others)} left out: '{file.name}' is the model"


def _unread(folder: Path, place: Path) -> tuple[str, ...]:
    """Names of settings files that are not read in ``place``."""
    misspelt = ("inferd.yaml", "inferd.yml", "model.yml")
    return misspelt if place == folder else (*misspelt, "model.yaml", "config.pbtxt")


def _others(paths: Iterable[Path], chosen: Sequence[Path]) -> list[str]:
    """Models among ``paths`` that are not among, or part of, those that were ``chosen``."""
    # Files in the folder of a class may be loaded by it.
    by_class = all(file.suffix == ".py" for file in chosen)
    return [
        path.name
        for path in paths
        if not any(file.is_relative_to(path) for file in chosen)
        and (path.suffix == ".py" or not by_class)
        and _looks_like_model(path)
        and not _belongs(path, chosen)
    ]


def _why_not(file: Path, given: Given) -> str | None:
    """Why ``file`` is no model that can be served by itself; None: it is one."""
    kind = recognise(file)
    if kind is None:
        return _UNREAD if file.suffix in _SETTINGS else _UNKNOWN
    if file.suffix == ".py" and "class_" not in given and not _has_model(file):
        return _SCRIPT
    try:
        runtime(kind).compose(file, ModelSpec(**given), 1)
    except Forbidden as fault:
        return str(fault).replace("\nhelp: ", "; ")
    except (InferdError, OSError, TypeError):
        # Its own fault, which is reported when the model is read.
        return None
    return None


def _looks_like_model(path: Path) -> bool:
    if path.suffix == ".py":
        return path.is_file() and _has_model(path)
    if recognise(path) is not None:
        return True
    return path.is_dir() and any(inner.stem == "model" and recognise(inner) for inner in visible(path))


def _has_model(file: Path) -> bool:
    """Whether a class in a file of Python is a model, by its text: a helper or a script is none."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        # Its worker will say what is wrong with it.
        return True
    return any(_is_model(node) for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def _is_model(node: ast.ClassDef) -> bool:
    methods = {one.name for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
    if any(ast.unparse(base) in ("Model", "inferd.Model") for base in node.bases):
        return True
    return {"load", "predict"} <= methods or (node.name == "TritonPythonModel" and "execute" in methods)


def _belongs(file: Path, models: Iterable[Path]) -> bool:
    """Whether ``file`` needs no word: everybody has it, or one of ``models`` is what it is there for."""
    if _HARMLESS.fullmatch(file.name):
        return True
    return any(
        file.name.startswith((f"{model.name}.", f"{model.name}_"))
        or (file.suffix == ".bin" and model == file.with_suffix(".xml"))
        or _names(model, file)
        for model in models
    )


def _names(model: Path, file: Path) -> bool:
    """Whether the name of ``file`` stands in ``model``: ONNX has those of its weights, a class opens what it needs."""
    words = [file.name.encode()]
    if model.suffix == ".py" and file.suffix == ".py":
        words = [rb"import " + file.stem.encode(), rb"from " + file.stem.encode(), rb"from ." + file.stem.encode()]
    try:
        with model.open("rb") as opened:
            size = model.stat().st_size
            if not 0 < size <= _LOOKED_INTO_MAX:
                return False
            with mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_READ) as text:
                return any(text.find(word) >= 0 for word in words)
    except OSError:
        return False


def _listed(names: list[str]) -> str:
    """Names as the subject of a sentence."""
    more = f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
    return ", ".join(map(repr, names[:_NAMES_MAX])) + more + (" is" if len(names) == 1 else " are")

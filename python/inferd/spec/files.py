"""Parse ``inferd.yaml`` and ``model.yaml`` into typed settings, with the line of every fault.

Reads files, hands on only the settings that they contain, so that they can be merged. Knows nothing of models on disk:
paths are passed on as written.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from inferd.spec.convert import Path, Source, nearest, read_settings
from inferd.spec.pipelines import read_pipelines
from inferd.spec.settings import NAME_PATTERN, ModelSpec, ServerSpec

if TYPE_CHECKING:
    from pathlib import Path as FilePath

__all__ = ["Given", "ModelEntry", "ServerFile", "load_model_file", "load_server_file"]

# Deeper than any settings; bounds recursion through YAML aliases that contain themselves.
_DEPTH_MAX = 16

Given = dict[str, Any]
"""Settings that a file contains, by their Python names."""


class ModelEntry(NamedTuple):
    """One entry of ``models:``."""

    path: FilePath
    given: Given
    place: str
    namespace: str | None = None
    """Prefix of its models' names, joined with a dot."""
    faults: tuple[str, ...] = ()
    """Faults of the entry."""


class ServerFile(NamedTuple):
    """The content of an ``inferd.yaml``."""

    server: Given
    defaults: Given
    models: list[ModelEntry]
    pipelines: list[dict[str, Any]]
    """``PipelineSettings`` of the data plane."""


def load_server_file(file: FilePath, faults: list[str]) -> ServerFile:
    """Read ``inferd.yaml``. Appends faults to ``faults``; valid parts are returned even so."""
    before = len(faults)
    data, source = _load(file, faults)
    if data is None and len(faults) > before:
        return ServerFile({}, {}, [], [])
    # An empty file has no models.
    data = data or {}
    sections = ["server", "defaults", "models", "pipelines"]
    faults.extend(
        f"{source.at((key,))}: unknown section '{key}'{nearest(str(key), sections)}"
        for key in data
        if key not in sections
    )
    server = read_settings(ServerSpec, data.get("server"), source, faults, path=("server",))
    defaults = read_settings(ModelSpec, data.get("defaults"), source, faults, path=("defaults",), scope="all")
    models = data.get("models")
    if not isinstance(models, list) or not models:
        faults.append(f"{source.at(('models',))}: no models; write models: and under it - path: model.onnx")
        models = []
    entries = (_entry(entry, position, file, source, faults) for position, entry in enumerate(models))
    found = [entry for entry in entries if entry is not None]
    return ServerFile(server, defaults, found, read_pipelines(data.get("pipelines"), source, faults))


def load_model_file(file: FilePath, faults: list[str]) -> Given:
    """Read ``model.yaml``. Appends faults to ``faults``."""
    data, source = _load(file, faults)
    return read_settings(ModelSpec, data, source, faults)


def _entry(entry: Any, position: int, file: FilePath, source: Source, faults: list[str]) -> ModelEntry | None:
    path: Path = ("models", position)
    if isinstance(entry, str):
        entry = {"path": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        faults.append(f"{source.at(path)}: a model needs a path; write - path: model.onnx")
        return None
    own: list[str] = []
    given = read_settings(ModelSpec, entry, source, own, path=path, besides=("path", "namespace"))
    namespace = entry.get("namespace")
    if namespace is not None and not (isinstance(namespace, str) and re.fullmatch(NAME_PATTERN, namespace)):
        own.append(f"{source.at((*path, 'namespace'))}: namespace: {namespace!r} does not match {NAME_PATTERN}")
        namespace = None
    faults.extend(own)
    return ModelEntry(file.parent / entry["path"], given, source.at(path), namespace, tuple(own))


def _load(file: FilePath, faults: list[str]) -> tuple[dict[str, Any] | None, Source]:
    # Imported on use: costs a tenth of the start-up time, and is needed for YAML files only.
    import yaml

    lines: dict[Path, int] = {}
    source = Source(str(file), lines)
    try:
        text = file.read_text(encoding="utf-8")
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        with contextlib.closing(_Disposable(loader)):
            node = loader.get_single_node()
            data = None if node is None else _build(loader, node, (), source, faults)
    except OSError as fault:
        faults.append(f"{file}: {fault.strerror}")
        return None, source
    except UnicodeDecodeError:
        faults.append(f"{file}: not UTF-8 text")
        return None, source
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        faults.append(f"{where}: {fault.problem or fault.context or 'not YAML'}")
        return None, source
    except yaml.YAMLError as fault:
        faults.append(f"{file}: not YAML: {fault}")
        return None, source
    if data is not None and not isinstance(data, dict):
        faults.append(f"{file}:1: expected a mapping of settings")
        return None, source
    return data, source


class _Disposable:
    """Adapts the loader's ``dispose`` to ``close``."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def close(self) -> None:
        self._loader.dispose()


def _build(loader: Any, node: Any, path: Path, source: Source, faults: list[str]) -> Any:
    """Return the plain value of ``node``; records the line of every nested value in ``source.lines``."""
    lines: Any = source.lines
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if len(path) > _DEPTH_MAX:
        faults.append(f"{source.name}:{line}: nested deeper than {_DEPTH_MAX}")
        return None
    if node.id == "sequence":
        return [_build(loader, item, (*path, position), source, faults) for position, item in enumerate(node.value)]
    if node.id != "mapping":
        return loader.construct_object(node, deep=True)
    loader.flatten_mapping(node)
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        place = key_node.start_mark.line + 1
        if not isinstance(key, str):
            faults.append(f"{source.name}:{place}: key {key!r} is not text; put it in quotes")
            continue
        if key in values:
            faults.append(f"{source.name}:{place}: duplicate key '{key}'; keep one")
        lines[(*path, key)] = place
        values[key] = _build(loader, value_node, (*path, key), source, faults)
    return values

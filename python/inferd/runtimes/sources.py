"""Import Python files of users, compiled on each load.

Reads a file and its siblings, hands on the module. Bypasses ``__pycache__``, which identifies a source by its size and
its modification time in seconds: it would serve stale code for a model that is replaced within a second. Knows nothing
of the module's content.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from functools import partial
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.errors import ModelFailed
from inferd.runtimes.kept import content, kept_sources

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

__all__ = ["import_source", "module_folders", "prefer_modules_of"]

_IMPORT = re.compile(rb"^[ \t]*(?:import[ \t]+([^\n#]+)|from[ \t]+(\w+))", re.MULTILINE)


def import_source(name: str, file: Path, *folders: Path, kept: dict[str, Any] | None = None) -> Any:
    """Import ``file`` as the module ``name``. It can import modules in ``folders``.

    Args:
        name: of the module.
        file: its source.
        folders: searched first for its imports.
        kept: the model's kept files (:mod:`inferd.runtimes.kept`): their sources are read as kept, even if the files
            are gone by the time of an import.

    Raises:
        ModelFailed: the file does not exist or is not a Python file.
    """
    sources = _Sources(kept)
    loader = _SourceLoader(name, str(file), sources)
    found = importlib.util.spec_from_file_location(name, file, loader=loader)
    if found is None or file.suffix not in SOURCE_SUFFIXES or not (str(file) in sources or file.is_file()):
        raise ModelFailed(f"'{file.name}' is not a readable Python file")
    sys.path[:0] = map(str, folders)
    for folder in folders:
        sys.path_importer_cache.pop(str(folder), None)
    sys.path_hooks.insert(0, _FolderHook(folders, sources))
    module = importlib.util.module_from_spec(found)
    # Dataclasses and pickle look up the module here.
    sys.modules[name] = module
    loader.exec_module(module)
    return module


def prefer_modules_of(folder: Path) -> None:
    """Unload imported modules that would shadow those of ``folder`` which its files import.

    A script that imports ``resource`` expects the file of that name next to it, not a module that the worker has
    imported. References to the unloaded modules stay valid. Built-in modules are not shadowed, as in a script.
    """
    files = [file for file in folder.iterdir() if file.suffix in SOURCE_SUFFIXES] if folder.is_dir() else []
    sources = b"\n".join(file.read_bytes() for file in files if file.is_file())
    imported = set(re.findall(rb"\w+", b" ".join(b" ".join(names) for names in _IMPORT.findall(sources))))
    for file in folder.iterdir() if folder.is_dir() else ():
        name = file.name.partition(".")[0]
        module = sys.modules.get(name)
        is_module = file.suffix in (*SOURCE_SUFFIXES, ".so") or (file / "__init__.py").is_file()
        if module is None or not is_module or name == "inferd" or name in sys.builtin_module_names:
            continue
        origin = getattr(module.__spec__, "origin", None)
        # Only modules that the folder's files import: libraries may need others of the same name.
        if name.encode() in imported and origin != "frozen" and not Path(origin or "").is_relative_to(folder):
            for one in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
                del sys.modules[one]


def module_folders(file: Path) -> list[Path]:
    """Return the folders whose modules ``file`` can import, in order of precedence.

    First the folder of the file itself, links resolved, as in a script; then the folder of the link, since a cache may
    store the file apart from its siblings.
    """
    return list(dict.fromkeys((file.resolve().parent, file.parent)))


class _Sources:
    """Contents of kept sources, by path."""

    def __init__(self, kept: dict[str, Any] | None) -> None:
        self._kept = kept
        self._files = {} if kept is None else kept_sources(kept)

    def __contains__(self, path: str) -> bool:
        return path in self._files

    def read(self, path: str) -> bytes:
        return b"" if self._kept is None else content(self._kept, self._files[path])


class _SourceLoader(SourceFileLoader):
    def __init__(self, name: str, path: str, sources: _Sources) -> None:
        super().__init__(name, path)
        self._sources = sources

    def get_data(self, path: str) -> bytes:
        return self._sources.read(path) if path in self._sources else super().get_data(path)

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


class _FolderHook:
    """Path hook for the folders of a model and packages in them. Skips installed packages."""

    def __init__(self, folders: tuple[Path, ...], sources: _Sources) -> None:
        self._folders = folders
        self._sources = sources

    def __call__(self, path: str) -> FileFinder:
        base = Path(path)
        if "site-packages" in base.parts or not any(base.is_relative_to(folder) for folder in self._folders):
            raise ImportError(path)
        return _Finder(path, self._sources)


class _Finder(FileFinder):
    """Finds kept sources, even if deleted since, and other modules of the folder."""

    def __init__(self, path: str, sources: _Sources) -> None:
        source: Any = partial(_SourceLoader, sources=sources)
        super().__init__(
            path,
            (ExtensionFileLoader, EXTENSION_SUFFIXES),
            (source, SOURCE_SUFFIXES),
            (SourcelessFileLoader, BYTECODE_SUFFIXES),
        )
        self._sources = sources

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        base = f"{self.path}/{fullname.rpartition('.')[2]}"
        for source, folders in ((f"{base}/__init__.py", [base]), (f"{base}.py", None)):
            if source in self._sources:
                loader = _SourceLoader(fullname, source, self._sources)
                return importlib.util.spec_from_file_location(
                    fullname, source, loader=loader, submodule_search_locations=folders
                )
        return super().find_spec(fullname, target)

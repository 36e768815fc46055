"""Python files of users, compiled anew each time they are loaded.

Reads a file and what lies beside it, hands on the module. What CPython keeps in ``__pycache__`` tells one version of a
file from the next by its size and the second it was written in: a model that was replaced within that second would
answer as before. Knows nothing of what is in the module.
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

__all__ = ["import_source", "places_of_modules", "prefer"]

_IMPORT = re.compile(rb"^[ \t]*(?:import[ \t]+([^\n#]+)|from[ \t]+(\w+))", re.MULTILINE)


def import_source(name: str, file: Path, *folders: Path, kept: dict[str, Any] | None = None) -> Any:
    """The module in ``file``, run and known by ``name``. Files in ``folders`` can be imported by it.

    Args:
        name: of the module.
        file: its source.
        folders: what else it imports is looked for there first.
        kept: what :mod:`inferd.runtimes.kept` says of the model's files: sources are read as they were kept, also
            those that are imported later, when they may be gone.

    Raises:
        ModelFailed: there is no such file, or its ending is not that of a Python file.
    """
    sources = _Sources(kept)
    loader = _Source(name, str(file), sources)
    found = importlib.util.spec_from_file_location(name, file, loader=loader)
    if found is None or file.suffix not in SOURCE_SUFFIXES or not (str(file) in sources or file.is_file()):
        raise ModelFailed(f"'{file.name}' is not a Python file that can be loaded")
    sys.path[:0] = map(str, folders)
    for folder in folders:
        sys.path_importer_cache.pop(str(folder), None)
    sys.path_hooks.insert(0, _Beside(folders, sources))
    module = importlib.util.module_from_spec(found)
    # Dataclasses and pickles look their module up here.
    sys.modules[name] = module
    loader.exec_module(module)
    return module


def prefer(folder: Path) -> None:
    """Let the modules in ``folder`` that its files import be found although this process has others of their names.

    Those that the worker imported before are the worker's: a script that imports ``resource`` gets the file of that
    name beside it. Whoever holds the others keeps them. What is part of the interpreter stays, there as here.
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
        # One that nothing there imports is somebody's who happens to share the folder: libraries need theirs.
        if name.encode() in imported and origin != "frozen" and not Path(origin or "").is_relative_to(folder):
            for one in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
                del sys.modules[one]


def places_of_modules(file: Path) -> list[Path]:
    """Folders whose modules ``file`` can import as its own, the first one first.

    As when it is run as a script: the folder that the file itself is in, where a link leads to it. Then the one where
    the link is: a cache may keep the file apart from its siblings.
    """
    return list(dict.fromkeys((file.resolve().parent, file.parent)))


class _Sources:
    """What sources held when they were kept, by path."""

    def __init__(self, kept: dict[str, Any] | None) -> None:
        self._kept = kept
        self._files = {} if kept is None else kept_sources(kept)

    def __contains__(self, path: str) -> bool:
        return path in self._files

    def read(self, path: str) -> bytes:
        return b"" if self._kept is None else content(self._kept, self._files[path])


class _Source(SourceFileLoader):
    def __init__(self, name: str, path: str, sources: _Sources) -> None:
        super().__init__(name, path)
        self._sources = sources

    def get_data(self, path: str) -> bytes:
        return self._sources.read(path) if path in self._sources else super().get_data(path)

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


class _Beside:
    """Finds modules in the folders of a model, and in packages there. Installed packages are left as they are."""

    def __init__(self, folders: tuple[Path, ...], sources: _Sources) -> None:
        self._folders = folders
        self._sources = sources

    def __call__(self, path: str) -> FileFinder:
        place = Path(path)
        if "site-packages" in place.parts or not any(place.is_relative_to(folder) for folder in self._folders):
            raise ImportError(path)
        return _Finder(path, self._sources)


class _Finder(FileFinder):
    """Finds kept sources, also where they are gone by now, and what else is in the folder."""

    def __init__(self, path: str, sources: _Sources) -> None:
        source: Any = partial(_Source, sources=sources)
        super().__init__(
            path,
            (ExtensionFileLoader, EXTENSION_SUFFIXES),
            (source, SOURCE_SUFFIXES),
            (SourcelessFileLoader, BYTECODE_SUFFIXES),
        )
        self._sources = sources

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        place = f"{self.path}/{fullname.rpartition('.')[2]}"
        for source, folders in ((f"{place}/__init__.py", [place]), (f"{place}.py", None)):
            if source in self._sources:
                loader = _Source(fullname, source, self._sources)
                return importlib.util.spec_from_file_location(
                    fullname, source, loader=loader, submodule_search_locations=folders
                )
        return super().find_spec(fullname, target)

"""Python files of users, compiled anew each time they are loaded.

Reads a file and what lies beside it, hands on the module. What CPython keeps in ``__pycache__`` tells one version of a
file from the next by its size and the second it was written in: a model that was replaced within that second would
answer as before. Knows nothing of what is in the module.
"""

from __future__ import annotations

import importlib.util
import sys
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

if TYPE_CHECKING:
    from types import CodeType

__all__ = ["import_source", "places_of_modules"]


def import_source(name: str, file: Path, *folders: Path) -> Any:
    """The module in ``file``, run and known by ``name``. Files in ``folders`` can be imported by it.

    Raises:
        ModelFailed: there is no such file, or its ending is not that of a Python file.
    """
    found = importlib.util.spec_from_file_location(name, file, loader=_Source(name, str(file)))
    if found is None or file.suffix not in SOURCE_SUFFIXES or not file.is_file():
        raise ModelFailed(f"'{file.name}' is not a Python file that can be loaded")
    sys.path[:0] = map(str, folders)
    for folder in folders:
        sys.path_importer_cache.pop(str(folder), None)
        _forget(folder)
    sys.path_hooks.insert(0, _Beside(folders))
    module = importlib.util.module_from_spec(found)
    # Dataclasses and pickles look their module up here.
    sys.modules[name] = module
    _Source(name, str(file)).exec_module(module)
    return module


def _forget(folder: Path) -> None:
    """Let the modules in ``folder`` be found although this process has others of their names.

    Those that the worker imported before are the worker's: a script that imports ``resource`` gets the file of that
    name beside it. Who holds the others keeps them. What is part of the interpreter stays, there as here.
    """
    for file in folder.iterdir() if folder.is_dir() else ():
        name = file.name.partition(".")[0]
        module = sys.modules.get(name)
        is_module = file.suffix in (*SOURCE_SUFFIXES, ".so") or (file / "__init__.py").is_file()
        if module is None or not is_module or name == "inferd" or name in sys.builtin_module_names:
            continue
        origin = getattr(module.__spec__, "origin", None)
        if origin != "frozen" and not Path(origin or "").is_relative_to(folder):
            for one in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
                del sys.modules[one]


def places_of_modules(file: Path) -> list[Path]:
    """Folders whose modules ``file`` can import as its own, the first one first.

    As when it is run as a script: the folder that the file itself is in, where a link leads to it. Then the one where
    the link is: a cache may keep the file apart from its siblings.
    """
    return list(dict.fromkeys((file.resolve().parent, file.parent)))


class _Source(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


class _Beside:
    """Finds modules in the folders of a model, and in packages there. Installed packages are left as they are."""

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self._folders = folders

    def __call__(self, path: str) -> FileFinder:
        place = Path(path)
        if "site-packages" in place.parts or not any(place.is_relative_to(folder) for folder in self._folders):
            raise ImportError(path)
        return FileFinder(
            path,
            (ExtensionFileLoader, EXTENSION_SUFFIXES),
            (_Source, SOURCE_SUFFIXES),
            (SourcelessFileLoader, BYTECODE_SUFFIXES),
        )

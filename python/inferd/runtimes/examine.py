"""Check a Python model without running it: syntax, imports, and that it defines a model class.

Reads load settings as JSON, hands back the error that :mod:`inferd.worker` would report for each, as JSON. Runs in the
interpreter that would load the models, so that language version and installed packages match. Reports only certain
errors: knows nothing of what base classes or decorators elsewhere add at run time.
"""

from __future__ import annotations

import ast
import json
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.errors import ModelFailed
from inferd.runtimes.python import lacking_methods, no_class_named, no_such_model
from inferd.runtimes.sources import module_folders
from inferd.runtimes.triton import CLASS as TRITON_CLASS
from inferd.runtimes.triton import UTILS, is_triton, no_triton_class

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec

__all__ = ["main", "problem_of"]

# Modules that the worker provides.
_PROVIDED = frozenset({UTILS, "inferd"})
# Functions that may define names at run time.
_DYNAMIC = frozenset({"exec", "eval", "globals", "vars", "setattr", "locals"})
_FILES_MAX = 1000
"""Maximum number of the model's own modules to read."""


def problem_of(load: dict[str, Any]) -> str | None:
    """Return why a worker could not load the model; None: no error found.

    Args:
        load: ``Launch.load`` of the Python runtime.
    """
    try:
        _examine(load)
    except ModelFailed as fault:
        return str(fault)
    except (SyntaxError, ValueError, ImportError, RecursionError, OSError) as fault:
        # In the form of `inferd.worker.loop`.
        return f"loading raised {type(fault).__name__}: {fault}"
    return None


def _examine(load: dict[str, Any]) -> None:
    file = Path(load["file"])
    triton = is_triton(load)
    folders = list(map(str, module_folders(file)))
    if "triton" in load:
        folders = [*folders, load["triton"]["folder"]]
    tree = _parse(file)
    _examine_imports(tree, folders, package=[str(file.parent)] if triton else None)
    if triton:
        _examine_triton_class(file, tree)
    else:
        _examine_class(file, tree, load["class"])


def _parse(file: Path) -> ast.Module:
    source = file.read_bytes()
    # Compiled, not only parsed, to find errors such as a `return` outside a function. With the worker's path.
    compile(source, str(file), "exec", dont_inherit=True)
    return ast.parse(source, str(file))


# -- imports --------------------------------------------------------------------------------------------------------


def _examine_imports(tree: ast.Module, folders: Sequence[str], package: list[str] | None) -> None:
    """Check that every unconditional import finds its module; recurses into the user's own modules."""
    path = [*folders, *sys.path]
    seen: set[str] = set()
    pending = [(tree, package)]
    while pending and len(seen) < _FILES_MAX:
        module, package = pending.pop()
        for name, search in _imports(module, package):
            spec = _find_module(name, search, path, folders)
            origin = None if spec is None else spec.origin
            if spec is None or origin is None or origin in seen or not _is_users(origin, folders):
                continue
            seen.add(origin)
            if origin.endswith(".py"):
                pending.append((_parse(Path(origin)), spec.submodule_search_locations or [str(Path(origin).parent)]))


def _imports(module: ast.Module, package: list[str] | None) -> Iterator[tuple[str, list[str] | None]]:
    """Yield the modules that ``module`` imports unconditionally, and the folders of relative ones."""
    for node in _unconditional(module.body):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, None
        elif isinstance(node, ast.ImportFrom) and node.level == 1 and node.module and package is not None:
            yield node.module, package


def _unconditional(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that always run: not those in ``if``, ``try``, loops and functions."""
    for node in body:
        yield node
        if isinstance(node, ast.ClassDef | ast.With):
            yield from _unconditional(node.body)


def _find_module(name: str, search: list[str] | None, path: list[str], folders: Sequence[str]) -> ModuleSpec | None:
    """Find a module; None if it may be created at run time.

    Raises:
        ModuleNotFoundError: it does not exist.
    """
    top, _, rest = name.partition(".")
    if search is None and (top in _PROVIDED or top in sys.builtin_module_names or FrozenImporter.find_spec(top)):
        return None
    spec = BuiltinImporter.find_spec(top) or PathFinder.find_spec(top, path if search is None else search)
    if spec is None:
        if search is None and _other_finders(top):
            return None
        raise ModuleNotFoundError(f"No module named {top!r}")
    while rest and spec is not None and spec.submodule_search_locations is not None:
        # Installed packages may create submodules at run time; the user's own are files.
        part, _, rest = rest.partition(".")
        top = f"{top}.{part}"
        folders = list(spec.submodule_search_locations)
        spec = PathFinder.find_spec(top, folders)
        if spec is None and any(_is_users(folder, folders) for folder in folders):
            raise ModuleNotFoundError(f"No module named {top!r}")
    return spec


def _other_finders(name: str) -> bool:
    """Whether another finder knows the module, e.g. that of an editable installation."""
    finders = [one for one in sys.meta_path if one not in (BuiltinImporter, FrozenImporter, PathFinder)]
    return any(getattr(one, "find_spec", lambda *_: None)(name, None) for one in finders)


def _is_users(origin: str, folders: Sequence[str]) -> bool:
    return any(Path(origin).is_relative_to(place) for place in folders)


# -- classes --------------------------------------------------------------------------------------------------------


def _examine_class(file: Path, tree: ast.Module, wanted: str | None) -> None:
    if _is_dynamic(tree):
        return
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if wanted is not None:
        if wanted not in _bound_names(tree):
            raise no_class_named(file, wanted, list(classes))
        if wanted in classes and _is_model(classes[wanted], classes) is False:
            raise lacking_methods(file, wanted)
        return
    verdicts = {name: _is_model(node, classes) for name, node in classes.items()}
    # A class in `if` or `try`, or returned by a function, may be the model.
    certain = None not in verdicts.values() and not any(map(_may_make_class, tree.body))
    models = [name for name, is_model in verdicts.items() if is_model]
    if certain and len(models) != 1:
        raise no_such_model(file, models)


def _examine_triton_class(file: Path, tree: ast.Module) -> None:
    if _is_dynamic(tree):
        return
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    node = classes.get(TRITON_CLASS)
    absent = node is None and TRITON_CLASS not in _bound_names(tree)
    if absent or (node is not None and _has(node, "execute", classes) is False):
        raise no_triton_class(file)


def _is_dynamic(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _DYNAMIC:
            return True
    return False


def _may_make_class(node: ast.stmt) -> bool:
    """Whether ``node`` may bind a class by a call or under a condition."""
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
        return any(ast.unparse(target)[:1].isupper() for target in node.targets)
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return any(isinstance(part, ast.ClassDef) for part in ast.walk(node))


def _bound_names(tree: ast.Module) -> set[str]:
    """Return every name that the module may bind."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
    return names


def _is_model(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> bool | None:
    """Whether the class has ``load`` and ``predict``; None: only known at run time."""
    has = [_has(node, method, classes) for method in ("load", "predict")]
    return False if False in has else None if None in has else True


def _has(node: ast.ClassDef, method: str, classes: dict[str, ast.ClassDef]) -> bool | None:
    for part in node.body:
        targets = [*getattr(part, "targets", ()), *([part.target] if isinstance(part, ast.AnnAssign) else ())]
        if getattr(part, "name", None) == method or any(ast.unparse(one) == method for one in targets):
            return True
    if node.keywords or any(_name(one) != "dataclass" for one in node.decorator_list):
        return None
    found = [_inherited(base, method, classes) for base in node.bases if ast.unparse(base) != node.name]
    return True if True in found else None if None in found else False


def _inherited(base: ast.expr, method: str, classes: dict[str, ast.ClassDef]) -> bool | None:
    name = ast.unparse(base)
    if name in classes:
        return _has(classes[name], method, classes)
    if name in ("Model", "inferd.Model"):
        return method == "load"
    return False if name == "object" else None


def _name(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator).rpartition(".")[2]


def main() -> int:
    """Check the models of a list on standard input."""
    json.dump([problem_of(load) for load in json.load(sys.stdin)], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())

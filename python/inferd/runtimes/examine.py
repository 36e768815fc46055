"""What can be said of a model in Python without running it: does it parse, is what it imports there, has it a class.

Reads the sources of models as JSON, hands back what :mod:`inferd.worker` would say of each, as JSON. Runs in the
interpreter that would load them, so that versions of the language and installed packages are the right ones.
Says only what is certain: what a class gets from a base or a decorator elsewhere is known once it runs.
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
from inferd.runtimes.sources import places_of_modules
from inferd.runtimes.triton import CLASS as TRITON_CLASS
from inferd.runtimes.triton import UTILS, is_triton, no_triton_class

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec

__all__ = ["main", "problem_of"]

# What the worker itself puts there.
_PROVIDED = frozenset({UTILS, "inferd"})
# What makes names appear that the text does not show.
_DYNAMIC = frozenset({"exec", "eval", "globals", "vars", "setattr", "locals"})
_FILES_MAX = 1000
"""Modules beside a model that are read; a worker reads what it imports, however many."""


def problem_of(load: dict[str, Any]) -> str | None:
    """Why the worker of a Python model could not load it; None: nothing is known against it.

    Args:
        load: ``Launch.load`` of the Python runtime.
    """
    try:
        _examine(load)
    except ModelFailed as fault:
        return str(fault)
    except (SyntaxError, ValueError, ImportError, RecursionError, OSError) as fault:
        # In the words of `inferd.worker.loop`.
        return f"loading raised {type(fault).__name__}: {fault}"
    return None


def _examine(load: dict[str, Any]) -> None:
    file = Path(load["file"])
    triton = is_triton(load)
    places = list(map(str, places_of_modules(file)))
    if "triton" in load:
        places = [*places, load["triton"]["folder"]]
    tree = _parsed(file)
    _examine_imports(tree, places, package=[str(file.parent)] if triton else None)
    if triton:
        _examine_triton_class(file, tree)
    else:
        _examine_class(file, tree, load["class"])


def _parsed(file: Path) -> ast.Module:
    source = file.read_bytes()
    # Compiled, not only parsed: a `return` outside a function is found then. With the path, as the worker compiles it.
    compile(source, str(file), "exec", dont_inherit=True)
    return ast.parse(source, str(file))


# -- imports --------------------------------------------------------------------------------------------------------


def _examine_imports(tree: ast.Module, places: Sequence[str], package: list[str] | None) -> None:
    """Every import that is certain to run must find its module; the user's own modules are read in turn."""
    path = [*places, *sys.path]
    seen: set[str] = set()
    waiting = [(tree, package)]
    while waiting and len(seen) < _FILES_MAX:
        module, around = waiting.pop()
        for name, within in _imported(module, around):
            spec = _found(name, within, path, places)
            origin = None if spec is None else spec.origin
            if spec is None or origin is None or origin in seen or not _is_own(origin, places):
                continue
            seen.add(origin)
            if origin.endswith(".py"):
                waiting.append((_parsed(Path(origin)), spec.submodule_search_locations or [str(Path(origin).parent)]))


def _imported(module: ast.Module, around: list[str] | None) -> Iterator[tuple[str, list[str] | None]]:
    """Names of modules that are imported whenever ``module`` runs, and where those that are relative are looked for."""
    for node in _unconditional(module.body):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, None
        elif isinstance(node, ast.ImportFrom) and node.level == 1 and node.module and around is not None:
            yield node.module, around


def _unconditional(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run whenever the module does: not those in ``if``, ``try``, loops and functions."""
    for node in body:
        yield node
        if isinstance(node, ast.ClassDef | ast.With):
            yield from _unconditional(node.body)


def _found(name: str, within: list[str] | None, path: list[str], places: Sequence[str]) -> ModuleSpec | None:
    """Where the module is; None where its package makes its parts only when it runs.

    Raises:
        ModuleNotFoundError: it is nowhere.
    """
    top, _, rest = name.partition(".")
    if within is None and (top in _PROVIDED or top in sys.builtin_module_names or FrozenImporter.find_spec(top)):
        return None
    spec = BuiltinImporter.find_spec(top) or PathFinder.find_spec(top, path if within is None else within)
    if spec is None:
        if within is None and _other_finders(top):
            return None
        raise ModuleNotFoundError(f"No module named {top!r}")
    while rest and spec is not None and spec.submodule_search_locations is not None:
        # An installed package may put anything among its parts when it runs; the user's own are their files.
        part, _, rest = rest.partition(".")
        top = f"{top}.{part}"
        folders = list(spec.submodule_search_locations)
        spec = PathFinder.find_spec(top, folders)
        if spec is None and any(_is_own(folder, places) for folder in folders):
            raise ModuleNotFoundError(f"No module named {top!r}")
    return spec


def _other_finders(name: str) -> bool:
    """Whether something besides the path knows the module, an editable installation say."""
    finders = [one for one in sys.meta_path if one not in (BuiltinImporter, FrozenImporter, PathFinder)]
    return any(getattr(one, "find_spec", lambda *_: None)(name, None) for one in finders)


def _is_own(origin: str, places: Sequence[str]) -> bool:
    return any(Path(origin).is_relative_to(place) for place in places)


# -- classes --------------------------------------------------------------------------------------------------------


def _examine_class(file: Path, tree: ast.Module, wanted: str | None) -> None:
    if _is_dynamic(tree):
        return
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if wanted is not None:
        if wanted not in _bound(tree):
            raise no_class_named(file, wanted, list(classes))
        if wanted in classes and _is_model(classes[wanted], classes) is False:
            raise lacking_methods(file, wanted)
        return
    judged = {name: _is_model(node, classes) for name, node in classes.items()}
    # A class inside `if` or `try`, or one that a function makes, may be the model.
    certain = None not in judged.values() and not any(map(_may_make_class, tree.body))
    models = [name for name, is_model in judged.items() if is_model]
    if certain and len(models) != 1:
        raise no_such_model(file, models)


def _examine_triton_class(file: Path, tree: ast.Module) -> None:
    if _is_dynamic(tree):
        return
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    node = classes.get(TRITON_CLASS)
    absent = node is None and TRITON_CLASS not in _bound(tree)
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
    """Whether ``node`` may bind a class that is not written in full at the top: by a call, or under a condition."""
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
        return any(ast.unparse(target)[:1].isupper() for target in node.targets)
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return any(isinstance(part, ast.ClassDef) for part in ast.walk(node))


def _bound(tree: ast.Module) -> set[str]:
    """Every name that the module may bind, wherever it stands."""
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
    """Whether it has ``load`` and ``predict``; None: that is known once it runs."""
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
    """Answer for a list of models on standard input."""
    json.dump([problem_of(load) for load in json.load(sys.stdin)], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())

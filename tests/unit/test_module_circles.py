"""No two files of a crate import each other, directly or in a circle.

A file is a module; what it imports is read from its ``use`` lines and paths. A name that a parent re-exports counts as
an import of the file that defines it. Unit tests inside files don't count. (Layers of the Python package are
contracts of import-linter, in ``pyproject.toml``.)
"""

import re
from pathlib import Path

import pytest

CRATES = Path(__file__).parents[2] / "crates"

# Files that are in a circle. A pipeline is found under a name as a model is, and its steps are names, of pipelines too: the
# data is recursive, and so are handle, pipeline and route (ADR 35).
ALLOWED = {"dispatcher": 6}

TESTS = re.compile(r"#\[cfg\(test\)\]\s*(pub\(crate\) )?mod \w+ \{.*", re.DOTALL)
COMMENTS = re.compile(r"//[^\n]*")
USE = re.compile(r"^\s*(pub(?:\([^)]*\))? )?use ([^;]+);", re.MULTILINE)
PATH = re.compile(r"(?<![\w:])((?:crate|self|super)(?:::\w+)+)")

Module = tuple[str, ...]


def is_test(file: Path) -> bool:
    return file.stem == "tests" or file.stem.endswith("_tests") or "tests" in file.parts[-3:-1]


def module_of(file: Path, root: Path) -> Module:
    parts = file.relative_to(root).with_suffix("").parts
    return parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts


def split(tree: str) -> list[str]:
    """The parts of a list that are separated by commas outside braces."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(tree):
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            parts.append(tree[start:at])
            start = at + 1
    return [part.strip() for part in [*parts, tree[start:]] if part.strip()]


def leaves(tree: str) -> list[list[str]]:
    """The paths of a ``use`` tree, each as its segments."""
    before, brace, rest = tree.partition("{")
    prefix = [segment.strip() for segment in before.split("::") if segment.strip()]
    if not brace:
        return [[segment.split(" as ")[0].strip() for segment in prefix]]
    return [[*prefix, *leaf] for part in split(rest.rpartition("}")[0]) for leaf in leaves(part)]


class Crate:
    """The modules of one crate, and which of them each one uses."""

    def __init__(self, root: Path) -> None:
        files = [file for file in root.rglob("*.rs") if not is_test(file)]
        texts = {module_of(file, root): COMMENTS.sub("", TESTS.sub("", file.read_text())) for file in files}
        self.modules = set(texts)
        self.bodies = {module: USE.sub("", text) for module, text in texts.items()}
        self.uses = {
            module: [(bool(public), leaf) for public, tree in USE.findall(text) for leaf in leaves(tree)]
            for module, text in texts.items()
        }
        self.exports = {
            module: {leaf[-1]: leaf for public, leaf in uses if public} for module, uses in self.uses.items()
        }

    def absolute(self, module: Module, path: list[str]) -> Module | None:
        """``path`` as seen from ``module``, from the crate's root; None outside this crate."""
        first, *rest = path
        if first == "crate":
            return tuple(rest)
        if first == "self":
            return (*module, *rest)
        if first == "super":
            while rest and rest[0] == "super":
                module, rest = module[:-1], rest[1:]
            return (*module[:-1], *rest)
        return (*module, *path) if (*module, first) in self.modules else None

    def defines(self, path: Module) -> Module:
        """The module that defines what ``path`` names, behind any number of re-exports."""
        for length in range(len(path), -1, -1):
            module = path[:length]
            if module in self.modules:
                name = path[length] if length < len(path) else None
                exported = self.exports[module].get(name or "")
                behind = exported and self.absolute(module, exported)
                return self.defines(behind) if behind else module
        return ()

    def imports(self, module: Module) -> set[Module]:
        body = self.bodies[module]
        # What is only handed on is imported by those who use it.
        used = [leaf for public, leaf in self.uses[module] if not public or re.search(rf"\b{leaf[-1]}\b", body)]
        used += [path.split("::") for path in PATH.findall(body)]
        children = {child[-1] for child in self.modules if child and child[:-1] == module}
        used += [[child] for child in children if re.search(rf"(?<![\w:]){child}::", body)]
        found = (self.absolute(module, path) for path in used)
        return {self.defines(path) for path in found if path is not None} - {module}


def circles(imports: dict[Module, set[Module]]) -> list[set[Module]]:
    """Groups of modules that all reach each other, of two and more."""
    reached = {}
    for start, direct in imports.items():
        seen, pending = set(), list(direct)
        while pending:
            module = pending.pop()
            if module not in seen:
                seen.add(module)
                pending += imports[module]
        reached[start] = seen
    groups = {
        frozenset(other for other in imports if other in reached[one] and one in reached[other]) for one in imports
    }
    return [set(group) for group in groups if len(group) > 1]


def circles_of(root: Path) -> list[set[Module]]:
    crate = Crate(root)
    return circles({module: crate.imports(module) for module in crate.modules})


@pytest.mark.parametrize("crate", sorted(path.parent.name for path in CRATES.glob("*/src")))
def test_no_module_imports_one_that_imports_it(crate):
    found = circles_of(CRATES / crate / "src")
    named = [sorted("::".join(module) or "the root" for module in circle) for circle in found]
    assert sum(map(len, found)) <= ALLOWED.get(crate, 0), named


def test_a_circle_is_found_through_paths_and_reexports(tmp_path):
    (tmp_path / "deep").mkdir()
    for name, text in {
        "lib.rs": "mod one;\nmod deep;\npub use one::One;\n",
        "one.rs": "use crate::deep::{Inner, self};\npub struct One;\n",
        "deep/mod.rs": "mod inner;\npub(crate) use self::inner::Inner;\n",
        "deep/inner.rs": "pub struct Inner(crate::One);\n#[cfg(test)]\nmod tests {\n use super::*;\n}\n",
        "deep/alone.rs": "use super::inner::Inner; // crate::deep::alone\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert circles_of(tmp_path) == [{("one",), ("deep", "inner")}]

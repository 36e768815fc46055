"""Find the runtime of a model.

Reads a path or a runtime's name, hands on its module. Knows nothing of versions and repositories.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast, get_args

from inferd.spec.settings import RuntimeName

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.runtimes.base import RuntimeModule

__all__ = ["NAMES", "recognise", "runtime"]

NAMES: tuple[str, ...] = get_args(RuntimeName)
"""Values of ``runtime:``: the modules of this package that run models."""


def runtime(name: str) -> RuntimeModule:
    """Import the module of the runtime ``name``, one of :data:`NAMES`. Imports no framework."""
    return cast("RuntimeModule", import_module(f"inferd.runtimes.{name}"))


def recognise(path: Path) -> str | None:
    """Return the runtime of the model ``path``, a file or a folder; None: no model."""
    # In order of precedence: an MLflow folder may contain files that others claim.
    return next((name for name in NAMES if runtime(name).claims(path)), None)

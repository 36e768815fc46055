"""Which runtime a model belongs to.

Reads a path or a runtime's name, hands on the module that runs it. Knows nothing of versions and repositories.
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
"""What ``runtime:`` takes: the files of this package that run models."""


def runtime(name: str) -> RuntimeModule:
    """The module of the runtime ``name``, one of :data:`NAMES`. Imports no framework."""
    return cast("RuntimeModule", import_module(f"inferd.runtimes.{name}"))


def recognise(path: Path) -> str | None:
    """The runtime whose kind of model ``path`` is: a file, or a folder that is one model. None: no model."""
    # In this order: an MLflow folder may hold what others would claim.
    return next((name for name in NAMES if runtime(name).claims(path)), None)

"""Every case of every runtime, and which of them run when.

Reads ``models/RUNTIME.py``, hands on :class:`Entry`. Knows nothing of servers, and makes no model.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from differential.case import Case, Maker

__all__ = ["SEED", "Entry", "entries", "runtimes"]

SEED = 20
"""What the cases are made from where no other seed is asked for."""


@dataclass(frozen=True)
class Entry:
    """One case, not yet made.

    Args:
        runtime: the module that has it.
        name: what differs in it.
        maker: fits the model.
        slice: whether it runs in every run of the tests.
        heavy: whether its library is only there in ``make test-all``.
    """

    runtime: str
    name: str
    maker: Maker
    slice: bool
    heavy: bool

    @property
    def id(self) -> str:
        """What ``-k`` finds it by, and its model is served as."""
        return f"{self.runtime}-{re.sub(r'[^a-z0-9]+', '-', self.name.lower()).strip('-')}"

    def make(self, folder: Path, seed: int) -> Case:
        """The case, in an empty folder. The same from the same seed, whichever others are made."""
        return self.maker(folder, np.random.default_rng([seed, zlib.crc32(self.id.encode())]))


def runtimes() -> list[str]:
    """The modules that have cases."""
    return sorted(path.stem for path in (Path(__file__).parent / "models").glob("[a-z]*.py"))


def entries() -> list[Entry]:
    """Every case, by runtime; those of every run first, so that servers are shared by those that run together."""
    found = []
    for runtime in runtimes():
        module = import_module(f"differential.models.{runtime}")
        heavy = getattr(module, "HEAVY", False)
        own = [Entry(runtime, name, maker, name in module.SLICE, heavy) for name, maker in module.CASES.items()]
        found += sorted(own, key=lambda entry: not entry.slice)
    return found

"""Latency curves measured before, kept between runs.

Reads and writes small JSON files under the user's cache, one for each model file, device and number of threads.
Knows nothing of how a curve is measured or used. Whatever can't be read or written is done without.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from typing import TYPE_CHECKING, NamedTuple

from inferd.runtimes.trust import digest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Profile", "ProfileCache"]

Profile = list[tuple[int, float]]
"""Pairs of rows and seconds."""

_POINTS_MAX = 1024
_ROWS_END = 1 << 32


class ProfileCache(NamedTuple):
    """Curves by model digest, device and threads."""

    folder: Path

    def find(self, file: Path, device: str, threads: int) -> Profile:
        """The curve for ``file``; empty where there is none, or no curve."""
        with contextlib.suppress(OSError, ValueError, TypeError, ArithmeticError, RecursionError):
            # Reading a model of gigabytes for its digest takes seconds: only where a file of its size has a curve.
            if any(self.folder.glob(f"{_size(file)}-*")):
                points = json.loads(self._path(file, device, threads).read_text(encoding="utf-8"))
                profile = [(int(rows), float(seconds)) for rows, seconds in points][:_POINTS_MAX]
                if all(0 < rows < _ROWS_END and 0 <= seconds < math.inf for rows, seconds in profile):
                    return profile
        return []

    def keep(self, file: Path, device: str, threads: int, profile: Profile) -> None:
        """Keep the curve of ``file``."""
        with contextlib.suppress(OSError):
            target = self._path(file, device, threads)
            self.folder.mkdir(parents=True, exist_ok=True)
            # Renamed into place: another server may read it now.
            scratch = target.with_suffix(f".{os.getpid()}")
            try:
                scratch.write_text(json.dumps(profile), encoding="utf-8")
                scratch.replace(target)
            finally:
                scratch.unlink(missing_ok=True)

    def _path(self, file: Path, device: str, threads: int) -> Path:
        return self.folder / f"{_size(file)}-{digest(file)}-{device.replace(':', '')}-{threads}.json"


def _size(path: Path) -> int:
    """Bytes of a model's file, or of all files in its folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) or path.stat().st_size

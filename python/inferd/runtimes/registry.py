"""Which runtime a kind of file belongs to.

Reads a file's ending or a runtime's name, hands on its launcher. Knows nothing of versions and repositories.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferd.runtimes import onnx, python

if TYPE_CHECKING:
    from inferd.runtimes.base import Launcher

__all__ = ["ENDINGS", "LAUNCHERS"]

LAUNCHERS: dict[str, Launcher] = {"onnx": onnx.compose, "python": python.compose}
"""By the name that ``runtime:`` takes."""

ENDINGS = {".onnx": "onnx", ".py": "python"}
"""The runtime of a file by its ending. A repository's model file is ``model`` with one of these."""

"""Names in folders, as their owners wrote them.

Reads folders, hands on names. A link is called what it is called, not what it leads to: those of volumes, caches and
deployments lead to files of other names, and to none that lasts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["name_of", "visible"]


def name_of(folder: Path) -> str:
    """What ``folder`` is called; of ``.`` and ``..``, what the folders that they are are called."""
    name = folder.absolute().name
    return folder.resolve().name if name in ("", "..") else name


def visible(folder: Path) -> list[Path]:
    """What is in ``folder``, by name, without what is hidden."""
    return [child for child in sorted(folder.iterdir()) if not child.name.startswith((".", "__"))]

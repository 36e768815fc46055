"""From what a user names to what should run: read, then resolve.

Reads paths, flags and arguments, hands on a :class:`DesiredState`. Knows nothing of what runs now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inferd.control.resolve import resolve
from inferd.control.sources.files import FileSource
from inferd.control.sources.source import read_sources

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from inferd.control.desired import DesiredState
    from inferd.control.resources import Machine
    from inferd.spec.files import Given

__all__ = ["desired_state"]


def desired_state(
    paths: Sequence[Path],
    server: Given,
    model: Given,
    machine: Machine,
    *,
    pipelines: Sequence[dict[str, Any]] = (),
    ports_free: bool = False,
) -> DesiredState:
    """What should run, where all of it can be resolved: a start refuses what is partly wrong.

    Args:
        paths: what the user named.
        server: server settings that override every file's.
        model: model settings that override every file's, for all models.
        machine: what this process may use.
        pipelines: those that are in no file.
        ports_free: take free ports where none is given.

    Raises:
        SpecError: with every fault of files, folders and settings.
    """
    sources = [FileSource(paths, server, model, pipelines, ports_free)]
    return resolve(read_sources(sources, machine), machine).require_sound()

"""What should run: the desired state, with nothing left open.

Made by :mod:`inferd.control.resolve`; read by what shows, loads or compares it. Plain values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from inferd.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.control.declarations import Declared
    from inferd.control.sources.source import Fault
    from inferd.spec.settings import ModelSpec, ServerSpec

__all__ = ["DesiredState", "ResolvedModel"]


class ResolvedModel(NamedTuple):
    """One model version, resolved."""

    name: str
    version: int
    file: Path
    spec: ModelSpec
    threads: int
    settings: dict[str, Any]
    """``ModelSettings`` of the data plane."""


class DesiredState(NamedTuple):
    """Everything that should run."""

    server: ServerSpec
    gateway: dict[str, Any]
    """``GatewaySettings`` of the data plane."""
    log: dict[str, Any]
    models: list[ResolvedModel]
    pipelines: list[dict[str, Any]]
    """``PipelineSettings`` of the data plane."""
    declared: dict[str, Declared]
    """What pipelines say they take and give, by name."""
    notes: list[str]
    """Settings in files that have no effect, and files that are ignored."""
    faults: list[Fault]
    """What is wrong with files and settings. Models and pipelines that have any are not among those above."""

    def require_sound(self) -> DesiredState:
        """The same, if nothing is wrong with it.

        Raises:
            SpecError: with every fault.
        """
        if self.faults:
            raise SpecError([fault.message for fault in self.faults])
        return self

"""What is known of everything that runs or was tried: the actual state.

Plain values; changed by :mod:`inferd.control.reconcile.reconciler` alone.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inferd.control.dataplane import Loaded
    from inferd.control.desired import ResolvedModel
    from inferd.errors import InferdError

__all__ = ["ModelKey", "ModelStatus", "Phase", "PipelineStatus"]

ModelKey = tuple[str, int]
"""Name and version."""


class Phase(Enum):
    """How far a model or a pipeline is."""

    LOADING = "loading"
    """It is being loaded by us."""
    LOADED = "loaded"
    """It was loaded; the data plane restarts its workers."""
    FAILED = "failed"
    """It could not be loaded; nothing of it runs."""
    LOST = "lost"
    """It was loaded and ended without being unloaded. The data plane may still know its name."""
    UNLOADING = "unloading"
    """It is being drained by us."""
    UNLOADED = "unloaded"
    """Nothing of it runs."""

    @property
    def in_progress(self) -> bool:
        """Whether a step is under way. No other one begins before it has ended."""
        return self in (Phase.LOADING, Phase.UNLOADING)


class ModelStatus(NamedTuple):
    """One model version."""

    phase: Phase
    model: ResolvedModel
    """As it was loaded, or tried."""
    loaded: Loaded | None = None
    state: str = ""
    """What the data plane said last of this load: ``ready`` or ``unavailable``."""
    reason: str | None = None
    """Why it is unavailable."""
    error: InferdError | None = None
    """Why it could not be loaded or unloaded."""
    loaded_at_s: float = 0.0
    failures: int = 0
    """Failures in a row, of loads that served for a while not counted."""
    retry_at_s: float | None = None
    """When it may be loaded again; None: not before what is wanted changes."""


class PipelineStatus(NamedTuple):
    """One pipeline."""

    phase: Phase
    pipeline: dict[str, Any]
    models: Mapping[str, Loaded]
    """The loads that its steps run on: it is tied to them."""
    loaded: Loaded | None = None
    error: InferdError | None = None

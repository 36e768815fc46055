"""Events of the data plane, as typed values.

Reads JSON of the native module, hands on events in the order in which they happened. Knows nothing of what is done
about one.
"""

from __future__ import annotations

from functools import cache

import msgspec

__all__ = ["Event", "EventsDropped", "GenerationLoaded", "GenerationState", "ReplicaState", "WorkerLost", "decode"]


class _OfGeneration(msgspec.Struct, frozen=True, tag_field="event", kw_only=True):
    model: str
    version: int
    generation: int
    """The load, counted over all models from 1: a version that is loaded once more has another."""
    at_s: float
    """Seconds since the data plane started."""


class GenerationState(_OfGeneration, frozen=True, tag="generation", kw_only=True):
    """A load of a model version has another state."""

    state: str
    """``loading``, ``ready``, ``unavailable``, ``draining`` or ``gone``."""
    reason: str | None
    """Why it is unavailable, or why it could not be loaded."""


class GenerationLoaded(_OfGeneration, frozen=True, tag="loaded", kw_only=True):
    """A load has ended well."""

    took_s: float


class ReplicaState(_OfGeneration, frozen=True, tag="replica", kw_only=True):
    """A replica has another state."""

    replica: int
    state: str
    """``starting``, ``ready``, ``stalled``, ``quarantine``, ``backoff``, ``closing`` or ``ended``."""
    pid: int | None


class WorkerLost(_OfGeneration, frozen=True, tag="worker_lost", kw_only=True):
    """A worker process ended unasked (``exit``, ``signal``), or was killed because it hung (``hang``)."""

    replica: int
    pid: int
    reason: str


class EventsDropped(msgspec.Struct, frozen=True, tag_field="event", tag="dropped"):
    """So many events are missing before those that follow: compare with ``DataPlane.status()``."""

    count: int


Event = GenerationState | GenerationLoaded | ReplicaState | WorkerLost | EventsDropped


def decode(text: str) -> list[Event]:
    """The events in ``text``."""
    return _decoder().decode(text)


@cache
def _decoder() -> msgspec.json.Decoder[list[Event]]:
    return msgspec.json.Decoder(list[Event])

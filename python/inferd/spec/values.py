"""Structured values of settings.

Read wherever such a setting is declared, converted or used. Knows nothing of their YAML form.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

__all__ = ["CutOutput", "Objective", "PaddedInput", "Padding", "Sequences", "State", "Versions"]


class Objective(msgspec.Struct, frozen=True):
    """A latency objective: ``percentile`` per cent of the requests within ``latency_s`` seconds."""

    latency_s: float
    percentile: float = 99.0


class Versions(msgspec.Struct, frozen=True):
    """Versions of a model to serve: the ``latest`` greatest, those ``listed``, or, with neither, all."""

    latest: int | None = 1
    listed: tuple[int, ...] = ()


class PaddedInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An input that is padded along ``axis`` with ``value``."""

    axis: Annotated[int, msgspec.Meta(ge=1)] = 1
    value: float = 0.0


class CutOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An output that is cut back along ``axis`` to the unpadded length."""

    axis: Annotated[int, msgspec.Meta(ge=1)] = 1


class Padding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to pad inputs of different lengths, by name."""

    inputs: Annotated[dict[str, PaddedInput], msgspec.Meta(min_length=1)]
    outputs: dict[str, CutOutput] = {}


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sequence state: ``output`` becomes an input of the next request; ``shape`` is the first one's, batch included."""

    output: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] | None = None


class Sequences(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How requests of one sequence are served.

    ``start``, ``end``, ``ready`` and ``id`` name control inputs; ``state`` maps inputs that are kept between requests.
    """

    idle_max_s: float = 60.0
    sequences_max: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 10_000
    start: str | None = None
    end: str | None = None
    ready: str | None = None
    id: str | None = None
    state: dict[str, State] = {}

    def to_json(self) -> dict[str, Any]:
        """Return the data plane's JSON form."""
        controls = {"start": self.start, "end": self.end, "ready": self.ready, "id": self.id}
        return {
            "idle_max_s": self.idle_max_s,
            "sequences_max": self.sequences_max,
            "controls": {name: f"sequence_{kind}" for kind, name in controls.items() if name is not None},
            "state": [
                {"input": name, "output": state.output, "shape": state.shape and list(state.shape)}
                for name, state in self.state.items()
            ],
        }

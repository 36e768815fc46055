"""How a model wants sequences of requests to be answered.

Hands on what the worker tells the server. Knows nothing of how it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Sequence"]


@dataclass(frozen=True, slots=True)
class Sequence:
    """Requests that belong together: one after the other, each going on from where the one before ended.

    ::

        class Total(Model):
            sequence = Sequence(state=["total"])

            def predict(self, value: list[float], total: list[float]) -> Sums:
                sums = [one + before for one, before in zip(value, total)]
                return {"sum": sums, "total": sums}

    Clients name the sequence with the parameters ``sequence_id``, ``sequence_start`` and ``sequence_end``; they neither
    send nor get ``total``. Rows of different sequences share a batch.

    Args:
        state: the inputs that the server keeps between two requests of a sequence, each given by the output of the same
            name, or by the one that a mapping says. Zeros, or empty text, at first. Empty: the model remembers by
            itself, by the id in its :class:`Context`; it has one replica then, and loses its sequences with it.
        idle_max_s: a sequence that nobody asked for so many seconds is forgotten.
        sequences_max: most sequences at once; a further one is refused.
    """

    state: tuple[str, ...] | list[str] | Mapping[str, str] = ()
    idle_max_s: float = 60.0
    sequences_max: int = 10_000
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The shape of one row at first, of inputs that leave sizes open."""

    @property
    def outputs(self) -> dict[str, str]:
        """The output that gives each input of the state."""
        return dict(self.state) if isinstance(self.state, Mapping) else {name: name for name in self.state}

    def to_json(self, *, batched: bool) -> dict[str, Any]:
        """The form that crosses to the data plane."""
        row = (1,) if batched else ()
        return {
            "idle_max_s": self.idle_max_s,
            "sequences_max": self.sequences_max,
            "controls": {},
            "state": [
                {
                    "input": name,
                    "output": output,
                    "shape": [*row, *self.shapes[name]] if name in self.shapes else None,
                }
                for name, output in self.outputs.items()
            ],
        }

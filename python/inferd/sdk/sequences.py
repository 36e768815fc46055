"""Declaration of how a model serves sequences.

Hands on the settings that the worker reports to the server. Knows nothing of how sequences are served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Sequence"]


@dataclass(frozen=True, slots=True)
class Sequence:
    """Stateful requests: each continues from the state that the previous one left.

    ::

        class Total(Model):
            sequence = Sequence(state=["total"])

            def predict(self, value: list[float], total: list[float]) -> Sums:
                sums = [one + before for one, before in zip(value, total)]
                return {"sum": sums, "total": sums}

    Clients name the sequence with the parameters ``sequence_id``, ``sequence_start`` and ``sequence_end``; they neither
    send nor receive ``total``. Rows of different sequences share a batch.

    Args:
        state: inputs that the server keeps between requests of a sequence. The output of the same name, or the one that
            a mapping names, provides the next value; the initial value is zeros or empty text. Empty: the model keeps
            its own state by the id in its :class:`Context`; it then has one replica, and its state is lost with it.
        idle_max_s: seconds without a request after which a sequence is discarded.
        sequences_max: maximum number of concurrent sequences; further ones are refused.
    """

    state: tuple[str, ...] | list[str] | Mapping[str, str] = ()
    idle_max_s: float = 60.0
    sequences_max: int = 10_000
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Initial shape of one row, for inputs with dynamic dimensions."""

    @property
    def outputs(self) -> dict[str, str]:
        """The output that provides each state input."""
        return dict(self.state) if isinstance(self.state, Mapping) else {name: name for name in self.state}

    def to_json(self, *, batched: bool) -> dict[str, Any]:
        """Return the data plane's JSON form."""
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

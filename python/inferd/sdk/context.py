"""What comes with a request besides its inputs, for methods that ask for it.

Reads two inputs that the server fills and no client sends, hands on a :class:`Context` for each row.
Knows nothing of methods and of how a request came.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin

import msgspec
import numpy as np

from inferd.types import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Context", "Contexts", "Place", "contexts_of", "settle"]


class Place(msgspec.Struct, frozen=True):
    """Where a request stands in a sequence."""

    id: int | str
    start: bool
    end: bool


class _About(msgspec.Struct, frozen=True):
    """The server's account of a request."""

    id: str = ""
    headers: dict[str, str] = {}
    parameters: dict[str, Any] = {}
    sequence: Place | None = None
    deadline_ns: int | None = None


_decode = msgspec.json.Decoder(_About).decode
_NOTHING = _About()


class _Flags:
    """Memory that says of each row whether its caller has gone. The server writes there while a batch runs."""

    __slots__ = ("rows",)

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def settle(self) -> None:
        """Keep what it says now: the memory is of another batch hereafter."""
        self.rows = self.rows.copy()


_STAYS = _Flags(np.zeros(1, dtype=bool))


@dataclass(frozen=True, slots=True)
class Context:
    """What came with a request.

    Args:
        id: the request's id, as the client gave it or as the server named it.
        headers: HTTP headers or gRPC metadata by name in lower case, without those that carry credentials
            (``authorization``, ``proxy-authorization``, ``cookie``).
        parameters: parameters of the request that mean nothing to the server: numbers, text, true and false.
        sequence: where it stands in a sequence; None: it belongs to none.
        deadline_s: when its caller stops listening, on the clock of :func:`time.monotonic`; None: never.
    """

    id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    sequence: Place | None = None
    deadline_s: float | None = None
    _gone: _Flags = field(default=_STAYS, repr=False, compare=False)
    _row: int = field(default=0, repr=False, compare=False)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more: the caller went, or its time is over.

        Looks at memory that the server writes, so it is cheap and may be asked in a loop. Once the method has
        returned, it stays as it was then.
        """
        return bool(self._gone.rows[self._row])

    @property
    def remaining_s(self) -> float | None:
        """Seconds that the caller waits from now on, at least 0; None: without end."""
        return None if self.deadline_s is None else max(0.0, self.deadline_s - time.monotonic())


class Contexts(NamedTuple):
    """The argument of a method that takes contexts."""

    name: str
    whole: bool
    """Whether it takes those of all rows together."""

    @property
    def specs(self) -> tuple[TensorSpec, TensorSpec]:
        """The inputs that the server fills."""
        return TensorSpec(self.name, "BYTES", (-1,)), TensorSpec(self._gone, "BOOL", (-1,))

    @property
    def controls(self) -> dict[str, str]:
        """What it fills them with."""
        return {self.name: "context", self._gone: "cancelled"}

    @property
    def _gone(self) -> str:
        # A dot is in no argument's name.
        return f"{self.name}.cancelled"

    def sample(self, rows: int) -> dict[str, np.ndarray]:
        """Of requests that nothing came with."""
        return {self.name: np.full(rows, b"", dtype=object), self._gone: np.zeros(rows, dtype=bool)}

    def decode(self, batch: Mapping[str, Any], rows: int) -> Sequence[Context]:
        """A context for each of ``rows`` rows. Where the batch has none, nothing came with it."""
        if self.name not in batch:
            return [Context()] * rows
        if isinstance(batch[self.name], list):
            # Of a test, made by hand.
            return batch[self.name]  # type: ignore[no-any-return]
        gone = _Flags(batch[self._gone].reshape(-1))
        contexts = []
        about = _NOTHING
        for row, text in enumerate(batch[self.name].reshape(-1)):
            if text:
                # Rows without one are of the same request as the row before.
                about = _decode(text)
            deadline_s = None if about.deadline_ns is None else about.deadline_ns / 1e9
            contexts.append(Context(about.id, about.headers, about.parameters, about.sequence, deadline_s, gone, row))
        # Of a model that is not batched all rows are of one request.
        return contexts if len(contexts) == rows else contexts * rows


def settle(contexts: Sequence[Context]) -> None:
    """Let ``contexts``, which :meth:`Contexts.decode` gave, outlive the batch that they are of."""
    if contexts:
        # All share it.
        contexts[0]._gone.settle()


def contexts_of(name: str, annotation: Any) -> Contexts | None:
    """The argument ``name``, if it is annotated as taking contexts: ``Context``, or ``list[Context]`` of all rows."""
    if annotation is Context:
        return Contexts(name, whole=False)
    if get_origin(annotation) is list and get_args(annotation) == (Context,):
        return Contexts(name, whole=True)
    return None

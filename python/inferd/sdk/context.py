"""The request context, for methods that take one.

Reads two inputs that the server fills and no client sends, hands on a :class:`Context` per row. Knows nothing of
methods and protocols.
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

__all__ = ["Context", "Contexts", "Place", "contexts_of", "freeze"]


class Place(msgspec.Struct, frozen=True):
    """The position of a request in a sequence."""

    id: int | str
    start: bool
    end: bool


class _RequestInfo(msgspec.Struct, frozen=True):
    """The server's JSON description of a request."""

    id: str = ""
    headers: dict[str, str] = {}
    parameters: dict[str, Any] = {}
    sequence: Place | None = None
    deadline_ns: int | None = None


_decode = msgspec.json.Decoder(_RequestInfo).decode
_EMPTY = _RequestInfo()


class _Flags:
    """Cancellation flags, one per row, in memory that the server writes to while a batch runs."""

    __slots__ = ("rows",)

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def freeze(self) -> None:
        """Copy the current flags: the next batch reuses the memory."""
        self.rows = self.rows.copy()


_NOT_CANCELLED = _Flags(np.zeros(1, dtype=bool))


@dataclass(frozen=True, slots=True)
class Context:
    """The context of a request.

    Args:
        id: the request id, from the client or assigned by the server.
        headers: HTTP headers or gRPC metadata by lower-case name, without credentials (``authorization``,
            ``proxy-authorization``, ``cookie``).
        parameters: request parameters that the server does not interpret: numbers, text, booleans.
        sequence: position in a sequence; None: not part of one.
        deadline_s: the request's deadline on the clock of :func:`time.monotonic`; None: no deadline.
    """

    id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    sequence: Place | None = None
    deadline_s: float | None = None
    _cancelled: _Flags = field(default=_NOT_CANCELLED, repr=False, compare=False)
    _row: int = field(default=0, repr=False, compare=False)

    @property
    def cancelled(self) -> bool:
        """Whether the caller has cancelled or disconnected, or the deadline has passed.

        Reads shared memory that the server writes to: cheap enough for a loop. Once the method has returned, the value
        no longer changes.
        """
        return bool(self._cancelled.rows[self._row])

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the deadline, at least 0; None: no deadline."""
        return None if self.deadline_s is None else max(0.0, self.deadline_s - time.monotonic())


class Contexts(NamedTuple):
    """A method's context argument."""

    name: str
    whole: bool
    """Whether it takes the contexts of all rows together."""

    @property
    def specs(self) -> tuple[TensorSpec, TensorSpec]:
        """The inputs that the server fills."""
        return TensorSpec(self.name, "BYTES", (-1,)), TensorSpec(self._cancelled, "BOOL", (-1,))

    @property
    def controls(self) -> dict[str, str]:
        """What the server fills each of them with."""
        return {self.name: "context", self._cancelled: "cancelled"}

    @property
    def _cancelled(self) -> str:
        # No argument name contains a dot.
        return f"{self.name}.cancelled"

    def sample(self, rows: int) -> dict[str, np.ndarray]:
        """Return the inputs of requests with an empty context."""
        return {self.name: np.full(rows, b"", dtype=object), self._cancelled: np.zeros(rows, dtype=bool)}

    def decode(self, batch: Mapping[str, Any], rows: int) -> Sequence[Context]:
        """Return a context per row; empty contexts if the batch has none."""
        if self.name not in batch:
            return [Context()] * rows
        if isinstance(batch[self.name], list):
            # A list from a test.
            return batch[self.name]  # type: ignore[no-any-return]
        flags = _Flags(batch[self._cancelled].reshape(-1))
        contexts = []
        info = _EMPTY
        for row, text in enumerate(batch[self.name].reshape(-1)):
            if text:
                # An empty entry belongs to the same request as the row before.
                info = _decode(text)
            deadline_s = None if info.deadline_ns is None else info.deadline_ns / 1e9
            contexts.append(Context(info.id, info.headers, info.parameters, info.sequence, deadline_s, flags, row))
        # Without batching, all rows belong to one request.
        return contexts if len(contexts) == rows else contexts * rows


def freeze(contexts: Sequence[Context]) -> None:
    """Make ``contexts``, returned by :meth:`Contexts.decode`, outlive their batch."""
    if contexts:
        # All share the same flags.
        contexts[0]._cancelled.freeze()


def contexts_of(name: str, annotation: Any) -> Contexts | None:
    """Return the context argument ``name`` if it is annotated ``Context``, or ``list[Context]`` for all rows."""
    if annotation is Context:
        return Contexts(name, whole=False)
    if get_origin(annotation) is list and get_args(annotation) == (Context,):
        return Contexts(name, whole=True)
    return None

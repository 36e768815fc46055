"""What a call to a server is, whatever carries it: something to send, and how its answer is read.

Knows nothing of sockets: transports send, the client decides when.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from inferd.client.tensors import Tensor
    from inferd.types import TensorSpec

__all__ = ["Exchange", "InferCall", "Pause", "Send"]


class Exchange(NamedTuple):
    """One call."""

    what: Any
    """What the transport sends: a function of the seconds that are left (None: any number)."""
    read: Callable[[Any], Any]
    """The value in the transport's answer; raises one of :mod:`inferd.errors`."""


class InferCall(NamedTuple):
    """One inference, before it is put into the words of a protocol."""

    model: str
    version: str
    inputs: Sequence[Tensor]
    outputs: Sequence[str]
    id: str
    parameters: Mapping[str, Any]
    headers: Mapping[str, str]
    gives: Sequence[TensorSpec] = ()
    """What the model says of its outputs."""


class Send(NamedTuple):
    """The client asks its driver to send this and to hand back the answer."""

    exchange: Exchange
    left_s: float | None


class Pause(NamedTuple):
    """The client asks its driver to wait."""

    seconds: float

"""Requests and response parsers, independent of the transport.

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

    build: Any
    """Builds the transport's request from the remaining seconds (None: no deadline)."""
    read: Callable[[Any], Any]
    """Parses the transport's response; raises one of :mod:`inferd.errors`."""


class InferCall(NamedTuple):
    """One inference, before encoding in a protocol."""

    model: str
    version: str
    inputs: Sequence[Tensor]
    outputs: Sequence[str]
    id: str
    parameters: Mapping[str, Any]
    headers: Mapping[str, str]
    output_specs: Sequence[TensorSpec] = ()
    """The model's outputs, from its metadata."""


class Send(NamedTuple):
    """Asks the driver to send this and return the response."""

    exchange: Exchange
    remaining_s: float | None


class Pause(NamedTuple):
    """Asks the driver to wait."""

    seconds: float

"""What a runtime is, to the control plane and inside a worker.

Read by :mod:`inferd.control` (:class:`Launch`, :class:`Launcher`) and :mod:`inferd.worker` (:class:`Runtime`).
Knows nothing of any framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from inferd.spec.settings import ModelSpec
    from inferd.types import Signature

__all__ = ["Batch", "Launch", "Launcher", "Runtime"]

Batch = dict[str, Any]
"""Arrays by name. Every array has shape ``(n, *item_shape)`` where the model is batched."""


class Launch(NamedTuple):
    """How a worker is started, as the data plane reads it."""

    platform: str
    """What ``platform`` says in the model's metadata."""
    how: str
    """``exec`` for a program of its own, ``zygote`` for a fork of the process that ``command`` starts."""
    command: list[str]
    load: dict[str, Any]
    """What the worker needs to load the model; opaque to the data plane."""


class Launcher(Protocol):
    """The control plane's side of a runtime: pure, imports no framework."""

    def __call__(self, file: Path, spec: ModelSpec, threads: int) -> Launch:
        """How a worker for ``file`` is started.

        Raises:
            NotFound: what the worker needs is not installed; the message says how to install it.
        """
        ...


class Runtime(Protocol):
    """A model inside its worker. Made by loading; used from one thread."""

    @property
    def signature(self) -> Signature:
        """What the model takes and gives, before it is known whether it may be batched."""
        ...

    @property
    def example(self) -> Batch | None:
        """One row or more of plausible inputs, for the probe and the warm-up; None: made up."""
        ...

    def predict(self, batch: Batch) -> Batch:
        """Run the model once over a whole batch.

        Args:
            batch: inputs by name; each array has shape ``(n, *item_shape)``, ``1 <= n <= batch_rows_max``, or, for a
                model that is not batched, the shape that the request had. BYTES are object arrays of ``bytes``.
                The arrays lie in shared memory and are only valid until this returns.

        Returns:
            Outputs by name, each ``(n, ...)``; row *i* answers row *i*.

        Raises:
            InvalidInput: the input is unusable. The client reads the message.
        """
        ...

    def close(self) -> None:
        """Give up what the model holds."""
        ...

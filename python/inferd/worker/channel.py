"""The channel to the gateway, in numpy's terms.

Reads batches from the native module, hands on arrays over shared memory and takes arrays back.
Knows nothing of the model.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from inferd import _native
from inferd.worker.tensors import as_array, pack_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from inferd.types import InputSchema, Signature

__all__ = ["Channel", "Told", "WorkerBatch"]


class WorkerBatch:
    """One batch, to be answered once by :meth:`finish` or :meth:`fail`."""

    def __init__(self, native: _native.WorkerBatch, signature: Signature) -> None:
        self._native = native
        self._signature = signature
        self.rows = native.rows

    def inputs(self) -> dict[str, np.ndarray]:
        """The inputs by name, in place."""
        tensors = zip(self._signature.inputs, self._native.inputs(), strict=True)
        return {spec.name: as_array(*tensor) for spec, tensor in tensors}

    def finish(self, outputs: list[np.ndarray], execution_s: float) -> None:
        """Answer with ``outputs``, in the signature's order; the run itself took ``execution_s`` seconds."""
        self._write(outputs)
        self._native.finish(execution_s)

    def respond(self, outputs: list[np.ndarray]) -> bool:
        """Give one of several responses and wait until it is taken.

        Returns:
            Whether another is wanted; in either case :meth:`end` or :meth:`fail` is the end.
        """
        self._write(outputs)
        return self._native.respond()

    def end(self, execution_s: float) -> None:
        """Say that there is no further response."""
        self._native.finish(execution_s)

    def _write(self, outputs: list[np.ndarray]) -> None:
        for index, (spec, array) in enumerate(zip(self._signature.outputs, outputs, strict=True)):
            shape = list(array.shape)
            if spec.datatype == "BYTES":
                self._native.output_bytes(index, shape, pack_bytes(array))
            else:
                room = self._native.output(index, spec.datatype, shape)
                np.copyto(as_array(spec.datatype, shape, room), array)

    def fail(self, kind: str, message: str, detail: str) -> None:
        """Answer with an error: clients read ``message``, the log ``detail``."""
        self._native.fail(kind, message, detail)


class Told(NamedTuple):
    """What a worker tells of its model besides its signature."""

    facts: dict[str, str]
    """What an operator wants to know."""
    defaults: Mapping[str, np.ndarray] = {}
    """One row of each input that a request may leave out."""
    controls: Mapping[str, str] = {}
    """Inputs that the server fills, and with what."""
    sequence: dict[str, Any] | None = None
    """How sequences are answered."""
    schemas: Sequence[InputSchema] = ()
    """What is known of inputs beside their types."""
    ignored_columns: Sequence[str] = ()
    """Columns of clients' frames that the model does not read."""


class Channel:
    """The worker's end. Made from the descriptor that the gateway passed on."""

    def __init__(self, descriptor: int) -> None:
        self._native = _native.WorkerChannel(descriptor)
        self.load: dict[str, Any] = json.loads(self._native.load)

    def failed(self, message: str, detail: str) -> None:
        """Say that the model could not be loaded. The process should end then."""
        self._native.failed(message, detail)

    def batches(self, signature: Signature, told: Told) -> Iterator[WorkerBatch]:
        """Say that the model is loaded, then every batch until the gateway closes the channel.

        Args:
            signature: what it takes and gives.
            told: what else there is to know.
        """
        extras = {
            "defaults": [_default(signature, name, row) for name, row in told.defaults.items()],
            "schemas": [schema.to_json() for schema in told.schemas],
            "ignored_columns": list(told.ignored_columns),
            "verdict": None if signature.verdict is None else signature.verdict.to_json(),
        }
        loaded = {
            "signature": {**signature.to_json(), "extras": extras},
            "facts": told.facts,
            "controls": dict(told.controls),
            "sequence": told.sequence,
        }
        self._native.loaded(json.dumps(loaded))
        while (batch := self._native.next()) is not None:
            yield WorkerBatch(batch, signature)


def _default(signature: Signature, name: str, row: np.ndarray) -> dict[str, Any]:
    """``InputDefault`` of the data plane."""
    spec = next(spec for spec in signature.inputs if spec.name == name)
    data = pack_bytes(row, missing=True) if spec.datatype == "BYTES" else row.tobytes()
    return {"input": name, "shape": list(row.shape), "data": list(data)}

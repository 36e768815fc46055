"""The channel to the gateway, with numpy arrays.

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

__all__ = ["Channel", "ModelInfo", "WorkerBatch"]


class WorkerBatch:
    """One batch, answered once by :meth:`finish` or :meth:`fail`."""

    def __init__(self, native: _native.WorkerBatch, signature: Signature) -> None:
        self._native = native
        self._signature = signature
        self.rows = native.rows

    def inputs(self) -> dict[str, np.ndarray]:
        """Return the inputs by name, as views where possible."""
        tensors = zip(self._signature.inputs, self._native.inputs(), strict=True)
        return {spec.name: as_array(*tensor) for spec, tensor in tensors}

    def finish(self, outputs: list[np.ndarray], execution_s: float) -> None:
        """Answer with ``outputs``, in the signature's order; ``execution_s``: duration of the run in seconds."""
        self._write(outputs)
        self._native.finish(execution_s)

    def respond(self, outputs: list[np.ndarray]) -> bool:
        """Send one of several responses and wait until it is received.

        Returns:
            Whether to send another; either way :meth:`end` or :meth:`fail` must follow.
        """
        self._write(outputs)
        return self._native.respond()

    def end(self, execution_s: float) -> None:
        """End a sequence of responses."""
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
        """Answer with an error: ``message`` is for clients, ``detail`` for the log."""
        self._native.fail(kind, message, detail)


class ModelInfo(NamedTuple):
    """What a worker reports about its model besides the signature."""

    facts: dict[str, str]
    """Facts for operators."""
    defaults: Mapping[str, np.ndarray] = {}
    """One row of each optional input."""
    controls: Mapping[str, str] = {}
    """Inputs that the server fills, and their kind."""
    sequence: dict[str, Any] | None = None
    """Settings of sequences."""
    schemas: Sequence[InputSchema] = ()
    """Schemas of tabular inputs."""
    ignored_columns: Sequence[str] = ()
    """Columns of data frames that the model does not read."""


class Channel:
    """The worker's end of the channel, over the descriptor that the gateway passed on."""

    def __init__(self, descriptor: int) -> None:
        self._native = _native.WorkerChannel(descriptor)
        self.load: dict[str, Any] = json.loads(self._native.load)

    def failed(self, message: str, detail: str) -> None:
        """Report that loading failed. The process must exit afterwards."""
        self._native.failed(message, detail)

    def batches(self, signature: Signature, info: ModelInfo) -> Iterator[WorkerBatch]:
        """Report that the model is loaded, then yield batches until the gateway closes the channel.

        Args:
            signature: of the model.
            info: further information about it.
        """
        extras = {
            "defaults": [_default(signature, name, row) for name, row in info.defaults.items()],
            "schemas": [schema.to_json() for schema in info.schemas],
            "ignored_columns": list(info.ignored_columns),
            "verdict": None if signature.verdict is None else signature.verdict.to_json(),
        }
        loaded = {
            "signature": {**signature.to_json(), "extras": extras},
            "facts": info.facts,
            "controls": dict(info.controls),
            "sequence": info.sequence,
        }
        self._native.loaded(json.dumps(loaded))
        while (batch := self._native.next()) is not None:
            yield WorkerBatch(batch, signature)


def _default(signature: Signature, name: str, row: np.ndarray) -> dict[str, Any]:
    """Return the data plane's ``InputDefault``."""
    spec = next(spec for spec in signature.inputs if spec.name == name)
    data = pack_bytes(row, missing=True) if spec.datatype == "BYTES" else row.tobytes()
    return {"input": name, "shape": list(row.shape), "data": list(data)}

"""Whether requests may share a run of the model: batching must be earned.

Reads a runtime and its settings, hands on the signature with the verdict and the reason. Knows nothing of channels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.runtimes.base import Streaming
from inferd.types import Signature
from inferd.worker.tensors import checked_outputs

if TYPE_CHECKING:
    from inferd.runtimes.base import Batch, Runtime
    from inferd.types import TensorSpec

__all__ = ["earned_signature", "sample"]

_ROWS = 4
# A dimension of free size that is not the batch: small, and not equal to the number of rows, so that a model which
# mixes the two up is found out.
_FREE = 3


def earned_signature(runtime: Runtime, load: dict[str, Any]) -> Signature:
    """The runtime's signature, batched only where batched rows equal lone rows.

    Args:
        runtime: the loaded model.
        load: its settings: ``batching``, ``batch_rows_max``, ``tolerance``.
    """
    signature = runtime.signature
    if isinstance(runtime, Streaming) and runtime.streams:
        return Signature(signature.inputs, signature.outputs, "it streams", decoupled=True)
    reason = None if load["batching"] == "on" else _why_not(runtime, load)
    return Signature(signature.inputs, signature.outputs, reason)


def _why_not(runtime: Runtime, load: dict[str, Any]) -> str | None:
    if getattr(runtime, "rows_independent", False) and load["batching"] == "auto" and load["batch_rows_max"] > 1:
        # Its method sees one row at a time.
        return None
    if load["batching"] == "off":
        return "batching is off in its settings"
    if load["batch_rows_max"] == 1:
        return "batch_rows_max is 1"
    for spec in (*runtime.signature.inputs, *runtime.signature.outputs):
        if not spec.shape or spec.shape[0] != -1:
            return f"dimension 0 of '{spec.name}' is fixed"
    try:
        return _compare(runtime, min(_ROWS, load["batch_rows_max"]), load["tolerance"])
    except Exception as fault:  # noqa: BLE001 (whatever a model raises on made-up input says that it can't be probed)
        return f"the probe failed with {type(fault).__name__}; give the class an example, or set batching: on"


def _compare(runtime: Runtime, rows: int, tolerance: dict[str, float]) -> str | None:
    """Why ``rows`` rows together differ from the same rows alone; None where they don't."""
    batch = sample(runtime, rows)
    together = _predict(runtime, batch, rows)
    for row in range(rows):
        alone = _predict(runtime, {name: array[row : row + 1] for name, array in batch.items()}, 1)
        for spec, whole, lone in zip(runtime.signature.outputs, together, alone, strict=True):
            if not _equal(whole[row : row + 1], lone, tolerance):
                return f"output '{spec.name}' of a row changes when other rows run with it"
    return None


def _predict(runtime: Runtime, batch: Batch, rows: int) -> list[np.ndarray]:
    # A copy: a model may write into what it is given.
    outputs = runtime.predict({name: array.copy() for name, array in batch.items()})
    return [array.copy() for array in checked_outputs(outputs, runtime.signature, rows)]


def _equal(one: np.ndarray, other: np.ndarray, tolerance: dict[str, float]) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind == "f":
        close = np.allclose(
            one.astype(np.float64),
            other.astype(np.float64),
            rtol=tolerance["relative"],
            atol=tolerance["absolute"],
            equal_nan=True,
        )
        return bool(close)
    return bool(np.array_equal(one, other))


def sample(runtime: Runtime, rows: int) -> Batch:
    """``rows`` rows of input: the model's own example repeated, or made up, the same every time."""
    if runtime.example is not None:
        return {
            name: np.resize(array, (rows, *array.shape[1:]))
            for name, array in ((name, np.asarray(value)) for name, value in runtime.example.items())
        }
    random = np.random.default_rng(0)
    return {spec.name: _made_up(random, spec, rows) for spec in runtime.signature.inputs}


def _made_up(random: np.random.Generator, spec: TensorSpec, rows: int) -> np.ndarray:
    shape = tuple((rows if position == 0 else _FREE) if dim < 0 else dim for position, dim in enumerate(spec.shape))
    if spec.datatype == "BYTES":
        array = np.empty(math.prod(shape), dtype=object)
        array[:] = [b"row %d" % position for position in range(array.size)]
        return array.reshape(shape)
    if spec.datatype.startswith("FP"):
        return random.random(shape).astype(f"float{spec.datatype[2:]}")
    if spec.datatype == "BF16":
        return (random.random(shape, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)
    # 0 and 1 are valid for flags, counts and most vocabularies.
    return random.integers(0, 2, shape).astype(spec.datatype.lower())

"""Signatures of models that don't declare one: from what a library says, or from one run.

Reads arrays and dtypes, hands on :class:`TensorSpec`. Worker side only: imports numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.errors import ModelFailed
from inferd.types import DATATYPES, Signature, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inferd.runtimes.base import Batch

__all__ = ["as_text", "datatype_of", "declared", "matrix_input", "outputs_seen", "with_declared"]

_DATATYPES = {np.dtype(dtype): name for name, dtype in reversed(DATATYPES.items())}


def datatype_of(dtype: Any) -> str:
    """The protocol's name of a numpy dtype; text and objects are BYTES.

    Raises:
        ModelFailed: the protocol has no such type.
    """
    dtype = np.dtype(dtype)
    if dtype.kind in "OSUT":
        return "BYTES"
    if dtype not in _DATATYPES:
        raise ModelFailed(f"the model uses {dtype}, which the protocol can't carry")
    return _DATATYPES[dtype]


def declared(settings: dict[str, Any], side: str) -> tuple[TensorSpec, ...] | None:
    """What ``inputs:`` or ``outputs:`` of the model's settings say."""
    specs = settings["signature"][side]
    return None if specs is None else tuple(TensorSpec(**spec) for spec in specs)


def with_declared(settings: dict[str, Any], inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> Signature:
    """A signature in which what the settings declare stands above what the model says."""
    return Signature(declared(settings, "inputs") or tuple(inputs), declared(settings, "outputs") or tuple(outputs))


def matrix_input(columns: int) -> tuple[TensorSpec, ...]:
    """The one input of most models of tables: ``x``, FP32, a row for each sample."""
    return (TensorSpec("x", "FP32", (-1, columns)),)


def outputs_seen(outputs: Batch) -> tuple[TensorSpec, ...]:
    """The description of what one run gave, dimension 0 free."""
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    return tuple(TensorSpec(name, datatype_of(array.dtype), (-1, *array.shape[1:])) for name, array in arrays.items())


def as_text(array: np.ndarray) -> np.ndarray:
    """An array of ``str`` from one of ``bytes``."""
    text = np.empty(array.shape, dtype=object)
    text.reshape(-1)[:] = [element.decode() for element in array.reshape(-1)]
    return text

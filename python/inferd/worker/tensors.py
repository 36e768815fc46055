"""Convert between arena memory and numpy arrays.

Reads the protocol's raw form (row-major, little-endian, BYTES prefixed by their lengths), hands on arrays, without a
copy except for BYTES. Knows nothing of the channel.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.errors import ModelFailed
from inferd.exact import ConversionError, cast_exact
from inferd.types import DATATYPES, MISSING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inferd.types import Signature, TensorSpec

__all__ = ["as_array", "checked_outputs", "pack_bytes", "unpack_bytes"]

_DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(dtype) for name, dtype in DATATYPES.items()}
_LENGTH = struct.Struct("<I")


def as_array(datatype: str, shape: Sequence[int], data: memoryview) -> np.ndarray:
    """Return ``data`` as an array of ``shape``. A view, except for BYTES."""
    if datatype == "BYTES":
        return unpack_bytes(data, shape)
    return np.frombuffer(data, dtype=_DTYPES[datatype]).reshape(shape)


def unpack_bytes(data: memoryview, shape: Sequence[int]) -> np.ndarray:
    """Return the elements of a BYTES tensor as an object array of ``bytes``; ``None`` for missing ones."""
    elements: list[bytes | None] = []
    position = 0
    while position < len(data):
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        if length == MISSING:
            elements.append(None)
            continue
        elements.append(bytes(data[position : position + length]))
        position += length
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(shape)


def pack_bytes(array: np.ndarray, *, missing: bool = False) -> bytes:
    """Encode an array of ``bytes`` or ``str``, each element prefixed by its length.

    Args:
        array: of objects.
        missing: whether elements may be ``None``.

    Raises:
        ModelFailed: an element has another type.
    """
    parts = []
    for position, element in enumerate(array.reshape(-1)):
        if element is None and missing:
            parts.append(_LENGTH.pack(MISSING))
            continue
        if not isinstance(element, str | bytes | bytearray | memoryview):
            index = [int(at) for at in np.unravel_index(position, array.shape)]
            raise ModelFailed(f"element {index} of a BYTES tensor is {type(element).__name__}, not bytes or str")
        data = element.encode() if isinstance(element, str) else bytes(element)
        parts += [_LENGTH.pack(len(data)), data]
    return b"".join(parts)


def checked_outputs(outputs: dict[str, Any], signature: Signature, rows: int | None) -> list[np.ndarray]:
    """Return the outputs of ``predict`` in the signature's order and datatypes.

    Args:
        outputs: array-likes by name.
        signature: the model's.
        rows: rows that every output must have; None for a model that is not batched.

    Raises:
        ModelFailed: an output is missing, or its datatype or shape is not as declared.
    """
    return [_checked(outputs, spec, rows) for spec in signature.outputs]


def _checked(outputs: dict[str, Any], spec: TensorSpec, rows: int | None) -> np.ndarray:
    if spec.name not in outputs:
        raise ModelFailed(f"predict() did not return output '{spec.name}'; it returned {sorted(outputs)}")
    array = np.asarray(outputs[spec.name])
    dtype = _DTYPES[spec.datatype]
    if array.dtype != dtype:
        if dtype.hasobject:
            if array.dtype.kind not in "SUO":
                raise ModelFailed(f"output '{spec.name}' has dtype {array.dtype}, not bytes or str")
            array = array.astype(object)
        elif np.can_cast(array.dtype, dtype, casting="same_kind"):
            array = _cast(array, spec)
        else:
            raise ModelFailed(f"output '{spec.name}' has dtype {array.dtype}, but {spec.datatype} is declared")
    fits = len(array.shape) == len(spec.shape) and all(
        want in (-1, got) for want, got in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        raise ModelFailed(f"output '{spec.name}' has shape {list(array.shape)}, but {list(spec.shape)} is declared")
    if rows is not None and array.shape[0] != rows:
        raise ModelFailed(f"output '{spec.name}' has {array.shape[0]} rows for a batch of {rows}")
    return array


def _cast(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    try:
        return cast_exact(array, _DTYPES[spec.datatype])
    except ConversionError as error:
        raise ModelFailed(
            f"output '{spec.name}' is {error.value} at {list(error.index)}, which {error.why} as {spec.datatype}"
        ) from None

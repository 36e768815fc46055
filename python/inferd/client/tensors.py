"""Values that users hold as tensors of the protocol, and back.

Reads arrays, lists and data frames and the model's metadata, hands on :class:`Tensor`; reads raw bytes, hands on
arrays. Knows nothing of HTTP and gRPC.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from inferd.errors import InvalidInput
from inferd.types import DATATYPES, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Result", "Sides", "Tensor", "array_of", "flat_array", "sides_of", "tensors_of"]

_LENGTH = struct.Struct("<I")


class Tensor(NamedTuple):
    """One input, ready to be sent."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes
    """Row-major and little-endian; BYTES behind their lengths."""


class Result(NamedTuple):
    """One answer. ``result["y"]`` is the output ``y``."""

    outputs: dict[str, np.ndarray]
    """BYTES are object arrays of ``bytes``; BF16 arrays are of ``ml_dtypes.bfloat16`` where that is installed."""
    model_name: str
    model_version: str
    id: str
    parameters: dict[str, Any]

    def __getitem__(self, name: Any) -> Any:
        """The output ``name``; a position gives the field, as of every tuple."""
        if isinstance(name, str):
            return self.outputs[name]
        return tuple(self)[name]


class Sides(NamedTuple):
    """What a model takes and gives."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]


def sides_of(metadata: Mapping[str, Any]) -> Sides:
    """The inputs and outputs that a model's metadata describes."""
    return Sides(_specs(metadata["inputs"]), _specs(metadata.get("outputs", ())))


def _specs(described: Sequence[Mapping[str, Any]]) -> list[TensorSpec]:
    return [
        TensorSpec(tensor["name"], tensor["datatype"], tuple(int(dim) for dim in tensor["shape"]))
        for tensor in described
    ]


def tensors_of(inputs: Any, specs: Sequence[TensorSpec]) -> list[Tensor]:
    """What is sent for ``inputs``.

    Args:
        inputs: values by name; or, for a model of one input, its value; or a pandas data frame, whose columns are the
            inputs, or together the only one.
        specs: what the model takes.

    Raises:
        InvalidInput: names, types or shapes don't fit, with what would.
    """
    by_name = _by_name(inputs, specs)
    known = {spec.name: spec for spec in specs}
    strangers = sorted(by_name.keys() - known.keys())
    if strangers:
        raise InvalidInput(f"the model has no input {strangers}; it takes {', '.join(map(str, specs))}")
    return [_tensor(value, known[name]) for name, value in by_name.items()]


def _by_name(inputs: Any, specs: Sequence[TensorSpec]) -> dict[str, Any]:
    # A data frame is known by what it has: pandas need not be there.
    if hasattr(inputs, "columns") and hasattr(inputs, "to_numpy"):
        columns = [str(column) for column in inputs.columns]
        names = {spec.name for spec in specs}
        if names.isdisjoint(columns) and len(specs) == 1:
            return {specs[0].name: inputs.to_numpy()}
        return {name: _column(inputs[name].to_numpy(), spec) for name in columns for spec in specs if spec.name == name}
    if isinstance(inputs, dict):
        return inputs
    if len(specs) != 1:
        raise InvalidInput(f"the model takes several inputs; give a dict by name: {', '.join(map(str, specs))}")
    return {specs[0].name: inputs}


def _column(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    return values.reshape(-1, 1) if len(spec.shape) == 2 else values


def _tensor(value: Any, spec: TensorSpec) -> Tensor:
    if spec.datatype == "BYTES":
        array = np.asarray(value, dtype=object)
        return Tensor(spec.name, "BYTES", array.shape, _packed(array, spec))
    if spec.datatype == "BF16":
        return _bf16(value, spec)
    array = np.asarray(value)
    wanted = np.dtype(DATATYPES[spec.datatype]).newbyteorder("<")
    # Python's own numbers are of whatever size is wanted; arrays are what their owner made them.
    own = isinstance(value, np.ndarray | np.generic) or hasattr(value, "dtype")
    allowed = np.can_cast(array.dtype, wanted, "same_kind") if own else array.dtype.kind in "biuf"
    if not allowed:
        raise InvalidInput(
            f"input '{spec.name}' holds {array.dtype}, but the model takes {spec}\nhelp: .astype('{wanted.name}')"
        )
    return Tensor(spec.name, spec.datatype, array.shape, np.ascontiguousarray(array, dtype=wanted).tobytes())


def _packed(array: np.ndarray, spec: TensorSpec) -> bytes:
    parts = []
    for element in array.reshape(-1):
        if not isinstance(element, str | bytes | bytearray | memoryview | np.bytes_):
            raise InvalidInput(f"input '{spec.name}' holds {type(element).__name__}, but the model takes {spec}")
        data = element.encode() if isinstance(element, str) else bytes(element)
        parts += [_LENGTH.pack(len(data)), data]
    return b"".join(parts)


def _bf16(value: Any, spec: TensorSpec) -> Tensor:
    array = np.asarray(value)
    if array.dtype.name != "bfloat16":
        # Rounded to the nearest, ties to even, as hardware does.
        bits = np.ascontiguousarray(array, dtype="<f4").view(np.uint32)
        array = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return Tensor(spec.name, "BF16", array.shape, array.tobytes())


def array_of(datatype: str, shape: Sequence[int], raw: bytes | memoryview) -> np.ndarray:
    """The array of an output's raw form."""
    if datatype == "BYTES":
        return _unpacked(raw).reshape(shape)
    if datatype == "BF16":
        return _as_bf16(raw).reshape(shape)
    return np.frombuffer(raw, np.dtype(DATATYPES[datatype]).newbyteorder("<")).reshape(shape)


def flat_array(value: Any, spec: TensorSpec | None) -> np.ndarray:
    """The array of an output that came as a value or a flat list, without its shape.

    Args:
        value: the elements in their order.
        spec: what the model says of the output; None: nothing.

    Returns:
        As ``spec`` has it, the last free dimension taking what there is and other free ones being 1; what does not
        fill that is one-dimensional.
    """
    elements = value if isinstance(value, list) else [value]
    if spec is None:
        return np.asarray(elements)
    if spec.datatype == "BYTES":
        array = np.empty(len(elements), dtype=object)
        array[:] = [element.encode() if isinstance(element, str) else element for element in elements]
    else:
        array = np.asarray(elements, dtype=DATATYPES[spec.datatype])
    free = [position for position, dim in enumerate(spec.shape) if dim < 0]
    shape = [1 if dim < 0 else dim for dim in spec.shape]
    if free:
        shape[free[-1]] = -1
    try:
        return array.reshape(shape)
    except ValueError:
        return array


def _unpacked(raw: bytes | memoryview) -> np.ndarray:
    elements = []
    position = 0
    while position < len(raw):
        (length,) = _LENGTH.unpack_from(raw, position)
        position += _LENGTH.size
        elements.append(bytes(raw[position : position + length]))
        position += length
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def _as_bf16(raw: bytes | memoryview) -> np.ndarray:
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        return np.frombuffer(raw, "<u2")
    return np.frombuffer(raw, bfloat16)

"""Convert user values to tensors of the protocol, and back.

Reads arrays and lists, hands on :class:`Tensor`; reads raw bytes, hands on arrays. Refuses lossy conversions. Knows
nothing of data frames, HTTP and gRPC.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from inferd.client.tables import values_of
from inferd.errors import InvalidInput
from inferd.exact import ConversionError, cast_exact, is_missing
from inferd.types import DATATYPES, MISSING, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inferd.client.metadata import ModelMetadata

__all__ = ["Location", "Result", "Tensor", "array_of", "flat_array", "numbers_of", "tensor_of"]

_LENGTH = struct.Struct("<I")
_MISSING = _LENGTH.pack(MISSING)
_BF16_SENT_AS = np.dtype("<f4")


class Tensor(NamedTuple):
    """One encoded input."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes
    """Row-major, little-endian; each BYTES element follows its length."""
    columns: tuple[str, ...] | None = None
    """For a data frame, the column names by which the columns were ordered, as last fetched: the server compares them
    with its own. Empty: the model has none; None: not a data frame."""

    @property
    def parameters(self) -> dict[str, str]:
        """The tensor's protocol parameters."""
        return {} if self.columns is None else {"columns": json.dumps(self.columns)}


class Result(NamedTuple):
    """One response. ``result["y"]`` is the output ``y``."""

    outputs: dict[str, np.ndarray]
    """BYTES are object arrays of ``bytes``; BF16 arrays are ``ml_dtypes.bfloat16`` if that is installed."""
    model_name: str
    model_version: str
    id: str
    parameters: dict[str, Any]

    def __getitem__(self, name: Any) -> Any:
        """Return the output ``name``, or the tuple field at a position."""
        if isinstance(name, str):
            return self.outputs[name]
        return tuple(self)[name]


class Location(NamedTuple):
    """The location of an invalid value, for messages."""

    input: str
    columns: Sequence[str] = ()
    """Column names of dimension 1."""
    column: str | None = None
    """The column, if it is a single one."""

    def error(self, index: tuple[int, ...], text: str) -> InvalidInput:
        """Return the error of the value at ``index``; empty: of the whole input."""
        row = index[0] if index else None
        within = list(index[1:])
        if self.column is not None:
            return InvalidInput(f"column '{self.column}': {text}", row=row)
        if self.columns and within:
            return InvalidInput(f"column '{self.columns[within[0]]}': {text}", row=row)
        element = f", element {within}" if within else ""
        return InvalidInput(f"input '{self.input}'{element}: {text}", row=row)


def numbers_of(value: Any, spec: TensorSpec, location: Location) -> np.ndarray:
    """Convert ``value`` to the numeric datatype of ``spec``.

    Raises:
        InvalidInput: the datatype can't represent a value.
    """
    array = values_of(value)
    wanted = _BF16_SENT_AS if spec.datatype == "BF16" else np.dtype(DATATYPES[spec.datatype]).newbyteorder("<")
    try:
        return cast_exact(array, wanted)
    except ConversionError as error:
        subject = "a value" if error.value is None else _shown(error.value)
        text = f"{subject} {error.why}; the model takes {spec.datatype}"
        if error.value is None:
            text += "\nhelp: the model accepts no missing value; fill it in, or drop the row"
        elif "not a number" in error.why:
            text += _remedy(error.value)
        raise location.error(error.index, text) from None


def _shown(value: Any) -> str:
    shown = repr(value.item() if isinstance(value, np.generic) else value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _remedy(value: Any) -> str:
    if isinstance(value, str | bytes):
        return "\nhelp: .astype(float), if it is the text of a number"
    return "\nhelp: pass the number that the model was fitted with; for a time, e.g. seconds since 1970"


def tensor_of(value: Any, spec: TensorSpec, location: Location, model: ModelMetadata) -> Tensor:
    """Encode ``value`` as the input ``spec``.

    Raises:
        InvalidInput: the datatype can't represent a value.
        ConfigNeeded: a text is missing, and whether the model accepts that is unknown.
    """
    if spec.datatype == "BYTES":
        array = _texts_of(value)
        return Tensor(spec.name, "BYTES", array.shape, _packed(array, location, model))
    array = numbers_of(value, spec, location)
    if spec.datatype == "BF16" and array.dtype.name != "bfloat16":
        # Round to nearest, ties to even.
        bits = np.ascontiguousarray(array).view(np.uint32)
        array = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return Tensor(spec.name, spec.datatype, array.shape, np.ascontiguousarray(array).tobytes())


def _texts_of(value: Any) -> np.ndarray:
    if isinstance(value, list | tuple):
        # numpy converts these to rows of numbers.
        value = [bytes(one) if isinstance(one, bytearray | memoryview) else one for one in value]
        try:
            return np.array(value, dtype=object)
        except ValueError as fault:
            raise InvalidInput(f"{type(value).__name__} is not an array: {fault}") from None
    if isinstance(value, str | bytes | bytearray | memoryview):
        single = np.empty((), dtype=object)
        single[()] = bytes(value) if isinstance(value, bytearray | memoryview) else value
        return single
    return values_of(value).astype(object)


def _packed(array: np.ndarray, location: Location, model: ModelMetadata) -> bytes:
    parts = []
    for position, element in enumerate(array.reshape(-1)):
        try:
            data = _bytes_of(element, location.input, model)
        except (TypeError, ValueError) as fault:
            index = tuple(int(at) for at in np.unravel_index(position, array.shape))
            raise location.error(index, str(fault)) from None
        parts += [_MISSING] if data is None else [_LENGTH.pack(len(data)), data]
    return b"".join(parts)


def _bytes_of(element: Any, name: str, model: ModelMetadata) -> bytes | None:
    """Encode one text; None: it is missing, and may be.

    Integers are encoded as decimal text only for CatBoost models, where 1 and "1" are the same category, and True is
    "1". Other libraries may tell them apart, e.g. scikit-learn's encoders.

    Raises:
        TypeError: it is not text.
        ValueError: it is missing and must not be, or can't be encoded.
    """
    if isinstance(element, str):
        try:
            return element.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{_shown(element)} can't be encoded as UTF-8") from None
    if isinstance(element, bytes | bytearray | memoryview):
        return bytes(element)
    if is_missing(element):
        schema = model.input_schema(name)
        if schema is None or not schema.missing:
            raise ValueError("the text is missing, which the model does not accept\nhelp: fill it in, or drop the row")
        return None
    if isinstance(element, int | np.integer | np.bool_) and model.platform == "catboost":
        return str(int(element)).encode()
    text = f"{_shown(element)} is {type(element).__name__}, not text"
    raise TypeError(f"{text}\nhelp: .astype(str), if that is the text that the model was fitted with")


def array_of(datatype: str, shape: Sequence[int], raw: bytes | memoryview) -> np.ndarray:
    """Decode an output's raw bytes."""
    if datatype == "BYTES":
        return _unpacked(raw).reshape(shape)
    if datatype == "BF16":
        return _as_bf16(raw).reshape(shape)
    return np.frombuffer(raw, np.dtype(DATATYPES[datatype]).newbyteorder("<")).reshape(shape)


def flat_array(value: Any, spec: TensorSpec | None) -> np.ndarray:
    """Convert an output that arrived as a scalar or flat list without its shape.

    Args:
        value: the elements in row-major order.
        spec: the output's specification; None: unknown.

    Returns:
        An array of the shape of ``spec``, the last dynamic dimension inferred and others 1; one-dimensional if the
        elements do not fit.
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
    elements: list[bytes | None] = []
    position = 0
    while position < len(raw):
        (length,) = _LENGTH.unpack_from(raw, position)
        position += _LENGTH.size
        if length == MISSING:
            elements.append(None)
            continue
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

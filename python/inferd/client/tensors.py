"""Values that users hold as tensors of the protocol, and back.

Reads arrays and lists, hands on :class:`Tensor`; reads raw bytes, hands on arrays. What changes a value is refused.
Knows nothing of data frames, HTTP and gRPC.
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

    from inferd.client.sides import Sides

__all__ = ["Place", "Result", "Tensor", "array_of", "flat_array", "numbers_of", "tensor_of"]

_LENGTH = struct.Struct("<I")
_MISSING = _LENGTH.pack(MISSING)
_BF16_SENT_AS = np.dtype("<f4")


class Tensor(NamedTuple):
    """One input, ready to be sent."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes
    """Row-major and little-endian; BYTES behind their lengths."""
    columns: tuple[str, ...] | None = None
    """Of a data frame the names that put its columns in order, as the model was known to have them: the server compares
    them with those that it has. Empty: it had none; None: it is no data frame."""

    @property
    def parameters(self) -> dict[str, str]:
        """Parameters of the tensor."""
        return {} if self.columns is None else {"columns": json.dumps(self.columns)}


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


class Place(NamedTuple):
    """What a value is called where it is wrong."""

    input: str
    columns: Sequence[str] = ()
    """Names of the columns of dimension 1."""
    column: str | None = None
    """The one column that it is."""

    def fault(self, index: tuple[int, ...], text: str) -> InvalidInput:
        """The error of the value at ``index``; of all of it where that is empty."""
        row = index[0] if index else None
        within = list(index[1:])
        if self.column is not None:
            return InvalidInput(f"column '{self.column}': {text}", row=row)
        if self.columns and within:
            return InvalidInput(f"column '{self.columns[within[0]]}': {text}", row=row)
        element = f", element {within}" if within else ""
        return InvalidInput(f"input '{self.input}'{element}: {text}", row=row)


def numbers_of(value: Any, spec: TensorSpec, place: Place) -> np.ndarray:
    """``value`` in the type of ``spec``, which is none of text.

    Raises:
        InvalidInput: a value has no place in it.
    """
    array = values_of(value)
    wanted = _BF16_SENT_AS if spec.datatype == "BF16" else np.dtype(DATATYPES[spec.datatype]).newbyteorder("<")
    try:
        return cast_exact(array, wanted)
    except ConversionError as error:
        said = "a value" if error.value is None else _shown(error.value)
        text = f"{said} {error.why}; the model takes {spec.datatype}"
        if error.value is None:
            text += "\nhelp: it has no missing value; fill it in, or drop the row"
        elif "not a number" in error.why:
            text += _remedy(error.value)
        raise place.fault(error.index, text) from None


def _shown(value: Any) -> str:
    shown = repr(value.item() if isinstance(value, np.generic) else value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _remedy(value: Any) -> str:
    if isinstance(value, str | bytes):
        return "\nhelp: .astype(float), where it is the text of a number"
    return "\nhelp: send the number that the model was fitted with; of a time, seconds since 1970 for instance"


def tensor_of(value: Any, spec: TensorSpec, place: Place, sides: Sides) -> Tensor:
    """``value`` as the input that ``spec`` describes.

    Raises:
        InvalidInput: a value has no place in it.
        ConfigNeeded: a text is missing, and it is not known whether it may.
    """
    if spec.datatype == "BYTES":
        array = _texts_of(value)
        return Tensor(spec.name, "BYTES", array.shape, _packed(array, place, sides))
    array = numbers_of(value, spec, place)
    if spec.datatype == "BF16" and array.dtype.name != "bfloat16":
        # Rounded to the nearest, ties to even, as hardware does.
        bits = np.ascontiguousarray(array).view(np.uint32)
        array = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return Tensor(spec.name, spec.datatype, array.shape, np.ascontiguousarray(array).tobytes())


def _texts_of(value: Any) -> np.ndarray:
    if isinstance(value, list | tuple):
        # Numpy takes these for rows of numbers.
        value = [bytes(one) if isinstance(one, bytearray | memoryview) else one for one in value]
        try:
            return np.array(value, dtype=object)
        except ValueError as fault:
            raise InvalidInput(f"{type(value).__name__} is no array: {fault}") from None
    if isinstance(value, str | bytes | bytearray | memoryview):
        single = np.empty((), dtype=object)
        single[()] = bytes(value) if isinstance(value, bytearray | memoryview) else value
        return single
    return values_of(value).astype(object)


def _packed(array: np.ndarray, place: Place, sides: Sides) -> bytes:
    parts = []
    for position, element in enumerate(array.reshape(-1)):
        try:
            data = _bytes_of(element, place.input, sides)
        except (TypeError, ValueError) as fault:
            index = tuple(int(at) for at in np.unravel_index(position, array.shape))
            raise place.fault(index, str(fault)) from None
        parts += [_MISSING] if data is None else [_LENGTH.pack(len(data)), data]
    return b"".join(parts)


def _bytes_of(element: Any, name: str, sides: Sides) -> bytes | None:
    """One text as it is sent; None: it is missing, and may be.

    Integers are sent as their decimal text to models of CatBoost alone, which take 1 and "1" for one category, and True
    for "1". To others they may be two: scikit-learn's encoders know the one and not the other.

    Raises:
        TypeError: it is no text.
        ValueError: it is missing, or can't be encoded.
    """
    if isinstance(element, str):
        try:
            return element.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{_shown(element)} has no form in UTF-8") from None
    if isinstance(element, bytes | bytearray | memoryview):
        return bytes(element)
    if is_missing(element):
        schema = sides.schema_of(name)
        if schema is None or not schema.missing:
            raise ValueError("the text is missing, which the model does not take\nhelp: fill it in, or drop the row")
        return None
    if isinstance(element, int | np.integer | np.bool_) and sides.platform == "catboost":
        return str(int(element)).encode()
    text = f"{_shown(element)} is {type(element).__name__}, not text"
    raise TypeError(f"{text}\nhelp: .astype(str), where that is the text that the model was fitted with")


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

"""Convert Python values to rows of a tensor, and back.

Reads the annotated type of one argument or result, hands on a :class:`Codec`. Knows nothing of methods and batching.
"""

from __future__ import annotations

import dataclasses
import io
import math
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Protocol, Union, get_args, get_origin, is_typeddict

import msgspec
import numpy as np

from inferd.errors import InvalidInput, ModelFailed
from inferd.exact import as_array, cast_exact
from inferd.types import DATATYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Codec", "Shape", "allow_missing", "codec_of", "codec_of_values"]


class Shape(tuple[int, ...]):
    """The shape of one row of an array, in annotations: ``Annotated[NDArray[np.float32], Shape(3, -1)]``.

    -1 is a dynamic dimension; ``Shape()`` is a scalar per row.
    """

    __slots__ = ()

    def __new__(cls, *dims: int) -> Shape:
        """Create a shape with these dimensions."""
        return super().__new__(cls, dims)


class Codec(Protocol):
    """Converter of one column of rows."""

    @property
    def datatype(self) -> str:
        """The protocol's element type."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        ...

    @property
    def missing(self) -> bool:
        """Whether values may be missing (``None``)."""
        ...

    def decode(self, array: np.ndarray) -> Sequence[Any]:
        """Convert an array of shape ``(rows, *shape)`` to the method's argument."""
        ...

    def encode(self, values: Any) -> np.ndarray:
        """Convert the method's result to an array with one row per value."""
        ...

    def sample(self, rows: int) -> Sequence[Any]:
        """Return plausible values."""
        ...


class _Arrays(NamedTuple):
    """Passes arrays through unchanged."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    missing: bool = False

    @property
    def datatype(self) -> str:
        return _datatype(self.dtype)

    def decode(self, array: np.ndarray) -> Sequence[Any]:
        return array  # type: ignore[return-value]

    def encode(self, values: Any) -> np.ndarray:
        if self.dtype.hasobject:
            return _texts(values)
        array = np.asarray(values)
        if array.dtype == self.dtype:
            return array
        if array.dtype.kind in "OSU" or not np.can_cast(array.dtype, self.dtype, casting="same_kind"):
            raise ModelFailed(f"{array.dtype} was returned, but {self.dtype} is annotated")
        return cast_exact(array, self.dtype)

    def sample(self, rows: int) -> Sequence[Any]:
        shape = (rows, *(3 if dim < 0 else dim for dim in self.shape))
        if self.dtype.hasobject:
            return np.full(shape, b"text", dtype=object)  # type: ignore[return-value]
        return np.random.default_rng(0).random(shape).astype(self.dtype)  # type: ignore[return-value]


class _Values(NamedTuple):
    """Converts a list of Python values, one per row, through bytes."""

    what: str
    datatype: str
    to_value: Callable[[bytes], Any]
    to_bytes: Callable[[Any], bytes]
    plausible: Any
    shape: tuple[int, ...] = ()
    missing: bool = False

    def decode(self, array: np.ndarray) -> Sequence[Any]:
        return [self._value(row, element) for row, element in enumerate(array.reshape(-1))]

    def _value(self, row: int, element: bytes | None) -> Any:
        if element is None:
            if self.missing:
                return None
            raise InvalidInput(f"not {self.what}: the value is missing", row=row)
        try:
            return self.to_value(element)
        except (ValueError, OSError, msgspec.DecodeError) as fault:
            raise InvalidInput(f"not {self.what}: {fault}", row=row) from None

    def encode(self, values: Any) -> np.ndarray:
        array = np.empty(len(values), dtype=object)
        for row, value in enumerate(values):
            array[row] = None if value is None and self.missing else self.to_bytes(value)
        return array

    def sample(self, rows: int) -> Sequence[Any]:
        return [self.plausible] * rows


class _Numbers(NamedTuple):
    """Converts a list of Python numbers, one per row."""

    datatype: str
    dtype: str
    shape: tuple[int, ...] = ()
    missing: bool = False

    def decode(self, array: np.ndarray) -> Sequence[Any]:
        values: list[Any] = array.reshape(-1).tolist()
        return [None if math.isnan(value) else value for value in values] if self.missing else values

    def encode(self, values: Any) -> np.ndarray:
        return cast_exact(as_array(values), np.dtype(self.dtype))

    def sample(self, rows: int) -> Sequence[Any]:
        return [np.dtype(self.dtype).type(row).item() for row in range(rows)]


def codec_of(annotation: Any, place: str) -> tuple[Codec, bool]:
    """Return the codec for an annotated type.

    Args:
        annotation: of an argument or a result.
        place: what is annotated, for messages.

    Returns:
        The codec, and whether the type covers all rows together (a list, an array) rather than one row.

    Raises:
        ModelFailed: the type is unsupported; the message lists the supported ones.
    """
    shape = next((extra for extra in get_args(annotation)[1:] if isinstance(extra, Shape)), None)
    bare = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if bare is np.ndarray or get_origin(bare) is np.ndarray:
        return _array_codec(bare, shape, place), True
    if get_origin(bare) is list and len(get_args(bare)) == 1:
        return _optional_codec(get_args(bare)[0], place), True
    if any(get_origin(kind) in (list, np.ndarray, Annotated) for kind in _present(bare)):
        raise ModelFailed(f"{place} can't be missing as a whole\nhelp: annotate it as list[str | None], for instance")
    return _optional_codec(bare, place), False


def _array_codec(annotation: Any, shape: Shape | None, place: str) -> Codec:
    dtypes = [get_args(argument)[0] for argument in get_args(annotation)[1:] if get_args(argument)]
    if shape is None or not dtypes or dtypes[0] is Any:
        raise ModelFailed(
            f"{place} is an array without dtype or shape\n"
            "help: annotate it as Annotated[NDArray[np.float32], Shape(30)]; the shape is that of one row"
        )
    dtype = np.dtype(dtypes[0])
    if dtype not in map(np.dtype, DATATYPES.values()):
        raise ModelFailed(
            f"{place} is an array of unsupported dtype {dtype}\n"
            "help: use bool, int8 to int64, uint8 to uint64, float16 to float64, or object, which is bytes"
        )
    return _Arrays(dtype, tuple(shape))


def _datatype(dtype: np.dtype[Any]) -> str:
    return next(name for name, known in DATATYPES.items() if np.dtype(known) == dtype)


def _optional_codec(annotation: Any, place: str) -> Codec:
    """Return the codec of a value that may be missing if its type says so: ``str | None``."""
    present = _present(annotation)
    if not present:
        return _value_codec(annotation, place)
    codec = _value_codec(present[0] if len(present) == 1 else Union[tuple(present)], place)  # noqa: UP007
    if codec.datatype not in ("BYTES", "FP64"):
        raise ModelFailed(f"{place}: {codec.datatype} has no missing value\nhelp: annotate it as float | None")
    return allow_missing(codec)


def allow_missing(codec: Codec) -> Codec:
    """Return the codec with missing values allowed."""
    fields: Any = codec
    changed: Codec = fields._replace(missing=True)
    return changed


_NUMBERS = {int: ("INT64", "int64"), float: ("FP64", "float64"), bool: ("BOOL", "bool")}


def _present(annotation: Any) -> list[Any]:
    """Return the non-None types of an optional annotation; empty if it is not optional."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()
    return [kind for kind in kinds if kind is not type(None)] if type(None) in kinds else []


def _value_codec(kind: Any, place: str) -> _Values | _Numbers:
    if kind in _NUMBERS:
        return _Numbers(*_NUMBERS[kind])
    if kind is str:
        return _Values("UTF-8 text", "BYTES", bytes.decode, _text_bytes, "text")
    if kind is bytes:
        return _Values("bytes", "BYTES", bytes, _plain_bytes, b"text")
    if getattr(kind, "__module__", "").startswith("PIL.") and getattr(kind, "__name__", "") == "Image":
        return _image_codec()
    if hasattr(kind, "model_validate_json"):
        # pydantic validates its own types.
        return _Values(
            f"JSON for {kind.__name__}",
            "BYTES",
            kind.model_validate_json,
            lambda value: value.model_dump_json().encode() if hasattr(value, "model_dump_json") else _json_bytes(value),
            {},
        )
    if kind in (dict, Any) or get_origin(kind) in (dict, list) or _is_record(kind):
        decoder = msgspec.json.Decoder(kind)
        return _Values("JSON of the annotated type", "BYTES", decoder.decode, _json_bytes, {})
    raise ModelFailed(
        f"{place} has the unsupported type {kind!r}\n"
        "help: annotate it as list[str], list[bytes], list[int], list[float], list[bool], list[dict], "
        "list[PIL.Image.Image], or Annotated[NDArray[np.float32], Shape(30)]; list[str | None] if it may be missing"
    )


def _is_record(kind: Any) -> bool:
    return (
        dataclasses.is_dataclass(kind)
        or is_typeddict(kind)
        or (isinstance(kind, type) and issubclass(kind, msgspec.Struct))
    )


def _text_bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else _plain_bytes(value)


def _plain_bytes(value: Any) -> bytes:
    # bytes(5) would be five zero bytes.
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"{type(value).__name__} is neither text nor bytes")
    return bytes(value)


def _texts(values: Any) -> np.ndarray:
    """Return an object array of ``bytes``."""
    array = np.array(values, dtype=object)
    flat = array.reshape(-1)
    for position, value in enumerate(flat):
        flat[position] = _text_bytes(value)
    return array


def _json_bytes(value: Any) -> bytes:
    return msgspec.json.encode(value, enc_hook=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise NotImplementedError(f"{type(value).__name__} is not JSON")


def _image_codec() -> _Values:
    from PIL import Image

    def read(data: bytes) -> Any:
        image = Image.open(io.BytesIO(data))
        # PIL reads lazily; this reports a damaged file here.
        image.load()
        return image

    def write(image: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        return buffer.getvalue()

    return _Values("an image", "BYTES", read, write, Image.new("RGB", (8, 8)))


def codec_of_values(values: Any, place: str) -> Codec:
    """Return the codec for the result of a method without a return annotation."""
    if isinstance(values, np.ndarray) and values.dtype.kind not in "OSU":
        return _Arrays(values.dtype, values.shape[1:])
    if isinstance(values, list | tuple | np.ndarray) and len(values):
        first = values[0]
        if isinstance(first, str | bytes):
            return _value_codec(type(first), place)
        if isinstance(first, dict | list | None.__class__) and not _is_matrix(values):
            return _value_codec(Any, place)
        array = np.asarray(values)
        if array.dtype.kind in "biuf":
            return _Arrays(array.dtype, array.shape[1:])
    raise ModelFailed(
        f"{place} is {type(values).__name__}, not a list or an array with one entry per row\n"
        "help: return a list or an array, or a dict of them by output name"
    )


def _is_matrix(values: Any) -> bool:
    try:
        return np.asarray(values).dtype.kind in "biuf"
    except ValueError:
        return False

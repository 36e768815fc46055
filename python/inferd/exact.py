"""Lossless conversion of numbers between dtypes.

Reads arrays of numbers or of Python objects, hands on arrays of the wanted dtype, or the first value that it can't
represent. Knows nothing of tensors: a value's position is an index.

Only fractions may be rounded: float64 to float32 is allowed. An integer that would be rounded, a fraction where
integers are wanted and a number out of range raise :class:`ConversionError`.
"""

from __future__ import annotations

import math
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

__all__ = ["ConversionError", "as_array", "cast_exact", "is_missing"]


class ConversionError(ValueError):
    """A value that the wanted dtype can't represent.

    Args:
        index: the value's index in the array.
        value: the value; ``None`` if it is missing.
        why: what is wrong with it; follows the value in a message.
    """

    def __init__(self, index: tuple[int, ...], value: Any, why: str) -> None:
        super().__init__(f"{value!r} {why}")
        self.index = index
        self.value = value
        self.why = why


def is_missing(value: Any) -> bool:
    """Whether ``value`` is missing: ``None``, NaN, NaT or ``pandas.NA``."""
    if value is None:
        return True
    if isinstance(value, float | np.floating):
        return bool(value != value)  # noqa: PLR0124 (NaN alone)
    if isinstance(value, Decimal):
        return value.is_nan()
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    # Matched by name: pandas may not be installed.
    return type(value).__name__ in ("NAType", "NaTType")


def as_array(value: Any) -> np.ndarray:
    """Convert an array-like to an array without changing its values.

    Raises:
        ValueError: the rows differ in length, or the value is no array-like.
        TypeError: the value is no array-like.
    """
    array = np.asarray(value)
    if isinstance(value, list | tuple) and _may_be_changed(array):
        # numpy promotes mixed types: integers among floats to floats, numbers among text to text.
        return np.array(value, dtype=object)
    return array


def _may_be_changed(array: np.ndarray) -> bool:
    if array.dtype.kind == "f":
        return bool((np.abs(array, where=np.isfinite(array), out=np.zeros_like(array)) >= 2.0**53).any())
    return array.dtype.kind in "SU"


def cast_exact(array: np.ndarray, wanted: np.dtype[Any]) -> np.ndarray:
    """Convert ``array`` to the dtype ``wanted`` without loss.

    Args:
        array: numbers, booleans, or objects that are such; of any shape. Missing values become NaN.
        wanted: a dtype of kind ``b``, ``i``, ``u`` or ``f``.

    Raises:
        ConversionError: ``wanted`` can't represent a value.
    """
    if array.dtype == wanted:
        return array
    if array.dtype.hasobject:
        return _of_objects(array, wanted)
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        value = array.flat[0].item() if array.size else None
        raise ConversionError((0,) * array.ndim, value, f"is {_called(array.dtype)}, not a number")
    with np.errstate(all="ignore"):
        cast = array.astype(wanted)
    bad, why = _changed(array, cast)
    if bad is not None and bad.any():
        index = tuple(int(at) for at in np.argwhere(bad)[0])
        value = array[index].item()
        missing = is_missing(value) and wanted.kind != "f"
        raise ConversionError(index, None if missing else value, "is missing" if missing else why)
    return cast


def _called(dtype: np.dtype[Any]) -> str:
    names = {"U": "text", "S": "bytes", "M": "a time", "m": "a duration", "c": "a complex number"}
    return names.get(dtype.kind, dtype.name)


def _changed(array: np.ndarray, cast: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Return a mask of the values that ``cast`` changed, and why; None: no value can change."""
    if cast.dtype.kind == "b":
        return (array != 0) & (array != 1), "is neither true nor false"
    if array.dtype.kind == "b":
        return None, ""
    if cast.dtype.kind == "f":
        return _infinite(array, cast) if array.dtype.kind == "f" else _rounded(array, cast.dtype)
    return _outside(array, np.iinfo(cast.dtype))


def _infinite(array: np.ndarray, cast: np.ndarray) -> tuple[np.ndarray | None, str]:
    narrower = cast.dtype.itemsize < array.dtype.itemsize
    return (~np.isfinite(cast) & np.isfinite(array) if narrower else None), "is out of range"


def _outside(array: np.ndarray, limits: np.iinfo[Any]) -> tuple[np.ndarray | None, str]:
    """Return a mask of the numbers that are not integers within ``limits``."""
    if array.dtype.kind == "f":
        whole = np.isfinite(array) & (np.floor(array) == array)
        # The upper limit may not be representable as a float; the number after it, a power of two, is.
        inside = whole & (array >= float(limits.min)) & (array < float(limits.max + 1))
        return ~inside, "is not an integer in range"
    own = np.iinfo(array.dtype)
    low, high = max(own.min, limits.min), min(own.max, limits.max)
    if (low, high) == (own.min, own.max):
        return None, ""
    return (array < low) | (array > high), "is out of range"


def _rounded(array: np.ndarray, wanted: np.dtype[Any]) -> tuple[np.ndarray | None, str]:
    """Return a mask of the integers that a float of dtype ``wanted`` can't represent."""
    limits = np.finfo(wanted)
    digits = limits.nmant + 1
    if np.iinfo(array.dtype).bits - (array.dtype.kind == "i") <= digits:
        return None, ""
    negative = array < 0
    # ``~`` handles the least integer, which has no positive counterpart.
    magnitude = np.where(negative, ~array, array).astype(np.uint64) + negative
    if not magnitude.size or magnitude.max() <= 2**digits:
        return None, ""
    # A float represents an integer exactly if its significant bits, without trailing zeros, fit the mantissa.
    trailing = np.maximum(magnitude & (~magnitude + np.uint64(1)), np.uint64(1))
    rounded = magnitude // trailing >= np.uint64(2**digits)
    if float(limits.max) < 2.0**64:
        rounded |= magnitude > np.uint64(limits.max)
    return rounded, "would be rounded"


def _of_objects(array: np.ndarray, wanted: np.dtype[Any]) -> np.ndarray:
    found = np.empty(array.shape, wanted)
    flat = found.reshape(-1)
    for position, value in enumerate(array.reshape(-1)):
        number, why = _number(value)
        if not why:
            try:
                flat[position] = _scalar(number, wanted)
                continue
            except (OverflowError, ValueError) as fault:
                why = str(fault) if isinstance(fault, ValueError) else "is out of range"
        index = tuple(int(at) for at in np.unravel_index(position, array.shape))
        raise ConversionError(index, value if number is not None else None, why)
    return found


def _number(value: Any) -> tuple[Any, str]:
    """Return ``value`` as a Python number (None if missing), or what it is instead."""
    if is_missing(value):
        return None, ""
    if isinstance(value, int | np.integer | np.bool_):
        return int(value), ""
    if isinstance(value, Decimal):
        # Whole decimals, e.g. database keys, become integers.
        small = value.is_finite() and value.adjusted() < 40
        return int(value) if small and value == value.to_integral_value() else float(value), ""
    if isinstance(value, Real):
        return float(value), ""
    return value, f"is {type(value).__name__}, not a number"


def _scalar(number: Any, wanted: np.dtype[Any]) -> Any:
    """Convert one number to the dtype ``wanted``.

    Raises:
        ValueError: ``wanted`` can't represent it; the message says why.
        OverflowError: it is out of range.
    """
    if wanted.kind == "f":
        if number is None:
            return math.nan
        with np.errstate(all="ignore"):
            cast = wanted.type(number)
        if math.isfinite(number) and not np.isfinite(cast):
            raise OverflowError
        if isinstance(number, int) and int(cast) != number:
            raise ValueError("would be rounded")
        return cast
    if number is None:
        raise ValueError("is missing")
    if wanted.kind == "b":
        if number not in (0, 1):
            raise ValueError("is neither true nor false")
        return bool(number)
    if isinstance(number, float) and not number.is_integer():
        raise ValueError("is not an integer in range")
    limits = np.iinfo(wanted)
    if not limits.min <= number <= limits.max:
        raise OverflowError
    return int(number)

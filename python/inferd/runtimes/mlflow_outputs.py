"""Convert the result of an MLflow model to arrays by name.

Reads data frames, series, arrays, dicts, lists and sparse matrices; hands on arrays of the protocol's datatypes. Worker
side only. Knows nothing of the model.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.errors import ModelFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inferd.runtimes.base import Batch

__all__ = ["outputs_of"]

_DEFAULT_NAME = "prediction"
"""The output of a model with a single unnamed one."""


def outputs_of(found: Any, names: Sequence[str | None]) -> Batch:
    """Return outputs by name.

    Args:
        found: the result of ``predict``.
        names: outputs of the signature; empty, or ``None`` for an unnamed output.

    Raises:
        ModelFailed: the protocol does not support a type.
    """
    if isinstance(found, dict):
        return {str(name): _array(value, str(name)) for name, value in found.items()}
    if hasattr(found, "columns"):
        return {str(name): _array(found[name], str(name)) for name in found.columns}
    named = [name for name in names if name is not None]
    array = _array(found, _DEFAULT_NAME)
    if array.ndim == 2 and 1 < len(named) == len(names) == array.shape[1]:
        return {name: array[:, index] for index, name in enumerate(named)}
    own = getattr(found, "name", None)
    single = named[0] if len(named) == len(names) == 1 else own if isinstance(own, str) else _DEFAULT_NAME
    return {single: array}


def _array(found: Any, name: str) -> np.ndarray:
    if hasattr(found, "toarray"):
        found = found.toarray()
    elif hasattr(found, "to_numpy"):
        found = found.to_numpy()
    array = found if isinstance(found, np.ndarray) else _of_values(found)
    # A scalar is an output of one row; such a model is not batched.
    array = array.reshape(1) if array.ndim == 0 else array
    if array.dtype.kind == "M":
        return _dates(array, name)
    if array.dtype.kind in "mcV":
        raise ModelFailed(f"output '{name}' has dtype {array.dtype}, which the protocol does not support")
    return _of_objects(array, name) if array.dtype == object else array


def _of_values(found: Any) -> np.ndarray:
    """Return an array of a list; of objects if elements are not numbers or differ in length."""
    try:
        array = np.asarray(found)
    except ValueError:
        array = np.asarray(found, dtype=object)
    if array.dtype.kind in "US" or (array.dtype == object and array.ndim > 1):
        # numpy would convert numbers mixed with text to text.
        flat = found if isinstance(found, list | tuple) else [found]
        array = np.empty(len(flat), dtype=object)
        array[:] = list(flat)
    return array


def _dates(dates: np.ndarray, name: str) -> np.ndarray:
    """Format dates and times in ISO 8601, with as many digits as needed."""
    import pandas as pd

    found = [pd.Timestamp(date) for date in dates.reshape(-1)]
    missing = [index for index, date in enumerate(found) if date is pd.NaT]
    if missing:
        raise ModelFailed(f"output '{name}' has a missing date in row {missing[0]}\nhelp: return text")
    return np.array([date.isoformat() for date in found], dtype=object).reshape(dates.shape)


def _of_objects(array: np.ndarray, name: str) -> np.ndarray:
    """Keep text, convert numbers (None to NaN), and encode everything else as JSON."""
    values = array.reshape(-1).tolist()
    kinds = {type(value) for value in values}
    if kinds <= {str, bytes}:
        return array
    if kinds <= {bool, np.bool_}:
        return array.astype(bool)
    if kinds <= {int, float, bool, type(None)} or all(
        np.isscalar(value) and not isinstance(value, str) for value in values
    ):
        return np.array([np.nan if value is None else value for value in values]).reshape(array.shape)
    if all(hasattr(value, "isoformat") for value in values):
        return _dates(array, name)
    lists = _rectangle(values)
    if lists is not None and array.ndim == 1:
        return lists
    missing = [index for index, value in enumerate(values) if _is_missing(value)]
    if missing and kinds - {type(None), float} <= {str, bytes}:
        raise ModelFailed(
            f"output '{name}' has a missing text in row {missing[0]}, which the protocol does not support\n"
            "help: return an empty text instead"
        )
    texts = np.empty(len(values), dtype=object)
    texts[:] = [value if isinstance(value, str) else json.dumps(_plain(value)) for value in values]
    return texts.reshape(array.shape)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _rectangle(values: list[Any]) -> np.ndarray | None:
    """Return lists of numbers of equal length as an array; else None."""
    if not values or not all(isinstance(value, list | tuple | np.ndarray) for value in values):
        return None
    try:
        array = np.array([np.asarray(value) for value in values])
    except ValueError:
        return None
    return array if array.dtype.kind in "biuf" else None


def _plain(value: Any) -> Any:
    """Return a JSON value; non-finite numbers become null."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(inner) for inner in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)

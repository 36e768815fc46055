"""Whatever a model of MLflow returns, as arrays by name.

Reads data frames, series, arrays, dicts, lists and sparse matrices; hands on arrays of types that the protocol has.
Worker side only. Knows nothing of the model.
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

LONE = "prediction"
"""The only output of a model that names none."""


def outputs_of(found: Any, names: Sequence[str | None]) -> Batch:
    """Outputs by name.

    Args:
        found: what ``predict`` returned.
        names: the outputs of the signature; empty, or ``None`` in the place of an output without a name.

    Raises:
        ModelFailed: the protocol can't carry it.
    """
    if isinstance(found, dict):
        return {str(name): _array(value, str(name)) for name, value in found.items()}
    if hasattr(found, "columns"):
        return {str(name): _array(found[name], str(name)) for name in found.columns}
    named = [name for name in names if name is not None]
    array = _array(found, LONE)
    if array.ndim == 2 and 1 < len(named) == len(names) == array.shape[1]:
        return {name: array[:, place] for place, name in enumerate(named)}
    own = getattr(found, "name", None)
    lone = named[0] if len(named) == len(names) == 1 else own if isinstance(own, str) else LONE
    return {lone: array}


def _array(found: Any, name: str) -> np.ndarray:
    if hasattr(found, "toarray"):
        found = found.toarray()
    elif hasattr(found, "to_numpy"):
        found = found.to_numpy()
    array = found if isinstance(found, np.ndarray) else _of_values(found)
    # One value for all rows is an output of one row; whoever gave it is not batched.
    array = array.reshape(1) if array.ndim == 0 else array
    if array.dtype.kind == "M":
        return _dates(array, name)
    if array.dtype.kind in "mcV":
        raise ModelFailed(f"output '{name}' holds {array.dtype}, which the protocol can't carry")
    return _of_objects(array, name) if array.dtype == object else array


def _of_values(found: Any) -> np.ndarray:
    """An array of a list, of objects where its elements are no numbers or of different lengths."""
    try:
        array = np.asarray(found)
    except ValueError:
        array = np.asarray(found, dtype=object)
    if array.dtype.kind in "US" or (array.dtype == object and array.ndim > 1):
        # Numbers beside text would have become text.
        flat = found if isinstance(found, list | tuple) else [found]
        array = np.empty(len(flat), dtype=object)
        array[:] = list(flat)
    return array


def _dates(dates: np.ndarray, name: str) -> np.ndarray:
    """Dates and times as ISO 8601 has them, with as many digits as there are."""
    import pandas as pd

    found = [pd.Timestamp(date) for date in dates.reshape(-1)]
    missing = [place for place, date in enumerate(found) if date is pd.NaT]
    if missing:
        raise ModelFailed(f"output '{name}' has no date in row {missing[0]}\nhelp: return text")
    return np.array([date.isoformat() for date in found], dtype=object).reshape(dates.shape)


def _of_objects(array: np.ndarray, name: str) -> np.ndarray:
    """Text as it is, numbers as numbers, None among them as NaN; everything else as the text of its JSON."""
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
    missing = [place for place, value in enumerate(values) if _is_missing(value)]
    if missing and kinds - {type(None), float} <= {str, bytes}:
        raise ModelFailed(
            f"output '{name}' has no text in row {missing[0]}, and a missing text can't be answered\n"
            "help: return an empty text in its place"
        )
    texts = np.empty(len(values), dtype=object)
    texts[:] = [value if isinstance(value, str) else json.dumps(_plain(value)) for value in values]
    return texts.reshape(array.shape)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _rectangle(values: list[Any]) -> np.ndarray | None:
    """Lists of numbers that are equally long, as an array."""
    if not values or not all(isinstance(value, list | tuple | np.ndarray) for value in values):
        return None
    try:
        array = np.array([np.asarray(value) for value in values])
    except ValueError:
        return None
    return array if array.dtype.kind in "biuf" else None


def _plain(value: Any) -> Any:
    """A value as JSON has it: numbers that are none are null."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(inner) for inner in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)

"""Read data frames of any library as named columns.

Reads what users pass (pandas, polars, pyarrow, numpy records, dicts), hands on :class:`Table` and arrays of plain
values. Detects each library by attributes: none needs to be installed. Knows nothing of models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from inferd.errors import InvalidInput
from inferd.exact import as_array, is_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Table", "is_column", "is_row", "row_of", "table_of", "table_of_dict", "values_of"]

# Up to this many rows, converting the whole frame to objects is faster than extracting columns.
_FEW_ROWS = 32


class Table(NamedTuple):
    """Named columns. Row labels (an index) are ignored."""

    names: list[str]
    column: Callable[[int], Any]
    """Returns the column at a position, in a form that :func:`values_of` accepts."""
    matrix: Callable[[], np.ndarray] | None = None
    """Returns all columns as one array, if that is faster than column by column and lossless."""
    levels: int = 1
    """Number of levels of the column names."""


def table_of(value: Any) -> Table | None:
    """Return ``value`` as a table if it is a data frame, else None."""
    if hasattr(value, "columns") and hasattr(value, "iloc"):
        names = [str(name) for name in value.columns]
        levels = getattr(value.columns, "nlevels", 1)
        matrix = None
        if _plain(*value.dtypes):
            matrix = value.to_numpy
        elif len(value) <= _FEW_ROWS:
            matrix = lambda: value.to_numpy(dtype=object)  # noqa: E731 (a method where there is one)
        return Table(names, lambda at: value.iloc[:, at], matrix, levels)
    if hasattr(value, "columns") and hasattr(value, "to_series"):
        return Table([str(name) for name in value.columns], value.to_series)
    if hasattr(value, "column_names") and hasattr(value, "column"):
        return Table([str(name) for name in value.column_names], value.column)
    if isinstance(value, np.ndarray) and value.dtype.names is not None:
        names = list(value.dtype.names)
        return Table(names, lambda at: value[names[at]])
    return None


def table_of_dict(columns: Mapping[Any, Any]) -> Table:
    """Return a dict of columns as a table; scalars are one row."""
    values = list(columns.values())
    return Table([str(name) for name in columns], lambda at: _atleast_1d(values[at]))


def is_row(value: Any) -> bool:
    """Whether ``value`` may be one row of a data frame: a pandas series."""
    return hasattr(value, "iloc") and hasattr(value, "index") and not hasattr(value, "columns")


def row_of(series: Any) -> Table:
    """Return a series as one row; its index holds the column names."""
    plain = _plain(series.dtype)
    values = series.to_numpy() if plain else series.to_numpy(dtype=object)
    levels = getattr(series.index, "nlevels", 1)
    matrix = (lambda: values.reshape(1, -1)) if plain else None
    return Table([str(name) for name in series.index], lambda at: values[at : at + 1], matrix, levels)


def is_column(value: Any) -> bool:
    """Whether ``value`` is a single column of a data frame."""
    return any(hasattr(value, method) for method in ("isna", "null_count", "to_pylist")) and table_of(value) is None


def values_of(column: Any) -> np.ndarray:
    """Return the values of a column, a list or an array.

    Returns:
        An array of numbers, or of objects in which :func:`inferd.exact.is_missing` detects missing values.

    Raises:
        InvalidInput: it can't be converted to an array, e.g. because its rows differ in length.
    """
    if isinstance(column, np.ma.MaskedArray):
        return _unmasked(column)
    if isinstance(column, np.ndarray):
        return column
    if hasattr(column, "to_pylist"):
        column = np.asarray(column) if column.null_count == 0 and _is_number(column) else _objects(column.to_pylist())
    elif hasattr(column, "null_count") and hasattr(column, "to_list"):
        column = column.to_numpy() if column.null_count() == 0 else _objects(column.to_list())
    elif hasattr(column, "isna") and hasattr(column, "to_numpy"):
        column = _of_pandas(column)
    try:
        return as_array(column)
    except (TypeError, ValueError) as fault:
        raise InvalidInput(f"{type(column).__name__} is not an array: {fault}") from None


def _of_pandas(column: Any) -> Any:
    if _plain(column.dtype):
        return column.to_numpy()
    kind = getattr(column.dtype, "numpy_dtype", None)
    if isinstance(kind, np.dtype) and kind.kind in "biuf" and not column.isna().any():
        return column.to_numpy(dtype=kind)
    # Nullable integers as floats would round large values.
    return column.to_numpy(dtype=object)


def _plain(*dtypes: Any) -> bool:
    """Whether all are the same numpy dtype, other than object."""
    return len(set(dtypes)) == 1 and isinstance(dtypes[0], np.dtype) and not dtypes[0].hasobject


def _is_number(column: Any) -> bool:
    return str(column.type).startswith(("int", "uint", "float", "double", "halffloat", "bool"))


def _unmasked(array: np.ma.MaskedArray[Any, Any]) -> np.ndarray:
    if not np.ma.getmaskarray(array).any():
        return np.asarray(array)
    objects = array.data.astype(object)
    objects[np.ma.getmaskarray(array)] = None
    return objects


def _objects(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _atleast_1d(value: Any) -> Any:
    single = is_missing(value) or isinstance(value, str | bytes) or np.isscalar(value)
    return _objects([value]) if single else value

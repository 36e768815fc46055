"""The columns of an MLflow signature, as inputs and as the data frame that MLflow makes of them.

Reads a signature of columns, hands on inputs with their schemas, and each batch as a frame in the signature's names,
order and types. Worker side only. Knows nothing of the model. Source: ``_enforce_named_col_schema`` and
``_enforce_mlflow_datatype`` in ``mlflow.models.utils`` 3.17.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.errors import InvalidInput
from inferd.runtimes.mlflow_rows import Rows
from inferd.runtimes.tables import MATRIX, as_texts
from inferd.types import DATATYPES, InputSchema, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from inferd.runtimes.base import Batch, Runtime
    from inferd.runtimes.mlflow_folder import Column
    from inferd.runtimes.mlflow_rows import Part

__all__ = ["Columns"]

_DATATYPES = {"boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64"}
"""Datatypes of columns. Text, bytes, dates and JSON are BYTES."""
_NUMBERS = frozenset(_DATATYPES) - {"boolean"}

_DATE = "2020-01-01"

# MLflow distinguishes a missing column from missing values. The gateway fills in defaults, so these mark an omitted
# column: NaNs with payloads that no arithmetic yields, and bytes that are not UTF-8.
_OMITTED: dict[str, np.ndarray] = {
    "FP64": np.array([0x7FF8_1EF7_0000_0007], np.uint64).view(np.float64),
    "FP32": np.array([0x7FC1_EF77], np.uint32).view(np.float32),
    "BYTES": np.array([b"\xff\xfe left out"], dtype=object),
}


class Columns(Rows):
    """A data frame of the signature's columns.

    Args:
        columns: of the signature.
        native: the library's own runtime, which knows its limits; None: unknown.
    """

    def __init__(self, columns: Sequence[Column], native: Runtime | None) -> None:
        self._columns = columns
        numbered = [column.name is None for column in columns]
        self._labels: list[Any] = [
            index if column.name is None else column.name for index, column in enumerate(columns)
        ]
        single = [MATRIX] if len(columns) == 1 and numbered[0] else None
        self.names = single or [str(label) for label in self._labels]
        kinds = {column.type for column in columns}
        scalars = not any(column.depth for column in columns)
        self._matrix = len(kinds) == 1 and kinds <= set(_NUMBERS) and scalars and all(one.required for one in columns)
        self._native = native
        self.inputs, self.schemas = self._inputs(), self._schemas()
        self.defaults = {} if self._matrix else dict(self._defaults())
        # As MLflow does, with a warning in its log.
        self.ignored = ("*",) if not any(numbered) else ()
        self.facts = {"signature": "columns are matched by name and cast to the signature's types; others are ignored"}
        pairs = zip(self.names, columns, strict=True)
        required = [name for name, column in pairs if not column.required and name not in self.defaults]
        if required:
            self.facts["optional"] = f"{', '.join(required)} must be sent, having no missing value"

    def _defaults(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the default that marks an optional column as omitted, where its type has one."""
        for name, column, schema in zip(self.names, self._columns, self.schemas, strict=True):
            marker = None if column.depth else _OMITTED.get(_datatype(column))
            if not column.required and marker is not None and (schema.missing or marker.dtype == object):
                yield name, marker

    def _inputs(self) -> Sequence[TensorSpec]:
        """Return one matrix if all columns are of one numeric type, else an input per column."""
        if self._matrix:
            return (TensorSpec(MATRIX, _DATATYPES[self._columns[0].type], (-1, len(self._columns))),)
        return tuple(
            TensorSpec(name, _datatype(column), (-1,) * (1 + column.depth))
            for name, column in zip(self.names, self._columns, strict=True)
        )

    def _schemas(self) -> Sequence[InputSchema]:
        """Return the limits of the library: missing values and magnitudes."""
        limits_of = _limits(self._native)
        limits = [limits_of(name) for name in self.names]
        if self._matrix:
            named = all(column.name is not None for column in self._columns)
            bounds = [largest for _, largest in limits]
            largest = None if None in bounds else max(bound for bound in bounds if bound is not None)
            missing = any(missing for missing, _ in limits)
            is_float = _DATATYPES[self._columns[0].type].startswith("FP")
            return (InputSchema(MATRIX, tuple(self.names) if named else (), missing, largest if is_float else None),)
        return tuple(
            InputSchema(
                name, missing=missing and _accepts_missing(one), largest=largest if "FP" in _datatype(one) else None
            )
            for name, one, (missing, largest) in zip(self.names, self._columns, limits, strict=True)
        )

    def parts(self, batch: Batch) -> list[Part]:
        """Return a data frame; several if rows differ in the optional columns that their requests omit."""
        import pandas as pd

        if self._matrix:
            (x,) = batch.values()
            # Copy: models may keep their input, and this memory is reused.
            return [(None, pd.DataFrame(x.copy(), columns=self._index(range(len(self._labels)))))]
        omitted = {name: _is_omitted(batch[name]) for name in self.defaults}
        if not any(rows.any() for rows in omitted.values()):
            return [(None, self._frame(batch, ()))]
        kinds, indices = np.unique(np.stack(list(omitted.values()), axis=1), axis=0, return_inverse=True)
        parts: list[Part] = []
        for number, kind in enumerate(kinds):
            rows = np.flatnonzero(indices.reshape(-1) == number)
            omitted_names = [name for name, gone in zip(omitted, kind, strict=True) if gone]
            parts.append((rows, self._frame({name: array[rows] for name, array in batch.items()}, omitted_names)))
        return parts

    def _frame(self, batch: Batch, omitted_names: Collection[str]) -> Any:
        import pandas as pd

        series = {
            index: _series(name, column, batch[name])
            for index, (name, column) in enumerate(zip(self.names, self._columns, strict=True))
            if name not in omitted_names
        }
        frame = pd.DataFrame(series)
        frame.columns = self._index(series)
        return frame

    def _index(self, indices: Iterable[int]) -> Any:
        import pandas as pd

        labels = [self._labels[index] for index in indices]
        return pd.RangeIndex(len(labels)) if all(isinstance(label, int) for label in labels) else pd.Index(labels)

    def example(self, folder: Path, saved: Mapping[str, Any]) -> Batch:
        """Return the rows that the model was logged with; else those of its library; else generated ones."""
        rows = _saved_rows(folder, saved, self._labels)
        if rows is None:
            rows = _native_rows(self._native, self.names)
        example = {}
        for index, (name, column) in enumerate(zip(self.names, self._columns, strict=True)):
            known = None if rows is None else rows.get(self._labels[index], rows.get(name))
            example[name] = _example(column, known)
        count = max(len(values) for values in example.values())
        example = {name: np.resize(values, (count, *values.shape[1:])) for name, values in example.items()}
        return {MATRIX: np.stack(list(example.values()), axis=1)} if self._matrix else example


def _datatype(column: Column) -> str:
    return _DATATYPES.get(column.type, "BYTES")


def _accepts_missing(column: Column) -> bool:
    return not column.depth and column.type not in ("boolean", "integer", "long")


def _dtype(column: Column) -> Any:
    return np.dtype(DATATYPES[_datatype(column)])


def _is_omitted(values: np.ndarray) -> np.ndarray:
    """Return a mask of rows that hold the marker of an omitted column, not other missing values."""
    if values.dtype == object:
        (text,) = _OMITTED["BYTES"]
        return np.array([value == text for value in values], bool)
    bits = np.dtype(f"u{values.dtype.itemsize}")
    (number,) = _OMITTED[f"FP{values.dtype.itemsize * 8}"].view(bits)
    return np.asarray(values.view(bits) == number)


def _series(name: str, column: Column, values: np.ndarray) -> Any:
    import pandas as pd

    if column.depth:
        lists = as_texts(values, None, name) if values.dtype == object else values
        return pd.Series([row.tolist() for row in lists], dtype=object)
    if column.type in _DATATYPES:
        return pd.Series(values.copy())
    if column.type == "binary":
        return pd.Series(list(values), dtype=object)
    texts = as_texts(values, None, name)
    if column.type == "string":
        # The dtype that pandas infers for text, even if every value is missing.
        return pd.Series(texts, dtype=pd.Series(["a"]).dtype)
    if column.type == "datetime":
        return _convert_each(texts, name, _date).astype("datetime64[ns]")
    return _convert_each(texts, name, json.loads)


def _convert_each(texts: np.ndarray, name: str, read: Callable[[str], Any]) -> Any:
    """Convert each text with ``read``; an invalid one is refused with its row."""
    import pandas as pd

    found: list[Any] = []
    for row, text in enumerate(texts):
        try:
            found.append(None if text is None else read(text))
        except (ValueError, TypeError) as fault:
            raise InvalidInput(f"column {name!r}: invalid value {text[:100]!r}: {fault}", row=row) from None
    return pd.Series(found, dtype=object)


def _date(text: str) -> Any:
    import pandas as pd

    date = pd.to_datetime(text, format="ISO8601")
    if date.tzinfo is not None:
        raise ValueError("MLflow accepts only dates without a time zone")
    return date.to_datetime64().astype("datetime64[ns]")


# -- what the library knows, and what is plausible ------------------------------------------------------------------


def _limits(native: Runtime | None) -> Callable[[str], tuple[bool, float | None]]:
    """Return the limits of the library's own runtime: missing values and greatest magnitude by column."""
    schemas: dict[str, InputSchema] = {}
    whole: InputSchema | None = None
    for schema in getattr(native, "schemas", ()):
        schemas |= dict.fromkeys(schema.columns or (schema.input,), schema)
        if not schema.columns and schema.input == MATRIX:
            whole = schema

    def limits_of(name: str) -> tuple[bool, float | None]:
        schema = schemas.get(name, whole)
        return (True, None) if schema is None else (schema.missing, schema.largest)

    return limits_of


def _native_rows(native: Runtime | None, names: Sequence[str]) -> dict[Any, Any] | None:
    """Return values by column from a runtime's example."""
    example = getattr(native, "example", None)
    if not example:
        return None
    if MATRIX not in example or MATRIX in names:
        return {name: list(values) for name, values in example.items()}
    (schema,) = getattr(native, "schemas", (None,))
    columns = schema.columns if schema is not None and schema.columns else names
    return {
        name: list(example[MATRIX][:, index]) for index, name in enumerate(columns) if index < example[MATRIX].shape[1]
    }


def _saved_rows(folder: Path, saved: Mapping[str, Any], labels: Sequence[Any]) -> dict[Any, list[Any]] | None:
    """Return the folder's input example by column; None if omitted or in an unsupported format."""
    if saved.get("type") != "dataframe" or saved.get("pandas_orient", "split") != "split":
        return None
    try:
        written = json.loads((folder / str(saved["artifact_path"])).read_text(encoding="utf-8"))
        columns = written.get("columns", labels)
        rows = written["data"]
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return {name: [row[index] for row in rows[:8]] for index, name in enumerate(columns)} if rows else None


def _example(column: Column, known: list[Any] | None) -> np.ndarray:
    """Return rows of one column: known values in its type; else a generated one."""
    if known is not None:
        try:
            return _typed(column, known)
        except (ValueError, TypeError, OverflowError):
            pass
    if _datatype(column) == "BYTES":
        defaults = {"string": b"text", "binary": b"text", "datetime": _DATE.encode()}
        found = np.empty((1,) * (1 + column.depth), dtype=object)
        found[...] = defaults.get(column.type) or json.dumps(_value(column.inner)).encode()
        return found
    return np.zeros((1,) * (1 + column.depth), _dtype(column))


def _value(kind: Mapping[str, Any]) -> Any:
    """Return a JSON value of a type of the signature."""
    if kind.get("type") == "object":
        wanted = (kind.get("properties") or {}).items()
        return {name: _value(inner) for name, inner in wanted if inner.get("required", True)}
    if kind.get("type") == "array":
        return [_value(kind.get("items") or {})]
    scalars = {"string": "text", "binary": "text", "datetime": _DATE, "boolean": False, "map": {}, "any": None}
    return scalars.get(str(kind.get("type")), 0)


def _typed(column: Column, known: list[Any]) -> np.ndarray:
    if _datatype(column) != "BYTES":
        return np.array(known, _dtype(column))
    if column.depth:
        raise TypeError("lists of text have no saved example")
    found = np.empty(len(known), dtype=object)
    plain = column.type in ("string", "datetime", "binary")
    found[:] = [_bytes(value) if plain or value is None else json.dumps(value).encode() for value in known]
    return found


def _bytes(value: Any) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else str(value).encode()

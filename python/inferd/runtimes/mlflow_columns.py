"""The columns of an MLflow signature, as inputs and as the data frame that MLflow makes of them.

Reads a signature of columns, hands on inputs with their schemas, and each batch as a frame: by name, in the signature's
order and types. Worker side only. Knows nothing of what the model does with it.
Source: ``_enforce_named_col_schema`` and ``_enforce_mlflow_datatype`` in ``mlflow.models.utils`` 3.17.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.errors import InvalidInput
from inferd.runtimes.mlflow_rows import Rows
from inferd.runtimes.tables import MATRIX, decode_texts
from inferd.types import DATATYPES, InputSchema, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from inferd.runtimes.base import Batch, Runtime
    from inferd.runtimes.mlflow_folder import Column
    from inferd.runtimes.mlflow_rows import Part

__all__ = ["Columns"]

_DATATYPES = {"boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64"}
"""Types of columns that the protocol has. Text, bytes, dates and JSON are BYTES."""
_NUMBERS = frozenset(_DATATYPES) - {"boolean"}

_DATE = "2020-01-01"

# To MLflow a column that is missing is another thing than missing values in it. Gateways fill in values, so these say
# that it was left out: NaNs of bits that no arithmetic gives, and bytes that are no text.
_STAND_INS: dict[str, np.ndarray] = {
    "FP64": np.array([0x7FF8_1EF7_0000_0007], np.uint64).view(np.float64),
    "FP32": np.array([0x7FC1_EF77], np.uint32).view(np.float32),
    "BYTES": np.array([b"\xff\xfe left out"], dtype=object),
}


class Columns(Rows):
    """A data frame of the signature's columns.

    Args:
        columns: those of the signature.
        native: the library's own runtime, which knows what it refuses; None: nothing is known.
    """

    def __init__(self, columns: Sequence[Column], native: Runtime | None) -> None:
        self._columns = columns
        numbered = [column.name is None for column in columns]
        self._labels: list[Any] = [
            place if column.name is None else column.name for place, column in enumerate(columns)
        ]
        lone = [MATRIX] if len(columns) == 1 and numbered[0] else None
        self.names = lone or [str(label) for label in self._labels]
        kinds = {column.type for column in columns}
        scalars = not any(column.depth for column in columns)
        self._matrix = len(kinds) == 1 and kinds <= set(_NUMBERS) and scalars and all(one.required for one in columns)
        self._native = native
        self.inputs, self.schemas = self._inputs(), self._schemas()
        self.defaults = {} if self._matrix else dict(self._left_out())
        # As MLflow, which says so in its log.
        self.ignored = ("*",) if not any(numbered) else ()
        self.facts = {"signature": "columns are taken by name, in the types of the signature; others are ignored"}
        pairs = zip(self.names, columns, strict=True)
        firm = [name for name, column in pairs if not column.required and name not in self.defaults]
        if firm:
            self.facts["optional"] = f"{', '.join(firm)} can't be missing, and are sent although MLflow does without"

    def _left_out(self) -> Iterator[tuple[str, np.ndarray]]:
        """What stands in a row for an optional column that a request leaves out, where something can."""
        for name, column, schema in zip(self.names, self._columns, self.schemas, strict=True):
            stand_in = None if column.depth else _STAND_INS.get(_datatype(column))
            if not column.required and stand_in is not None and (schema.missing or stand_in.dtype == object):
                yield name, stand_in

    def _inputs(self) -> Sequence[TensorSpec]:
        """One matrix where all columns are of one type of numbers, else an input for each."""
        if self._matrix:
            return (TensorSpec(MATRIX, _DATATYPES[self._columns[0].type], (-1, len(self._columns))),)
        return tuple(
            TensorSpec(name, _datatype(column), (-1,) * (1 + column.depth))
            for name, column in zip(self.names, self._columns, strict=True)
        )

    def _schemas(self) -> Sequence[InputSchema]:
        """Missing values and magnitudes as the library has them."""
        takes = _refusals(self._native)
        asked = [takes(name) for name in self.names]
        if self._matrix:
            named = all(column.name is not None for column in self._columns)
            bounds = [largest for _, largest in asked]
            largest = None if None in bounds else max(bound for bound in bounds if bound is not None)
            missing = any(missing for missing, _ in asked)
            is_float = _DATATYPES[self._columns[0].type].startswith("FP")
            return (InputSchema(MATRIX, tuple(self.names) if named else (), missing, largest if is_float else None),)
        return tuple(
            InputSchema(
                name, missing=missing and _may_be_missing(one), largest=largest if "FP" in _datatype(one) else None
            )
            for name, one, (missing, largest) in zip(self.names, self._columns, asked, strict=True)
        )

    def parts(self, batch: Batch) -> list[Part]:
        """A data frame; several where rows differ in the optional columns that their requests left out."""
        import pandas as pd

        if self._matrix:
            (x,) = batch.values()
            # A copy: models may keep what they get, and these rows are gone when they are answered.
            return [(None, pd.DataFrame(x.copy(), columns=self._index(range(len(self._labels)))))]
        absent = {name: _stands_in(batch[name]) for name in self.defaults}
        if not any(rows.any() for rows in absent.values()):
            return [(None, self._frame(batch, ()))]
        kinds, places = np.unique(np.stack(list(absent.values()), axis=1), axis=0, return_inverse=True)
        parts: list[Part] = []
        for number, kind in enumerate(kinds):
            rows = np.flatnonzero(places.reshape(-1) == number)
            left_out = [name for name, gone in zip(absent, kind, strict=True) if gone]
            parts.append((rows, self._frame({name: array[rows] for name, array in batch.items()}, left_out)))
        return parts

    def _frame(self, batch: Batch, left_out: Collection[str]) -> Any:
        import pandas as pd

        series = {
            place: _series(name, column, batch[name])
            for place, (name, column) in enumerate(zip(self.names, self._columns, strict=True))
            if name not in left_out
        }
        frame = pd.DataFrame(series)
        frame.columns = self._index(series)
        return frame

    def _index(self, places: Iterable[int]) -> Any:
        import pandas as pd

        labels = [self._labels[place] for place in places]
        return pd.RangeIndex(len(labels)) if all(isinstance(label, int) for label in labels) else pd.Index(labels)

    def example(self, folder: Path, saved: Mapping[str, Any]) -> Batch:
        """The rows that the model was logged with; else those that its library knows; else made up."""
        rows = _saved_rows(folder, saved, self._labels)
        if rows is None:
            rows = _native_rows(self._native, self.names)
        filled = {}
        for place, (name, column) in enumerate(zip(self.names, self._columns, strict=True)):
            known = None if rows is None else rows.get(self._labels[place], rows.get(name))
            filled[name] = _example(column, known)
        count = max(len(values) for values in filled.values())
        filled = {name: np.resize(values, (count, *values.shape[1:])) for name, values in filled.items()}
        return {MATRIX: np.stack(list(filled.values()), axis=1)} if self._matrix else filled


def _datatype(column: Column) -> str:
    return _DATATYPES.get(column.type, "BYTES")


def _may_be_missing(column: Column) -> bool:
    return not column.depth and column.type not in ("boolean", "integer", "long")


def _dtype(column: Column) -> Any:
    return np.dtype(DATATYPES[_datatype(column)])


def _stands_in(values: np.ndarray) -> np.ndarray:
    """Rows that are the stand-in for what was left out; other missing values are not."""
    if values.dtype == object:
        (text,) = _STAND_INS["BYTES"]
        return np.array([value == text for value in values], bool)
    bits = np.dtype(f"u{values.dtype.itemsize}")
    (number,) = _STAND_INS[f"FP{values.dtype.itemsize * 8}"].view(bits)
    return np.asarray(values.view(bits) == number)


def _series(name: str, column: Column, values: np.ndarray) -> Any:
    import pandas as pd

    if column.depth:
        lists = decode_texts(values, None, name) if values.dtype == object else values
        return pd.Series([row.tolist() for row in lists], dtype=object)
    if column.type in _DATATYPES:
        return pd.Series(values.copy())
    if column.type == "binary":
        return pd.Series(list(values), dtype=object)
    texts = decode_texts(values, None, name)
    if column.type == "string":
        # As pandas makes a column of text, whatever is missing in it.
        return pd.Series(texts, dtype=pd.Series(["a"]).dtype)
    if column.type == "datetime":
        return _each(texts, name, _date).astype("datetime64[ns]")
    return _each(texts, name, json.loads)


def _each(texts: np.ndarray, name: str, read: Callable[[str], Any]) -> Any:
    """A column of what ``read`` makes of each text; a text that it can't read is refused with its row."""
    import pandas as pd

    found: list[Any] = []
    for row, text in enumerate(texts):
        try:
            found.append(None if text is None else read(text))
        except (ValueError, TypeError) as fault:
            raise InvalidInput(f"column {name!r} holds {text[:100]!r}: {fault}", row=row) from None
    return pd.Series(found, dtype=object)


def _date(text: str) -> Any:
    import pandas as pd

    date = pd.to_datetime(text, format="ISO8601")
    if date.tzinfo is not None:
        raise ValueError("MLflow takes dates without a time zone")
    return date.to_datetime64().astype("datetime64[ns]")


# -- what the library knows, and what is plausible ------------------------------------------------------------------


def _refusals(native: Runtime | None) -> Callable[[str], tuple[bool, float | None]]:
    """Whether the library takes a missing value in a column, and the greatest number; by what its own runtime says."""
    schemas: dict[str, InputSchema] = {}
    whole: InputSchema | None = None
    for schema in getattr(native, "schemas", ()):
        schemas |= dict.fromkeys(schema.columns or (schema.input,), schema)
        if not schema.columns and schema.input == MATRIX:
            whole = schema

    def takes(name: str) -> tuple[bool, float | None]:
        schema = schemas.get(name, whole)
        return (True, None) if schema is None else (schema.missing, schema.largest)

    return takes


def _native_rows(native: Runtime | None, names: Sequence[str]) -> dict[Any, Any] | None:
    """Values by column, of a runtime that has an example."""
    example = getattr(native, "example", None)
    if not example:
        return None
    if MATRIX not in example or MATRIX in names:
        return {name: list(values) for name, values in example.items()}
    (schema,) = getattr(native, "schemas", (None,))
    columns = schema.columns if schema is not None and schema.columns else names
    return {
        name: list(example[MATRIX][:, place]) for place, name in enumerate(columns) if place < example[MATRIX].shape[1]
    }


def _saved_rows(folder: Path, saved: Mapping[str, Any], labels: Sequence[Any]) -> dict[Any, list[Any]] | None:
    """The input example of the folder, by column; None where there is none that is read."""
    if saved.get("type") != "dataframe" or saved.get("pandas_orient", "split") != "split":
        return None
    try:
        written = json.loads((folder / str(saved["artifact_path"])).read_text(encoding="utf-8"))
        columns = written.get("columns", labels)
        rows = written["data"]
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return {name: [row[place] for row in rows[:8]] for place, name in enumerate(columns)} if rows else None


def _example(column: Column, known: list[Any] | None) -> np.ndarray:
    """Rows of one column: those that are known, in its type; else one that is made up."""
    if known is not None:
        try:
            return _typed(column, known)
        except (ValueError, TypeError, OverflowError):
            pass
    if _datatype(column) == "BYTES":
        synthetic_inputs = {"string": b"text", "binary": b"text", "datetime": _DATE.encode()}
        found = np.empty((1,) * (1 + column.depth), dtype=object)
        found[...] = synthetic_inputs.get(column.type) or json.dumps(_value(column.inner)).encode()
        return found
    return np.zeros((1,) * (1 + column.depth), _dtype(column))


def _value(kind: Mapping[str, Any]) -> Any:
    """A value of a type of the signature, as JSON has it."""
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
        raise TypeError("lists of text are made up")
    found = np.empty(len(known), dtype=object)
    plain = column.type in ("string", "datetime", "binary")
    found[:] = [_bytes(value) if plain or value is None else json.dumps(value).encode() for value in known]
    return found


def _bytes(value: Any) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else str(value).encode()

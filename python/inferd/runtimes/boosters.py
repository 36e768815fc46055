"""Code shared by the runtimes of boosters: inputs, category codes, and limits of their libraries.

Reads the columns that a runtime found in its model, hands on a signature with schemas, and each batch as the matrix
that boosters take. Worker side only: imports numpy. Knows nothing of any library: limits are found by trying.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from inferd.errors import InvalidInput, ModelFailed
from inferd.runtimes.signatures import declared, observed_outputs, with_declared
from inferd.runtimes.tables import Column, Table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from inferd.runtimes.base import Batch
    from inferd.types import InputSchema, TensorSpec

__all__ = ["Booster", "BoosterRuntime", "Matrix", "category_column", "inputs_by_column", "shortened", "table_of"]

_EXACT = 2**53
_MISSING, _UNKNOWN = math.nan, -1.0
_SHOWN, _SHOWN_LENGTH = 5, 30
# Infinity; the greatest FP64; the greatest FP64 that rounds to a finite FP32.
_MAGNITUDES = (math.inf, float(np.finfo(np.float64).max), math.nextafter(2.0**128 - 2.0**103, 0))


class Booster(Protocol):
    """A booster loaded by its library."""

    booster: Any
    facts: dict[str, str]
    """Facts for operators."""
    kind: str
    """Its parts in the plural, for messages: trees."""
    table: Table
    """The columns in the file."""
    countable: Collection[str]
    """Text columns that may be declared as integers: the library accepts either."""
    refuses_unknown: bool
    """Whether the library rejects unknown categories; else they count as missing."""

    def row(self, table: Table) -> Batch:
        """Return one plausible row."""
        ...

    def answers(self, matrix: Matrix, batch: Batch) -> Batch:
        """Run the library over one or more rows."""
        ...


class BoosterRuntime:
    """A booster in a worker: a table in, numbers and labels out.

    Args:
        settings: ``Launch.load``.
        model: the loaded booster.

    Raises:
        ModelFailed: the declared inputs do not match the model.
    """

    ignored_columns: Sequence[str] = ()
    schemas: Sequence[InputSchema]

    def __init__(self, settings: dict[str, Any], model: Booster) -> None:
        self.booster = model.booster
        self.facts = model.facts
        self.independent = f"{model.kind} answer row by row"
        self._model = model
        inputs = declared(settings, "inputs")
        table = model.table if inputs is None else _as_declared(model, inputs)
        self._matrix = Matrix(table, refuse_unknown=model.refuses_unknown)
        self._row = model.row(table)
        # Generated values are not categories and may be rejected.
        self.example = self._row if any(column.categories for column in table.columns) else None
        inputs = inputs or table.inputs
        self.signature = with_declared(settings, inputs, observed_outputs(self.predict(self._row)))
        schemas = self._with_limits(table).schemas
        self.schemas = [replace(schemas[0], input=inputs[0].name)] if table.matrix else schemas

    def predict(self, batch: Batch) -> Batch:
        """Run the booster over a batch."""
        if len(next(iter(batch.values()))) == 0:
            # Libraries return the wrong width for a batch without rows.
            return {name: values[:0] for name, values in self._model.answers(self._matrix, self._row).items()}
        return self._model.answers(self._matrix, batch)

    def close(self) -> None:
        """Nothing to release."""

    def _with_limits(self, table: Table) -> Table:
        """Return the table with its limits: missing values and greatest magnitude."""
        missing = self._accepts(table, math.nan)
        accepted = (one for one in _MAGNITUDES if self._accepts(table, one) and self._accepts(table, -one))
        largest = next(accepted, _MAGNITUDES[-1])
        columns = [
            column if column.datatype == "BYTES" else replace(column, missing=missing) for column in table.columns
        ]
        return Table(columns, matrix=table.matrix, named=table.named, largest=None if largest == math.inf else largest)

    def _accepts(self, table: Table, value: float) -> bool:
        """Whether the library accepts a row whose numbers are all ``value``."""
        row = {name: array.copy() for name, array in self._row.items()}
        if table.matrix:
            (x,) = row.values()
            numbers = [x[:, index] for index, column in enumerate(table.columns) if column.categories is None]
        else:
            numbers = [row[column.name] for column in table.columns if column.categories is None]
        with np.errstate(over="ignore"):
            for array in numbers:
                if array.dtype.kind == "f":
                    array[...] = value
        try:
            self._model.answers(self._matrix, row)
        except Exception:  # noqa: BLE001 (libraries have their own exceptions for rejected values)
            return False
        return True


class Matrix:
    """Converts batches to FP64 matrices: numbers unchanged, categories as their training codes.

    Args:
        table: the columns; those with ``categories`` become codes.
        refuse_unknown: whether an unknown category is an error; else it counts as missing.
    """

    def __init__(self, table: Table, *, refuse_unknown: bool) -> None:
        self.table = table
        self._refuse_unknown = refuse_unknown
        self._codes = {
            index: {_key(column, category): float(code) for code, category in enumerate(column.categories)}
            for index, column in enumerate(table.columns)
            if column.categories is not None
        }

    def of(self, batch: Batch) -> np.ndarray:
        """Return the matrix of shape (n, columns).

        Raises:
            InvalidInput: a category is unknown and the library rejects those; names its row and column.
        """
        if self.table.matrix:
            (x,) = batch.values()
            if not self._codes:
                # LightGBM would round integers to FP32.
                exact: np.ndarray = x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)
                return exact
            columns = [x[:, index] for index in range(x.shape[1])]
        else:
            columns = [batch[column.name].reshape(-1) for column in self.table.columns]
        matrix = np.empty((len(columns[0]), len(columns)), np.float64)
        for index, values in enumerate(columns):
            matrix[:, index] = self._coded(index, values) if index in self._codes else values
        return matrix

    def _coded(self, index: int, values: np.ndarray) -> list[float]:
        codes = self._codes[index]
        found = [codes.get(value, _UNKNOWN) for value in values.tolist()]
        for row, code in enumerate(found):
            if code == _UNKNOWN:
                found[row] = _MISSING
                if self._refuse_unknown and not _is_missing(values[row]):
                    raise InvalidInput(self._unknown_category(row, self.table.columns[index], values[row]))
        return found

    @staticmethod
    def _unknown_category(row: int, column: Column, value: Any) -> str:
        text = value.decode(errors="replace") if isinstance(value, bytes) else value
        known = shortened(map(str, column.categories or ()))
        return f"row {row} of column {column.name!r}: unknown category {text}; the model was fitted with {known}"


def table_of(columns: Sequence[Column], *, named: bool) -> Table:
    """Return a table with one matrix if all columns have one numeric type, else an input per column."""
    types = {column.datatype for column in columns}
    return Table(columns, matrix=len(types) == 1 and "BYTES" not in types, named=named)


def category_column(name: str, categories: Sequence[Any]) -> Column:
    """Return a column with the values of ``categories``, in the order of their codes.

    Numbers, and booleans as 0 and 1, are FP64, which can be missing; integers beyond 2**53 are integers. Values of
    mixed kinds are texts.
    """
    if categories and all(isinstance(category, int | float) for category in categories):
        datatype = "FP64"
        if all(isinstance(category, int) for category in categories):
            greatest = max(categories, key=abs)
            if abs(greatest) > _EXACT:
                datatype = "UINT64" if greatest >= 2**63 else "INT64"
        return Column(name, datatype, categories=tuple(categories), example=categories[0])
    texts = tuple(category if isinstance(category, str) else str(category) for category in categories)
    return Column(name, "BYTES", categories=texts, example=texts[0] if texts else None)


def shortened(names: Iterable[str]) -> str:
    """Join the first names, shortened for a message."""
    names = list(names)
    shown = [name if len(name) <= _SHOWN_LENGTH else f"{name[:_SHOWN_LENGTH]}…" for name in names[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _key(column: Column, category: Any) -> Any:
    return category.encode() if column.datatype == "BYTES" else category


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # noqa: PLR0124 (NaN alone differs from itself)


def inputs_by_column(table: Table, inputs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Match declared inputs with columns: by name, or in order if the names differ.

    Raises:
        ModelFailed: their number differs from that of the columns.
    """
    if _is_matrix(table, inputs):
        return list(inputs) * len(table.columns)
    if len(inputs) != len(table.columns):
        matrix = f" or one of shape [-1, {len(table.columns)}]" if table.matrix else ""
        raise ModelFailed(
            f"inputs: declares {shortened(map(str, inputs))}, but the model has the columns {shortened(table.names)}\n"
            f"help: declare one input of shape [-1] for each column{matrix}"
        )
    named = {spec.name: spec for spec in inputs}
    return [named[name] for name in table.names] if set(named) == set(table.names) else list(inputs)


def _is_matrix(table: Table, inputs: Sequence[TensorSpec]) -> bool:
    width = len(table.columns)
    return table.matrix and len(inputs) == 1 and len(inputs[0].shape) == 2 and inputs[0].shape[1] in (-1, width)


def _as_declared(model: Booster, inputs: Sequence[TensorSpec]) -> Table:
    """Return the table with the declared datatypes and names."""
    matrix = _is_matrix(model.table, inputs)
    columns = []
    for column, spec in zip(model.table.columns, inputs_by_column(model.table, inputs), strict=True):
        integers = column.name in model.countable and "INT" in spec.datatype
        if (column.datatype == "BYTES") != (spec.datatype == "BYTES") and not integers:
            kind = "text" if column.datatype == "BYTES" else "numbers"
            raise ModelFailed(f"input '{spec}' is declared, but column {column.name!r} of the model holds {kind}")
        columns.append(replace(column, name=column.name if matrix else spec.name, datatype=spec.datatype))
    return Table(columns, matrix=matrix, named=model.table.named)

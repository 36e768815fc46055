"""What the runtimes of boosters share: their inputs, categories as codes, and what their libraries refuse.

Reads the columns that a runtime found in its model, hands on a signature with schemas, and each batch as the matrix
that boosters take. Worker side only: imports numpy. Knows no library: what one refuses it is asked.
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

__all__ = ["Booster", "BoosterRuntime", "Matrix", "by_column", "category_column", "listed", "table_of"]

_EXACT = 2**53
_MISSING, _UNKNOWN = math.nan, -1.0
_SHOWN, _SHOWN_LENGTH = 5, 30
# Infinity; the greatest FP64; the greatest FP64 that is still finite when it is rounded to FP32.
_MAGNITUDES = (math.inf, float(np.finfo(np.float64).max), math.nextafter(2.0**128 - 2.0**103, 0))


class Booster(Protocol):
    """A booster as its library reads it."""

    booster: Any
    facts: dict[str, str]
    """What an operator wants to know."""
    kind: str
    """What answers, in the plural: trees."""
    table: Table
    """The columns that the file tells of."""
    countable: Collection[str]
    """Columns of text that may be declared as integers: the library takes either."""
    refuses_unknown: bool
    """Whether the library refuses what is no category of a column; else it takes it for missing."""

    def row(self, table: Table) -> Batch:
        """One row of plausible inputs."""
        ...

    def answers(self, matrix: Matrix, batch: Batch) -> Batch:
        """The library's answers to one row or more."""
        ...


class BoosterRuntime:
    """A booster in its worker: a table in, numbers and labels out.

    Args:
        settings: ``Launch.load``.
        model: what the library read.

    Raises:
        ModelFailed: the inputs that the settings declare are not the model's.
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
        # Made-up values are no categories, and may be refused.
        self.example = self._row if any(column.categories for column in table.columns) else None
        inputs = inputs or table.inputs
        self.signature = with_declared(settings, inputs, observed_outputs(self.predict(self._row)))
        schemas = self._asked(table).schemas
        self.schemas = [replace(schemas[0], input=inputs[0].name)] if table.matrix else schemas

    def predict(self, batch: Batch) -> Batch:
        """The library's answers."""
        if len(next(iter(batch.values()))) == 0:
            # Libraries forget the width of an answer that has no rows.
            return {name: values[:0] for name, values in self._model.answers(self._matrix, self._row).items()}
        return self._model.answers(self._matrix, batch)

    def close(self) -> None:
        """Nothing is held but memory."""

    def _asked(self, table: Table) -> Table:
        """The table with what the library says of missing values and of great ones."""
        missing = self._takes(table, math.nan)
        takes = (one for one in _MAGNITUDES if self._takes(table, one) and self._takes(table, -one))
        largest = next(takes, _MAGNITUDES[-1])
        columns = [
            column if column.datatype == "BYTES" else replace(column, missing=missing) for column in table.columns
        ]
        return Table(columns, matrix=table.matrix, named=table.named, largest=None if largest == math.inf else largest)

    def _takes(self, table: Table, value: float) -> bool:
        """Whether the library answers a row whose numbers are all ``value``."""
        asked = {name: array.copy() for name, array in self._row.items()}
        if table.matrix:
            (x,) = asked.values()
            numbers = [x[:, place] for place, column in enumerate(table.columns) if column.categories is None]
        else:
            numbers = [asked[column.name] for column in table.columns if column.categories is None]
        with np.errstate(over="ignore"):
            for array in numbers:
                if array.dtype.kind == "f":
                    array[...] = value
        try:
            self._model.answers(self._matrix, asked)
        except Exception:  # noqa: BLE001 (each library has its own exception for a value that it refuses)
            return False
        return True


class Matrix:
    """Batches as the FP64 matrix that boosters take: numbers as they are, categories as their places in the training.

    Args:
        table: the columns; those with ``categories`` become codes.
        refuse_unknown: what is no category is refused rather than taken for missing.
    """

    def __init__(self, table: Table, *, refuse_unknown: bool) -> None:
        self.table = table
        self._refuse_unknown = refuse_unknown
        self._codes = {
            place: {_key(column, category): float(code) for code, category in enumerate(column.categories)}
            for place, column in enumerate(table.columns)
            if column.categories is not None
        }

    def of(self, batch: Batch) -> np.ndarray:
        """The matrix of shape (n, columns).

        Raises:
            InvalidInput: a value is no category and the library refuses those; it names the row and the column.
        """
        if self.table.matrix:
            (x,) = batch.values()
            if not self._codes:
                # LightGBM would round integers to FP32.
                exact: np.ndarray = x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)
                return exact
            columns = [x[:, place] for place in range(x.shape[1])]
        else:
            columns = [batch[column.name].reshape(-1) for column in self.table.columns]
        matrix = np.empty((len(columns[0]), len(columns)), np.float64)
        for place, values in enumerate(columns):
            matrix[:, place] = self._coded(place, values) if place in self._codes else values
        return matrix

    def _coded(self, place: int, values: np.ndarray) -> list[float]:
        codes = self._codes[place]
        found = [codes.get(value, _UNKNOWN) for value in values.tolist()]
        for row, code in enumerate(found):
            if code == _UNKNOWN:
                found[row] = _MISSING
                if self._refuse_unknown and not _is_missing(values[row]):
                    raise InvalidInput(self._stranger(row, self.table.columns[place], values[row]))
        return found

    @staticmethod
    def _stranger(row: int, column: Column, value: Any) -> str:
        text = value.decode(errors="replace") if isinstance(value, bytes) else value
        known = listed(map(str, column.categories or ()))
        return f"row {row} of column {column.name!r}: {text} is no category that the model was fitted with ({known})"


def table_of(columns: Sequence[Column], *, named: bool) -> Table:
    """One matrix of all columns where they are of one type of numbers, else an input for each."""
    types = {column.datatype for column in columns}
    return Table(columns, matrix=len(types) == 1 and "BYTES" not in types, named=named)


def category_column(name: str, categories: Sequence[Any]) -> Column:
    """A column that takes the values of ``categories``, which are in the order of their codes.

    Numbers, and truth values as 0 and 1, come as FP64, in which they can be missing; integers beyond 2**53 as
    themselves. Values of several kinds come as their texts.
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


def listed(names: Iterable[str]) -> str:
    """The first of some names, as short as a fact and a message must be."""
    names = list(names)
    shown = [name if len(name) <= _SHOWN_LENGTH else f"{name[:_SHOWN_LENGTH]}…" for name in names[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _key(column: Column, category: Any) -> Any:
    return category.encode() if column.datatype == "BYTES" else category


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # noqa: PLR0124 (NaN alone differs from itself)


def by_column(table: Table, inputs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The declared input of each column: by name, or in order where they have other names.

    Raises:
        ModelFailed: there are more or fewer than columns.
    """
    if _is_matrix(table, inputs):
        return list(inputs) * len(table.columns)
    if len(inputs) != len(table.columns):
        matrix = f" or one of shape [-1, {len(table.columns)}]" if table.matrix else ""
        raise ModelFailed(
            f"inputs: declares {listed(map(str, inputs))}, but the model has the columns {listed(table.names)}\n"
            f"help: declare one input of shape [-1] for each column{matrix}"
        )
    named = {spec.name: spec for spec in inputs}
    return [named[name] for name in table.names] if set(named) == set(table.names) else list(inputs)


def _is_matrix(table: Table, inputs: Sequence[TensorSpec]) -> bool:
    width = len(table.columns)
    return table.matrix and len(inputs) == 1 and len(inputs[0].shape) == 2 and inputs[0].shape[1] in (-1, width)


def _as_declared(model: Booster, inputs: Sequence[TensorSpec]) -> Table:
    """The table with its columns in the types, and under the names, that the settings declare."""
    matrix = _is_matrix(model.table, inputs)
    columns = []
    for column, spec in zip(model.table.columns, by_column(model.table, inputs), strict=True):
        integers = column.name in model.countable and "INT" in spec.datatype
        if (column.datatype == "BYTES") != (spec.datatype == "BYTES") and not integers:
            kind = "text" if column.datatype == "BYTES" else "numbers"
            raise ModelFailed(f"input '{spec}' is declared, but column {column.name!r} of the model holds {kind}")
        columns.append(replace(column, name=column.name if matrix else spec.name, datatype=spec.datatype))
    return Table(columns, matrix=matrix, named=model.table.named)

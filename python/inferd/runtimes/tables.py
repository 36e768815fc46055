"""Convert batches to the tables that a library was fitted with.

Reads the columns that a runtime found in its model, hands on the signature's inputs, their schemas, and each batch as
the array or data frame that the library expects. Worker side only: imports numpy. Knows nothing of any library: each
runtime finds its own columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.errors import InvalidInput
from inferd.types import DATATYPES, InputSchema, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inferd.runtimes.base import Batch

__all__ = ["MATRIX", "Column", "Table", "as_texts"]

MATRIX = "x"
"""Name of the input if all columns have one datatype."""
# No float type represents all integers of these.
_WIDE = (np.dtype("int64"), np.dtype("uint64"))


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Args:
        name: as clients send it.
        datatype: the protocol's datatype: ``BYTES`` for text.
        missing: whether the model accepts missing values.
        missing_text: represents missing text in the library's frame: ``nan`` or ``None``.
        categories: of a categorical pandas column, in the order of their codes; ``None`` for other columns.
        example: a plausible value, or a tuple of them to cycle through; ``None``: zero, or the text "text".
        largest: the greatest magnitude accepted in this column; ``None``: the table's.
        objects: whether the library was fitted with Python objects where clients send numbers: each becomes an object,
            a missing one ``missing_text``.
    """

    name: str
    datatype: str = "FP64"
    missing: bool = True
    missing_text: float | None = float("nan")
    categories: tuple[Any, ...] | None = None
    example: Any = None
    largest: float | None = None
    objects: bool = False


class Table:
    """The columns of a model, sent as one matrix ``x`` or each as an input.

    Args:
        columns: in the model's order.
        matrix: whether they are one input of shape (n, columns) with one datatype.
        named: whether the names are the model's own, so that frames are matched by them.
        largest: the greatest magnitude accepted; ``None``: no limit, infinity included.
        ignored: columns that the model was fitted with and does not read.
        labels: column labels of the library's frame if they differ from the clients' names.

    A matrix has one schema, the union of its columns' constraints; :meth:`array` and :meth:`frame` check stricter
    columns.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        matrix: bool,
        named: bool = True,
        largest: float | None = None,
        ignored: Sequence[str] = (),
        labels: Sequence[Any] | None = None,
    ) -> None:
        self.columns = tuple(columns)
        self.matrix = matrix
        self.named = named
        self.largest = largest
        self.ignored = tuple(ignored)
        self._labels = self.names if labels is None else list(labels)
        self._index: Any = None
        self._has_objects = any(column.objects for column in self.columns)
        self._stricter = self._stricter_columns() if matrix else []

    @property
    def names(self) -> list[str]:
        """Names of the columns, in the model's order."""
        return [column.name for column in self.columns]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs of the signature."""
        if self.matrix:
            return (TensorSpec(MATRIX, self.columns[0].datatype, (-1, len(self.columns))),)
        return tuple(TensorSpec(column.name, column.datatype, (-1,)) for column in self.columns)

    @property
    def schemas(self) -> tuple[InputSchema, ...]:
        """Schemas for the gateway."""
        if self.matrix:
            names = tuple(self.names) if self.named else ()
            missing = any(column.missing for column in self.columns)
            bounds = [self._largest(column) for column in self.columns]
            largest = None if None in bounds else max(bound for bound in bounds if bound is not None)
            return (InputSchema(MATRIX, names, missing, largest),)
        return tuple(
            InputSchema(column.name, missing=column.missing, largest=self._largest(column)) for column in self.columns
        )

    def _largest(self, column: Column) -> float | None:
        if not column.datatype.startswith("FP"):
            return None
        return self.largest if column.largest is None else column.largest

    def example(self, rows: int = 1) -> Batch:
        """Return a batch of plausible rows."""
        values = [_example_values(column, rows) for column in self.columns]
        return {MATRIX: np.stack(values, axis=1)} if self.matrix else dict(zip(self.names, values, strict=True))

    def array(self, batch: Batch) -> np.ndarray:
        """Return the matrix of shape (n, columns); text as ``str`` objects, integers that FP64 would round as objects.

        Raises:
            InvalidInput: a text is not UTF-8, or a number is missing or too large for a column that is stricter than
                the matrix's schema.
        """
        if self.matrix:
            x: np.ndarray = next(iter(batch.values()))
            self._check(x)
            if x.dtype == object:
                return as_texts(x, self.columns[0].missing_text)
            if not self._has_objects:
                return x
            columns = [self._objects(column, x[:, index]) for index, column in enumerate(self.columns)]
        else:
            columns = [self._values(column, batch[column.name]) for column in self.columns]
        if len({column.dtype for column in columns}) > 1 and any(column.dtype in _WIDE for column in columns):
            columns = [column.astype(object) for column in columns]
        return np.stack(columns, axis=1)

    def frame(self, batch: Batch) -> Any:
        """Return the pandas data frame of shape (n, columns), with the dtypes that the model was fitted with.

        Raises:
            InvalidInput: as for :meth:`array`.
        """
        import pandas as pd

        if self._index is None:
            self._index = pd.Index(self._labels)
        if self.matrix:
            return pd.DataFrame(self.array(batch), columns=self._index)
        series = [self._series(column, batch[column.name]) for column in self.columns]
        frame = pd.DataFrame(dict(enumerate(series)))
        frame.columns = self._index
        return frame

    def _series(self, column: Column, values: np.ndarray) -> Any:
        import pandas as pd

        values = self._values(column, values)
        if column.categories is not None:
            return pd.Categorical(values, categories=list(column.categories))
        # By default pandas infers its own text dtype, in which None becomes NaN.
        keeps_none = values.dtype == object and (column.missing_text is None or column.objects)
        return pd.Series(values, dtype=object) if keeps_none else values

    @classmethod
    def _values(cls, column: Column, values: np.ndarray) -> np.ndarray:
        flat = values.reshape(len(values))
        return as_texts(flat, column.missing_text, column.name) if flat.dtype == object else cls._objects(column, flat)

    @staticmethod
    def _objects(column: Column, values: np.ndarray) -> np.ndarray:
        if not column.objects:
            return values
        objects = values.astype(object)
        if values.dtype.kind == "f":
            objects[np.isnan(values)] = column.missing_text
        return objects

    def _stricter_columns(self) -> list[tuple[int, bool, float | None]]:
        """Return index, missing and largest of each column that is stricter than the matrix's schema."""
        if not self.columns or self.columns[0].datatype == "BYTES":
            return []
        (schema,) = self.schemas
        own = [(index, column.missing, self._largest(column)) for index, column in enumerate(self.columns)]
        return [one for one in own if one[1:] != (schema.missing, schema.largest)]

    def _check(self, x: np.ndarray) -> None:
        for index, missing, largest in self._stricter:
            values = x[:, index]
            if not missing and np.isnan(values).any():
                self._refuse(index, np.isnan(values), "is missing (NaN); the model takes no missing values in it")
            if largest is not None and (np.abs(values) > largest).any():
                self._refuse(
                    index, np.abs(values) > largest, f"is too large; the model takes no magnitude above {largest}"
                )

    def _refuse(self, index: int, rows: np.ndarray, what: str) -> None:
        row, name = int(np.argmax(rows)), self.names[index]
        raise InvalidInput(
            f"row {row}, column {index} ('{name}') of input '{MATRIX}' {what}: change it, or leave the row out"
        )


def as_texts(array: np.ndarray, missing: float | None = None, name: str | None = None) -> np.ndarray:
    """Decode an array of ``bytes`` and ``None`` to an object array of ``str``.

    Args:
        array: of any shape.
        missing: replaces ``None``.
        name: the column, for the message.

    Raises:
        InvalidInput: a text is not UTF-8; names its row and column.
    """
    texts = np.empty(array.shape, dtype=object)
    flat = texts.reshape(-1)
    for position, element in enumerate(array.reshape(-1)):
        try:
            flat[position] = missing if element is None else element.decode()
        except UnicodeDecodeError:
            index = np.unravel_index(position, array.shape)
            column = name if name is not None else index[1] if len(index) > 1 else 0
            raise InvalidInput(f"row {index[0]} of column {column!r}: the text is not UTF-8") from None
    return texts


def _example_values(column: Column, rows: int) -> np.ndarray:
    text = column.datatype == "BYTES"
    example = column.example
    if example is None:
        example = "text" if text else 0
    values = example if isinstance(example, tuple) else (example,)
    if text:
        values = tuple(value.encode() if isinstance(value, str) else value for value in values)
    return np.resize(np.array(values, DATATYPES[column.datatype]), rows)

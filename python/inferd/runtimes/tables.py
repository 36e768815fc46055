"""Rows of a table in the types that a library was fitted with.

Reads columns that a runtime found in its model, hands on the inputs of the signature, what the gateway holds requests
to, and each batch as the array or data frame that the library takes. Worker side only: imports numpy.
Knows nothing of any library: what its columns are is for each runtime to find out.
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

__all__ = ["MATRIX", "Column", "Table", "texts_of"]

MATRIX = "x"
"""The input of a table whose columns are all of one type."""
# Integers of these have no type in common with floats that holds both.
_WIDE = (np.dtype("int64"), np.dtype("uint64"))


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Args:
        name: what clients call it.
        datatype: the protocol's name of its type: ``BYTES`` for text.
        missing: whether a missing value is a value to the model.
        missing_text: what stands for missing text in the library's frame: ``nan`` or ``None``.
        categories: the categories of a pandas column in the order of their codes; ``None`` where it is no such column.
        example: a plausible value; ``None``: zero, or the text "text". A tuple has several, one row each in turn.
        largest: the greatest magnitude of a number that the model takes in this column; ``None``: the table's.
        objects: whether the library was fitted with Python objects where clients send numbers: each becomes an object,
            and a missing one ``missing_text``.
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
    """The columns of a model, and how they come in: as one matrix ``x``, or each as an input of its own.

    Args:
        columns: in the model's order.
        matrix: whether they are one input of shape (n, columns); they must be of one type then.
        named: whether the columns' names are the model's own, so that frames are taken by them.
        largest: the greatest magnitude of a number that the model takes; ``None``: any, infinity too.
        ignored: columns that the model was fitted with and does not read.
        labels: what the columns are called in the library's frame, where that is not what clients call them.

    A matrix has one schema. Where its columns differ in what they take, the schema takes what any of them does, and
    :meth:`array` and :meth:`frame` refuse the rest.
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
        self._any_objects = any(column.objects for column in self.columns)
        self._unlike = self._columns_unlike_schema() if matrix else []

    @property
    def names(self) -> list[str]:
        """The names of the columns, in the model's order."""
        return [column.name for column in self.columns]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs of the signature."""
        if self.matrix:
            return (TensorSpec(MATRIX, self.columns[0].datatype, (-1, len(self.columns))),)
        return tuple(TensorSpec(column.name, column.datatype, (-1,)) for column in self.columns)

    @property
    def schemas(self) -> tuple[InputSchema, ...]:
        """What the gateway holds requests to."""
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
        """Plausible rows, as a batch."""
        filled = [_filled(column, rows) for column in self.columns]
        return {MATRIX: np.stack(filled, axis=1)} if self.matrix else dict(zip(self.names, filled, strict=True))

    def array(self, batch: Batch) -> np.ndarray:
        """The matrix of shape (n, columns); text as ``str`` objects. Whole numbers that FP64 rounds stay objects.

        Raises:
            InvalidInput: a text is not UTF-8; a number is missing, or larger than the model takes, in a column of a
                matrix whose other columns take such numbers.
        """
        if self.matrix:
            x: np.ndarray = next(iter(batch.values()))
            self._check(x)
            if x.dtype == object:
                return texts_of(x, self.columns[0].missing_text)
            if not self._any_objects:
                return x
            columns = [self._objects(column, x[:, place]) for place, column in enumerate(self.columns)]
        else:
            columns = [self._values(column, batch[column.name]) for column in self.columns]
        if len({column.dtype for column in columns}) > 1 and any(column.dtype in _WIDE for column in columns):
            columns = [column.astype(object) for column in columns]
        return np.stack(columns, axis=1)

    def frame(self, batch: Batch) -> Any:
        """The pandas data frame of shape (n, columns), each column of the type that the model was fitted with.

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
        # Left to itself pandas makes text of its own type of these, in which None is NaN.
        keeps_none = values.dtype == object and (column.missing_text is None or column.objects)
        return pd.Series(values, dtype=object) if keeps_none else values

    @classmethod
    def _values(cls, column: Column, values: np.ndarray) -> np.ndarray:
        flat = values.reshape(len(values))
        return texts_of(flat, column.missing_text, column.name) if flat.dtype == object else cls._objects(column, flat)

    @staticmethod
    def _objects(column: Column, values: np.ndarray) -> np.ndarray:
        if not column.objects:
            return values
        objects = values.astype(object)
        if values.dtype.kind == "f":
            objects[np.isnan(values)] = column.missing_text
        return objects

    def _columns_unlike_schema(self) -> list[tuple[int, bool, float | None]]:
        """Place, missing and largest of each column that takes less than the matrix's schema does."""
        if not self.columns or self.columns[0].datatype == "BYTES":
            return []
        (schema,) = self.schemas
        own = [(place, column.missing, self._largest(column)) for place, column in enumerate(self.columns)]
        return [one for one in own if one[1:] != (schema.missing, schema.largest)]

    def _check(self, x: np.ndarray) -> None:
        for place, missing, largest in self._unlike:
            values = x[:, place]
            if not missing and np.isnan(values).any():
                self._refuse(place, np.isnan(values), "is missing (NaN); the model takes no missing values in it")
            if largest is not None and (np.abs(values) > largest).any():
                self._refuse(
                    place, np.abs(values) > largest, f"is too large; the model takes no magnitude above {largest}"
                )

    def _refuse(self, place: int, rows: np.ndarray, what: str) -> None:
        row, name = int(np.argmax(rows)), self.names[place]
        raise InvalidInput(
            f"row {row}, column {place} ('{name}') of input '{MATRIX}' {what}: change it, or leave the row out"
        )


def texts_of(array: np.ndarray, missing: float | None = None, name: str | None = None) -> np.ndarray:
    """An object array of ``str`` from one of ``bytes`` and, where text is missing, ``None``.

    Args:
        array: of any shape.
        missing: what stands for a missing text in the result.
        name: the column, for the message.

    Raises:
        InvalidInput: a text is not UTF-8; it names the row and the column.
    """
    texts = np.empty(array.shape, dtype=object)
    flat = texts.reshape(-1)
    for position, element in enumerate(array.reshape(-1)):
        try:
            flat[position] = missing if element is None else element.decode()
        except UnicodeDecodeError:
            place = np.unravel_index(position, array.shape)
            column = name if name is not None else place[1] if len(place) > 1 else 0
            raise InvalidInput(f"row {place[0]} of column {column!r}: the text is not UTF-8") from None
    return texts


def _filled(column: Column, rows: int) -> np.ndarray:
    text = column.datatype == "BYTES"
    example = column.example
    if example is None:
        example = "text" if text else 0
    values = example if isinstance(example, tuple) else (example,)
    if text:
        values = tuple(value.encode() if isinstance(value, str) else value for value in values)
    return np.resize(np.array(values, DATATYPES[column.datatype]), rows)

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


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Args:
        name: what clients call it.
        datatype: the protocol's name of its type: ``BYTES`` for text.
        missing: whether a missing value is a value to the model.
        missing_text: what stands for missing text in the library's frame: ``nan`` or ``None``.
        categories: the categories of a pandas column in the order of their codes; ``None`` where it is no such column.
        example: a plausible value; ``None``: zero, or the text "text".
    """

    name: str
    datatype: str = "FP64"
    missing: bool = True
    missing_text: float | None = float("nan")
    categories: tuple[Any, ...] | None = None
    example: Any = None


class Table:
    """The columns of a model, and how they come in: as one matrix ``x``, or each as an input of its own.

    Args:
        columns: in the model's order.
        matrix: whether they are one input of shape (n, columns); they must be of one type then.
        named: whether the columns' names are the model's own, so that frames are taken by them.
        largest: the greatest magnitude of a number that the model takes; ``None``: any, infinity too.
        ignored: columns that the model was fitted with and does not read.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        matrix: bool,
        named: bool = True,
        largest: float | None = None,
        ignored: Sequence[str] = (),
    ) -> None:
        self.columns = tuple(columns)
        self.matrix = matrix
        self.named = named
        self.largest = largest
        self.ignored = tuple(ignored)

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
            missing = all(column.missing for column in self.columns)
            return (InputSchema(MATRIX, names, missing, self._largest(self.columns[0])),)
        return tuple(
            InputSchema(column.name, missing=column.missing, largest=self._largest(column)) for column in self.columns
        )

    def _largest(self, column: Column) -> float | None:
        return self.largest if column.datatype.startswith("FP") else None

    def example(self, rows: int = 1) -> Batch:
        """Plausible rows, as a batch."""
        filled = {column.name: _filled(column, rows) for column in self.columns}
        if self.matrix:
            return {MATRIX: np.stack(list(filled.values()), axis=1)}
        return filled

    def array(self, batch: Batch) -> np.ndarray:
        """The matrix of shape (n, columns); text as ``str`` objects."""
        if self.matrix:
            (x,) = batch.values()
            return texts_of(x, self.columns[0].missing_text) if x.dtype == object else x
        return np.stack([self._values(column, batch[column.name]) for column in self.columns], axis=1)

    def frame(self, batch: Batch) -> Any:
        """The pandas data frame of shape (n, columns), each column of the type that the model was fitted with.

        Raises:
            InvalidInput: a text is not UTF-8.
        """
        import pandas as pd

        if self.matrix:
            return pd.DataFrame(self.array(batch), columns=self.names)
        return pd.DataFrame({column.name: self._series(column, batch[column.name]) for column in self.columns})

    def _series(self, column: Column, values: np.ndarray) -> Any:
        import pandas as pd

        values = self._values(column, values)
        if column.categories is None:
            return values
        return pd.Categorical(values, categories=list(column.categories))

    @staticmethod
    def _values(column: Column, values: np.ndarray) -> np.ndarray:
        flat = values.reshape(len(values))
        return texts_of(flat, column.missing_text, column.name) if flat.dtype == object else flat


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
    if column.datatype == "BYTES":
        text = "text" if column.example is None else column.example
        return np.array([text.encode() if isinstance(text, str) else text] * rows, dtype=object)
    return np.full(rows, 0 if column.example is None else column.example, DATATYPES[column.datatype])

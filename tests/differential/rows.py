"""A case's rows as requests carry them.

Reads rows as the library takes them and the metadata of the served model, hands on tensors and records of any of the
rows. Knows nothing of protocols: how tensors are written is for :mod:`differential.ways`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from inferd.types import DATATYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from differential.case import Rows

__all__ = ["Question", "Questions", "Sent", "datatype_of"]

_WHOLE = ["BOOL", *(f"{sign}INT{bits}" for bits in (8, 16, 32, 64) for sign in ("U", ""))]
# What the gateway widens, each value staying exact.
_WIDENED = {
    "FP64": {*_WHOLE, "FP16", "BF16", "FP32"},
    "FP32": {*_WHOLE, "FP16", "BF16"},
    "INT64": {"BOOL", "UINT8", "UINT16", "UINT32", "INT8", "INT16", "INT32"},
    "INT32": {"BOOL", "UINT8", "UINT16", "INT8", "INT16"},
    "INT16": {"BOOL", "UINT8", "INT8"},
    "UINT64": {"BOOL", "UINT8", "UINT16", "UINT32"},
    "UINT32": {"BOOL", "UINT8", "UINT16"},
    "UINT16": {"BOOL", "UINT8"},
    "INT8": {"BOOL"},
    "UINT8": {"BOOL"},
}


@dataclass(frozen=True)
class Sent:
    """One tensor. BYTES are arrays of ``bytes``, ``None`` where one is missing; BF16 is of ``ml_dtypes``."""

    name: str
    datatype: str
    array: np.ndarray

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> Sent:
        """An array of this process."""
        if array.dtype.kind not in "OSUT":
            return cls(name, datatype_of(array.dtype), array)
        texts = np.empty(array.shape, object)
        texts.reshape(-1)[:] = [one if isinstance(one, bytes) else str(one).encode() for one in array.reshape(-1)]
        return cls(name, "BYTES", texts)

    @property
    def typed(self) -> bool:
        """Whether its values have a form in bytes."""
        return self.datatype == "BYTES" or self.array.dtype != object


@dataclass(frozen=True)
class Question:
    """An input of the served model.

    Args:
        columns: names of a frame's columns that are the matrix.
        named: whether the model says these names, so that records and frames are taken by them.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    named: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the arrays in :class:`Sent`."""
        return np.dtype(ml_dtypes.bfloat16 if self.datatype == "BF16" else DATATYPES[self.datatype])


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name of a library's dtype."""
    if dtype.kind in "OSUT":
        return "BYTES"
    if dtype == ml_dtypes.bfloat16:
        return "BF16"
    return next(name for name, known in DATATYPES.items() if name != "BF16" and np.dtype(known) == dtype)


class Questions:
    """All rows of a case.

    Args:
        rows: as the library takes them.
        metadata: of the model, as ``GET /v2/models/NAME`` gives it.

    ``unsayable`` tells of each row whether it holds a value that the served types can't: such a row is refused.
    """

    def __init__(self, rows: Rows, metadata: Mapping[str, Any]) -> None:
        self.rows = rows
        self.is_frame = hasattr(rows, "columns")
        self.inputs = [self._question(tensor, len(metadata["inputs"])) for tensor in metadata["inputs"]]
        self.count = len(rows) if self.is_frame else len(next(iter(rows.values())))
        self._values = {question.name: self._values_of(question) for question in self.inputs}
        self._sent = {}
        self.unsayable = np.zeros(self.count, bool)
        for question in self.inputs:
            self._sent[question.name], lost = _cast(self._values[question.name], question)
            self.unsayable |= lost

    @property
    def by_position(self) -> bool:
        """Whether a frame's columns are taken in their order: those of the model have no names."""
        return self.is_frame and any(one.columns and not one.named for one in self.inputs)

    @property
    def lone(self) -> bool:
        """Whether a request is one row: dimension 0 of an input is 1, or counts no rows."""
        if self.is_frame:
            return False
        return any(len(one.shape) == self._values[one.name].ndim - 1 or one.shape[0] == 1 for one in self.inputs)

    def subset(self, index: Sequence[int]) -> Rows:
        """These rows as the library takes them."""
        if self.is_frame:
            return self.rows.iloc[list(index)]
        return {name: array[list(index)] for name, array in self.rows.items()}

    def tensors(self, index: Sequence[int], *, own: bool = False) -> list[Sent]:
        """These rows as tensors.

        Args:
            index: numbers of rows.
            own: in the types that the rows have, where the gateway widens those or must refuse them. What has no type
                (integers of which some are missing) is then an array of objects.
        """
        return [self._tensor(question, list(index), own=own) for question in self.inputs]

    def plain(self, index: Sequence[int]) -> Any:
        """These rows as anybody writes them in JSON: records of a table, values of other models."""
        values = {tensor.name: listed(tensor, bare=True) for tensor in self.tensors(index)}
        if len(index) == 1 and not self.lone:
            # One row is written without the dimension of rows.
            values = {name: rows[0] for name, rows in values.items()}
        if len(values) > 1:
            return values
        (only,) = values.values()
        columns = self.inputs[0].columns
        if not self.inputs[0].named:
            return only
        if len(index) == 1:
            return dict(zip(columns, only, strict=True))
        return [dict(zip(columns, row, strict=True)) for row in only]

    def shown(self, row: int) -> dict[str, Any]:
        """One row, for people."""
        if self.is_frame:
            return {str(name): value for name, value in self.rows.iloc[row].to_dict().items()}
        return {name: np.asarray(array[row]).tolist() for name, array in self.rows.items()}

    def _question(self, tensor: Mapping[str, Any], inputs: int) -> Question:
        told = tensor.get("parameters", {}).get("columns", ())
        columns = tuple(json.loads(told) if isinstance(told, str) else told)
        named = bool(columns)
        shape = tuple(int(dim) for dim in tensor["shape"])
        if self.is_frame and not columns and inputs == 1 and len(shape) == 2 and shape[1] == len(self.rows.columns):
            columns = tuple(map(str, self.rows.columns))
        return Question(tensor["name"], tensor["datatype"], shape, columns, named)

    def _values_of(self, question: Question) -> np.ndarray:
        """The rows' own values of an input, in their own type."""
        if not self.is_frame:
            return np.asarray(self.rows[question.name])
        by_name = {str(name): self.rows[name] for name in self.rows.columns}
        # A column may be called as the matrix is.
        if question.name in by_name and not question.columns:
            values = _column(by_name[question.name])
            return values.reshape(-1, 1) if len(question.shape) == 2 else values
        if len(question.shape) == 1 and len(by_name) == 1:
            return _column(next(iter(by_name.values())))
        columns = [_column(by_name[name]) for name in question.columns]
        dtypes = {column.dtype for column in columns}
        # Integers beside fractions have no type in common that holds both.
        return np.stack([column.astype(object) for column in columns], 1) if len(dtypes) > 1 else np.stack(columns, 1)

    def _tensor(self, question: Question, index: list[int], *, own: bool) -> Sent:
        name, datatype, array = question.name, question.datatype, self._sent[question.name][index]
        if own:
            values, lost = self._values[name][index], self.unsayable[index].any()
            if values.dtype == object:
                array = values if lost and datatype != "BYTES" else array
            elif lost or datatype_of(values.dtype) in _WIDENED.get(datatype, ()):
                datatype, array = datatype_of(values.dtype), values
        if len(question.shape) == array.ndim - 1:
            array = array[0]
        return Sent(name, datatype, array)


def listed(tensor: Sent, *, bare: bool = False) -> Any:
    """A tensor as nested lists of what JSON has.

    Args:
        tensor: of any type but BF16.
        bare: missing numbers are ``None``, as in plain JSON, rather than NaN.

    Raises:
        UnicodeDecodeError: it holds bytes that are no text.
    """
    if tensor.datatype == "BYTES":
        texts = np.empty(tensor.array.shape, object)
        texts.reshape(-1)[:] = [None if one is None else one.decode() for one in tensor.array.reshape(-1)]
        return texts.tolist()
    if bare and tensor.array.dtype.kind == "f":
        return np.where(np.isnan(tensor.array), None, tensor.array.astype(object)).tolist()
    return tensor.array.tolist()


def _column(series: Any) -> np.ndarray:
    """The values of a column of a frame; ``None`` and ``NA`` are NaN where numbers are missing."""
    import pandas as pd

    if isinstance(series.dtype, np.dtype) and series.dtype.kind in "biuf":
        return series.to_numpy()
    values = series.astype(object).to_numpy()
    missing = series.isna().to_numpy()
    known = values[~missing]
    if not missing.any() and len(known) and pd.api.types.is_bool_dtype(series.dtype):
        return values.astype(bool)
    kinds = {type(value) for value in known}
    if kinds and all(issubclass(kind, int | np.integer) for kind in kinds) and not missing.any():
        return values.astype(np.int64)
    return np.where(missing, None, values)


def _cast(values: np.ndarray, question: Question) -> tuple[np.ndarray, np.ndarray]:
    """The values in the served type, and the rows that have one which that type does not hold."""
    if question.datatype == "BYTES":
        array = np.empty(values.shape, object)
        array.reshape(-1)[:] = [_bytes(value) for value in values.reshape(-1)]
        return array, np.zeros(len(values), bool)
    if values.dtype != object:
        return _cast_numbers(values, question.dtype)
    if question.dtype.kind in "iub":
        # Zero stands where there is none: the row is not sent in this type.
        known = np.array([value is not None for value in values.reshape(-1)], bool).reshape(values.shape)
        array, lost = _cast_numbers(np.where(known, values, 0).astype(np.int64), question.dtype)
        return array, lost | _by_row(~known)
    floats = np.array([np.nan if value is None else value for value in values.reshape(-1)], object)
    array = floats.astype(question.dtype).reshape(values.shape)
    whole = [
        isinstance(value, int) and int(cast) != value for value, cast in zip(floats, array.reshape(-1), strict=True)
    ]
    return array, _by_row(np.array(whole, bool).reshape(values.shape))


def _cast_numbers(values: np.ndarray, dtype: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(invalid="ignore", over="ignore"):
        array = values.astype(dtype)
        if values.dtype.kind in "fV" and dtype.kind in "fV":
            # Fractions become the nearest, as in the client.
            return array, np.zeros(len(values), bool)
        # Its significand holds every integer of 64 bits.
        lost = values.astype(np.longdouble) != array.astype(np.longdouble)
    return array, _by_row(lost)


def _by_row(elements: np.ndarray) -> np.ndarray:
    return elements.reshape(len(elements), -1).any(axis=1)


def _bytes(value: Any) -> bytes | None:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        # As the client: categories that are integers are their decimal text to CatBoost.
        value = str(value)
    return value.encode() if isinstance(value, str) else bytes(value)

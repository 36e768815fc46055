"""Convert batches to a scikit-learn estimator's input: texts, an array, or a frame.

Reads what :mod:`inferd.runtimes.sklearn_columns` found in the estimator and its declared ``inputs:``, hands on the
table that clients send and each batch in the form that the estimator was fitted with. Worker side only. Knows nothing
of the estimator's outputs.

A frame is built only if an array would not do: columns differ in type, or a step selects them by name or is user code
that may. For everything else an array of numbers is equivalent and faster.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.errors import ModelFailed
from inferd.runtimes.tables import MATRIX, Column, Table, as_texts
from inferd.types import InputSchema, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from inferd.runtimes.base import Batch
    from inferd.runtimes.sklearn_columns import Features
    from inferd.runtimes.sklearn_features import Feature

__all__ = ["Rows", "rows_of"]

_LISTED = 10
_NO_TENSORS = {
    "DictVectorizer": "dictionaries",
    "FeatureHasher": "dictionaries or lists of any length",
    "MultiLabelBinarizer": "sets of labels",
}
"""Estimators whose input is not a table, and what it is."""


@dataclass(frozen=True)
class Rows:
    """The inputs of an estimator, and the conversion of a batch to its argument.

    Args:
        inputs: of the signature.
        table: their columns; ``None`` if they are no table (e.g. images), and are passed as they are.
        places: for each column of the table, its index among the estimator's features.
        width: number of features of the estimator.
        form: ``documents``: a list of texts or labels; ``array``; or ``frame``.
        labels: feature labels of the fitted frame.
        whole: whether a frame must include features that the estimator does not read.
    """

    inputs: tuple[TensorSpec, ...]
    table: Table | None
    places: tuple[int, ...] = ()
    width: int = 0
    form: str = "array"
    labels: tuple[Any, ...] = ()
    whole: bool = False

    @property
    def schemas(self) -> tuple[InputSchema, ...]:
        """Schemas for the gateway."""
        if self.table is None:
            return ()
        if self.table.matrix:
            (schema,) = self.table.schemas
            columns = schema.columns if self.inputs[0].shape[1] == len(self.table.columns) else ()
            return (replace(schema, input=self.inputs[0].name, columns=columns),)
        return self.table.schemas

    @property
    def ignored(self) -> tuple[str, ...]:
        """Features that the estimator does not read."""
        return () if self.table is None else self.table.ignored

    def given(self, batch: Batch) -> Any:
        """Convert a batch to the argument of the estimator's methods.

        Raises:
            InvalidInput: a value is invalid; names its row and column.
        """
        if self.table is None:
            (x,) = batch.values()
            return as_texts(x) if x.dtype == object else x
        if self.form == "frame":
            frame = self.table.frame(batch)
            return frame.reindex(columns=list(self.labels)) if self.whole else frame
        array = self.table.array(batch)
        if self.form == "documents":
            return array[:, 0]
        if len(self.places) == self.width:
            return array
        filled = np.zeros((len(array), self.width), array.dtype)
        filled[:, self.places] = array
        return filled

    def example(self, rows: int = 1) -> Batch:
        """Return plausible rows."""
        if self.table is None:
            (spec,) = self.inputs
            shape = [rows if index == 0 else max(1, dim) for index, dim in enumerate(spec.shape)]
            text = spec.datatype == "BYTES"
            return {spec.name: np.full(shape, b"text", object) if text else np.zeros(shape, _dtype(spec))}
        batch = self.table.example(rows)
        return {self.inputs[0].name: batch[MATRIX]} if self.table.matrix else batch

    def missing(self) -> Batch | None:
        """Return one row with every value missing; ``None`` if a column has no missing value."""
        if self.table is None or not all(column.missing for column in self.table.columns):
            return None
        batch = self.example()
        if not all(array.dtype.kind in "fO" for array in batch.values()):
            return None
        return {name: np.full_like(array, None if array.dtype == object else np.nan) for name, array in batch.items()}

    def with_columns(self, columns: Sequence[Column]) -> Rows:
        """Return a copy with other columns at the same places."""
        if self.table is None:
            return self
        old = self.table
        labels = [self.labels[index] for index in self.places] if self.labels else None
        table = Table(columns, matrix=old.matrix, named=old.named, ignored=old.ignored, labels=labels)
        return replace(self, table=table)


def rows_of(estimator: Any, features: Features | None, declared: tuple[TensorSpec, ...] | None) -> Rows:
    """Derive the inputs of an estimator.

    Args:
        estimator: the estimator, for messages.
        features: its features; ``None``: their number is unknown.
        declared: ``inputs:`` of the settings, which take precedence.

    Raises:
        ModelFailed: the type of a column is neither known nor declared, or the declaration contradicts the estimator.
    """
    if declared:
        return _declared(features, declared)
    if features is None:
        raise ModelFailed(_unknown_inputs(estimator))
    used = [index for index, feature in enumerate(features.features) if feature.used]
    columns = _known(features, used)
    matrix = not features.documents and _is_matrix(columns)
    if matrix and not features.named:
        # Frames are matched by position, so unused features keep their places.
        used = list(range(len(features.features)))
        columns = [feature.column or Column(feature.name, columns[0].datatype) for feature in features.features]
    return _with_features(features, used, columns, matrix=matrix)


def _unknown_inputs(estimator: Any) -> str:
    """Return why an estimator's inputs are unknown."""
    from inferd.runtimes.sklearn_columns import first_step

    kind = type(first_step(estimator)).__name__
    if kind in _NO_TENSORS:
        return (
            f"{kind} takes {_NO_TENSORS[kind]}, which are not tensors\n"
            "help: fit the model on columns, or serve it from a Python model that converts them"
        )
    return (
        f"{kind} does not store its number of features\n"
        f"help: set inputs: in model.yaml, for instance\n{_yaml([TensorSpec(MATRIX, 'FP64', (-1, 30))])}"
    )


def _known(features: Features, used: list[int]) -> list[Column]:
    """Return the columns at the places ``used``; fails with the lines that declare unknown ones."""
    found = [features.features[index] for index in used]
    unknown = [feature for feature in found if feature.column is None]
    if not unknown:
        return [feature.column for feature in found if feature.column is not None]
    unsupported = [f"'{feature.name}' ({feature.unsupported})" for feature in unknown if feature.unsupported]
    if unsupported:
        raise ModelFailed(
            f"columns of types without a datatype in the protocol: {', '.join(unsupported[:_LISTED])}\n"
            "help: fit the model on texts or numbers; for a booster with pandas categories, serve its own file"
        )
    names = ", ".join(f"'{feature.name}'" for feature in unknown[:_LISTED])
    more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
    readers = ", ".join(sorted({reader for feature in unknown for reader in feature.reads}))
    types, they = ("types of columns", "they only go") if len(unknown) > 1 else ("type of column", "it only goes")
    raise ModelFailed(
        f"unknown {types} {names}{more}: {they} to {readers}\n"
        "help: add these lines to model.yaml, with the right datatype where noted\n" + _lines(features, found)
    )


def _lines(features: Features, found: list[Feature]) -> str:
    if not features.named and all(feature.column is None for feature in found):
        # Fitted on an array, which has one dtype.
        return _yaml([TensorSpec(MATRIX, "FP64", (-1, len(features.features)))], {MATRIX})
    specs = [TensorSpec(one.name, one.column.datatype if one.column else "FP64", (-1,)) for one in found]
    return _yaml(specs, {one.name for one in found if one.column is None})


def _yaml(specs: Iterable[TensorSpec], unknown: Iterable[str] = ()) -> str:
    lines = ["inputs:"]
    for spec in specs:
        name = json.dumps(spec.name, ensure_ascii=False)
        line = f"  - {{name: {name}, datatype: {spec.datatype}, shape: {list(spec.shape)}}}"
        hint = "  # BYTES for text, INT64 for integers, BOOL for true and false"
        lines.append(line + hint if spec.name in unknown else line)
    return "\n".join(lines)


def _is_matrix(columns: Sequence[Column]) -> bool:
    datatypes = {column.datatype for column in columns}
    return len(datatypes) == 1 and not datatypes & {"BYTES", "BOOL"}


def _with_features(features: Features, used: list[int], columns: list[Column], *, matrix: bool) -> Rows:
    names = {features.features[index].name for index in used}
    ignored = [feature.name for feature in features.features if feature.name not in names]
    form = "documents" if features.documents else "array"
    if features.labels is not None and (not matrix or features.by_name or any(column.objects for column in columns)):
        form = "frame"
    labels = tuple(features.labels or ())
    table = Table(
        columns,
        matrix=matrix,
        named=features.named,
        ignored=ignored,
        labels=[labels[index] for index in used] if labels else None,
    )
    return Rows(table.inputs, table, tuple(used), len(features.features), form, labels)


def _declared(features: Features | None, declared: tuple[TensorSpec, ...]) -> Rows:
    single = declared[0] if len(declared) == 1 else None
    if single is not None and len(single.shape) == 2:
        return _declared_matrix(features, single)
    if any(len(spec.shape) != 1 for spec in declared):
        if single is None:
            raise ModelFailed("several inputs are declared, not each of one column\nhelp: give each the shape [-1]")
        return Rows(declared, None)
    by_name = {} if features is None else {one.name: (index, one) for index, one in enumerate(features.features)}
    if features is None or features.documents:
        if single is None:
            raise ModelFailed("the model takes one array of texts or labels\nhelp: declare one input of shape [-1]")
        column = _column_of(single, next(iter(by_name.values()), (0, None))[1])
        return Rows(declared, Table([column], matrix=False), (0,), 1, "documents")
    unknown = [spec.name for spec in declared if spec.name not in by_name]
    if unknown and len(declared) != len(by_name):
        raise ModelFailed(
            f"unknown columns in inputs: {', '.join(map(repr, unknown))}; the model has {', '.join(by_name)}\n"
            "help: declare its columns by their names"
        )
    # All columns under other names: matched in the model's order.
    taken = list(enumerate(features.features)) if unknown else [by_name[spec.name] for spec in declared]
    order = sorted(range(len(declared)), key=lambda index: taken[index][0])
    columns = [_column_of(declared[index], taken[index][1]) for index in order]
    rows = _with_features(features, [taken[index][0] for index in order], columns, matrix=False)
    return replace(rows, inputs=declared, form="array" if features.labels is None else "frame")


def _declared_matrix(features: Features | None, spec: TensorSpec) -> Rows:
    width = spec.shape[1]
    if width < 0:
        width = 0 if features is None else len(features.features)
    if width < 1:
        raise ModelFailed(f"input '{spec}' is declared, but the model's number of columns is unknown")
    if features is None or len(features.features) != width:
        columns = [Column(f"x{index}", spec.datatype) for index in range(width)]
        table = Table(columns, matrix=True, named=False)
        return Rows((spec,), table, tuple(range(width)), width)
    columns = [_column_of(replace(spec, name=one.name), one) for one in features.features]
    rows = _with_features(features, list(range(width)), columns, matrix=True)
    return replace(rows, inputs=(spec,))


def _column_of(spec: TensorSpec, feature: Feature | None) -> Column:
    found = None if feature is None else feature.column
    if found is not None and found.datatype == spec.datatype:
        return replace(found, name=spec.name)
    none = feature is not None and feature.none
    return Column(spec.name, spec.datatype, missing_text=None if none else float("nan"))


def _dtype(spec: TensorSpec) -> str:
    from inferd.types import DATATYPES

    return DATATYPES[spec.datatype]

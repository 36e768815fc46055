"""How rows get into a scikit-learn estimator: as texts, as an array, or as a frame.

Reads what :mod:`inferd.runtimes.sklearn_columns` found in the estimator and what ``inputs:`` of its settings declare,
hands on the table that clients send and each batch in the form that the estimator was fitted with. Worker side only.
Does not know what the estimator answers.

A frame is only made where an array would not do as well: columns differ in type, or a step chooses them by name or is
code that may. To everything else an array of numbers says the same in less time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from inferd.errors import ModelFailed
from inferd.runtimes.tables import MATRIX, Column, Table, decode_texts
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
"""Estimators whose input is no table, and what it is."""


@dataclass(frozen=True)
class Rows:
    """The inputs of an estimator, and how a batch of them is handed to it.

    Args:
        inputs: those of the signature.
        table: their columns; ``None`` where they are no table (images, say), which are handed on as they come.
        places: of each column of the table, its place among the features of the estimator.
        width: how many features the estimator has.
        form: ``documents``: a list of texts or labels; ``array``; or ``frame``.
        labels: what the features are called in the fitted frame.
        whole: whether a frame must have the features that the estimator does not read, too.
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
        """What the gateway holds requests to."""
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
        """What the estimator's methods take.

        Raises:
            InvalidInput: a value can't be what the estimator takes; it names the row and the column.
        """
        if self.table is None:
            (x,) = batch.values()
            return decode_texts(x) if x.dtype == object else x
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
        """Plausible rows."""
        if self.table is None:
            (spec,) = self.inputs
            shape = [rows if place == 0 else max(1, dim) for place, dim in enumerate(spec.shape)]
            text = spec.datatype == "BYTES"
            return {spec.name: np.full(shape, b"text", object) if text else np.zeros(shape, _dtype(spec))}
        batch = self.table.example(rows)
        return {self.inputs[0].name: batch[MATRIX]} if self.table.matrix else batch

    def missing(self) -> Batch | None:
        """One row in which everything is missing; ``None`` where a column can't be."""
        if self.table is None or not all(column.missing for column in self.table.columns):
            return None
        batch = self.example()
        if not all(array.dtype.kind in "fO" for array in batch.values()):
            return None
        return {name: np.full_like(array, None if array.dtype == object else np.nan) for name, array in batch.items()}

    def with_columns(self, columns: Sequence[Column]) -> Rows:
        """The same with other columns at the same places."""
        if self.table is None:
            return self
        old = self.table
        labels = [self.labels[place] for place in self.places] if self.labels else None
        table = Table(columns, matrix=old.matrix, named=old.named, ignored=old.ignored, labels=labels)
        return replace(self, table=table)


def rows_of(estimator: Any, features: Features | None, declared: tuple[TensorSpec, ...] | None) -> Rows:
    """How rows get into an estimator.

    Args:
        estimator: the estimator, for messages.
        features: what was found in it; ``None``: it does not say how many features it takes.
        declared: ``inputs:`` of its settings, which stand above what was found.

    Raises:
        ModelFailed: the type of a column can't be read from the estimator and is not declared, or what is declared
            can't be what it takes.
    """
    if declared:
        return _declared(features, declared)
    if features is None:
        raise ModelFailed(_why_unknown(estimator))
    used = [place for place, feature in enumerate(features.features) if feature.used]
    columns = _known(features, used)
    matrix = not features.documents and _is_matrix(columns)
    if matrix and not features.named:
        # Frames of clients are taken by position, so that what is dropped has its place, too.
        used = list(range(len(features.features)))
        columns = [feature.column or Column(feature.name, columns[0].datatype) for feature in features.features]
    return _laid_out(features, used, columns, matrix=matrix)


def _why_unknown(estimator: Any) -> str:
    """Why it can't be told what an estimator takes."""
    from inferd.runtimes.sklearn_columns import first_step

    kind = type(first_step(estimator)).__name__
    if kind in _NO_TENSORS:
        return (
            f"{kind} takes {_NO_TENSORS[kind]}, which no tensor holds\n"
            "help: fit the model on columns, or serve it from a model in Python that makes them"
        )
    return (
        f"{kind} does not say how many features it takes\n"
        f"help: write inputs: in model.yaml, for instance\n{_yaml([TensorSpec(MATRIX, 'FP64', (-1, 30))])}"
    )


def _known(features: Features, used: list[int]) -> list[Column]:
    """The columns at the places ``used``, or an error with the lines that declare them."""
    found = [features.features[place] for place in used]
    unknown = [feature for feature in found if feature.column is None]
    if not unknown:
        return [feature.column for feature in found if feature.column is not None]
    aliens = [f"'{feature.name}' ({feature.alien})" for feature in unknown if feature.alien]
    if aliens:
        raise ModelFailed(
            f"columns hold what no type of the protocol does: {', '.join(aliens[:_LISTED])}\n"
            "help: fit the model on texts or numbers; of a booster with pandas categories, serve its own file"
        )
    names = ", ".join(f"'{feature.name}'" for feature in unknown[:_LISTED])
    more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
    readers = ", ".join(sorted({reader for feature in unknown for reader in feature.reads}))
    types, they = ("types of columns", "they only go") if len(unknown) > 1 else ("type of column", "it only goes")
    raise ModelFailed(
        f"the {types} {names}{more} can't be read from the model: {they} to {readers}\n"
        "help: write these lines into model.yaml, with the right datatype where it says so\n" + _lines(features, found)
    )


def _lines(features: Features, found: list[Feature]) -> str:
    if not features.named and all(feature.column is None for feature in found):
        # Fitted on an array, which has one type.
        return _yaml([TensorSpec(MATRIX, "FP64", (-1, len(features.features)))], {MATRIX})
    specs = [TensorSpec(one.name, one.column.datatype if one.column else "FP64", (-1,)) for one in found]
    return _yaml(specs, {one.name for one in found if one.column is None})


def _yaml(specs: Iterable[TensorSpec], unknown: Iterable[str] = ()) -> str:
    lines = ["inputs:"]
    for spec in specs:
        name = json.dumps(spec.name, ensure_ascii=False)
        line = f"  - {{name: {name}, datatype: {spec.datatype}, shape: {list(spec.shape)}}}"
        hint = "  # BYTES where it is text, INT64 where it is whole numbers, BOOL where it is true or false"
        lines.append(line + hint if spec.name in unknown else line)
    return "\n".join(lines)


def _is_matrix(columns: Sequence[Column]) -> bool:
    datatypes = {column.datatype for column in columns}
    return len(datatypes) == 1 and not datatypes & {"BYTES", "BOOL"}


def _laid_out(features: Features, used: list[int], columns: list[Column], *, matrix: bool) -> Rows:
    names = {features.features[place].name for place in used}
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
        labels=[labels[place] for place in used] if labels else None,
    )
    return Rows(table.inputs, table, tuple(used), len(features.features), form, labels)


def _declared(features: Features | None, declared: tuple[TensorSpec, ...]) -> Rows:
    lone = declared[0] if len(declared) == 1 else None
    if lone is not None and len(lone.shape) == 2:
        return _declared_matrix(features, lone)
    if any(len(spec.shape) != 1 for spec in declared):
        if lone is None:
            raise ModelFailed("several inputs are declared, and not each is one column\nhelp: give each the shape [-1]")
        return Rows(declared, None)
    by_name = {} if features is None else {one.name: (place, one) for place, one in enumerate(features.features)}
    if features is None or features.documents:
        if lone is None:
            raise ModelFailed("the model takes one array of texts or labels\nhelp: declare one input of the shape [-1]")
        column = _column_of(lone, next(iter(by_name.values()), (0, None))[1])
        return Rows(declared, Table([column], matrix=False), (0,), 1, "documents")
    strangers = [spec.name for spec in declared if spec.name not in by_name]
    if strangers and len(declared) != len(by_name):
        raise ModelFailed(
            f"inputs: declares {', '.join(map(repr, strangers))}, and the model has the columns {', '.join(by_name)}\n"
            "help: declare its columns by their names"
        )
    # Names of the operator's own are taken in the model's order.
    taken = list(enumerate(features.features)) if strangers else [by_name[spec.name] for spec in declared]
    order = sorted(range(len(declared)), key=lambda index: taken[index][0])
    columns = [_column_of(declared[index], taken[index][1]) for index in order]
    rows = _laid_out(features, [taken[index][0] for index in order], columns, matrix=False)
    return replace(rows, inputs=declared, form="array" if features.labels is None else "frame")


def _declared_matrix(features: Features | None, spec: TensorSpec) -> Rows:
    width = spec.shape[1]
    if width < 0:
        width = 0 if features is None else len(features.features)
    if width < 1:
        raise ModelFailed(f"input '{spec}' is declared, and the model does not say how many columns it has")
    if features is None or len(features.features) != width:
        columns = [Column(f"x{place}", spec.datatype) for place in range(width)]
        table = Table(columns, matrix=True, named=False)
        return Rows((spec,), table, tuple(range(width)), width)
    columns = [_column_of(replace(spec, name=one.name), one) for one in features.features]
    rows = _laid_out(features, list(range(width)), columns, matrix=True)
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

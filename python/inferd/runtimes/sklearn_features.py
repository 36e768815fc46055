"""What is known of one feature of a scikit-learn estimator, and the column that this makes it.

Reads categories, imputed values and what else :mod:`inferd.runtimes.sklearn_columns` finds, hands on a column with its
type, or none where that can't be told. Worker side only: imports numpy.
Knows nothing of estimators.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inferd.runtimes.signatures import datatype_of
from inferd.runtimes.tables import Column

__all__ = ["EXAMPLES", "WORDS", "Feature", "column_of", "is_missing"]

EXAMPLES = 4
"""Plausible values of a column."""
WORDS = ("a text", "another one", "text", "the last of them")
_EXACT = 2**53
"""Integers up to here are FP64 numbers, each its own."""


@dataclass
class Feature:
    """One feature of the estimator, and what is known of it.

    Args:
        name: the fitted name, or scikit-learn's own for columns without one: ``x0``, ``x1``.
    """

    name: str
    column: Column | None = None
    """``None``: its type can't be read."""
    reads: list[str] = field(default_factory=list)
    """What takes it and says nothing of its type."""
    alien: str | None = None
    """What it holds, where the protocol has no type for that."""
    path: list[object] = field(default_factory=list)
    """What it goes through. Columns of equal paths are treated alike."""
    near: float | None = None
    """A value that a step was fitted with."""

    text: bool = False
    """Whether a step takes it as text."""
    words: tuple[str, ...] = WORDS
    """Texts that such a step was fitted with, or any."""
    categories: np.ndarray | None = None
    """Those that a step encodes."""
    filled: Any = None
    """What an imputer of objects fills in."""
    number: bool = False
    """Whether a step takes it as a number."""
    none: bool = False
    """Whether None is the missing value that a step was fitted with, rather than NaN."""

    @property
    def used(self) -> bool:
        """Whether any step takes it."""
        known = self.text or self.categories is not None or self.filled is not None or self.number
        return known or bool(self.reads or self.alien)


def is_missing(value: object) -> bool:
    """Whether ``value`` stands for a missing one in scikit-learn: None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def column_of(feature: Feature) -> Column | None:
    """The column that ``feature`` is; ``None`` where its type can't be told. Sets ``alien`` where none would do."""
    missing_text = None if feature.none else float("nan")
    if feature.alien:
        return None
    if feature.text:
        return Column(feature.name, "BYTES", missing_text=missing_text, example=feature.words)
    if feature.categories is not None:
        return _of_categories(feature, feature.categories, missing_text)
    if feature.filled is not None:
        if isinstance(feature.filled, str):
            return Column(feature.name, "BYTES", missing_text=missing_text, example=feature.filled)
        if isinstance(feature.filled, numbers.Real):
            # Numbers beside text: objects, as they were fitted.
            return Column(feature.name, missing_text=missing_text, objects=True, example=float(feature.filled))
    return Column(feature.name) if feature.number else None


def _of_categories(feature: Feature, categories: np.ndarray, missing_text: float | None) -> Column | None:
    known = [value for value in categories.tolist() if not is_missing(value)]
    kinds = {type(value) for value in known}
    examples = tuple(known[:EXAMPLES]) or None
    if kinds <= {str} and categories.dtype.kind in "OU":
        return Column(feature.name, "BYTES", missing_text=missing_text, example=examples)
    objects = categories.dtype == object
    if not objects and categories.dtype.kind == "b":
        return Column(feature.name, "BOOL", example=examples)
    if not objects and categories.dtype.kind == "f":
        return Column(feature.name, datatype_of(categories.dtype), example=examples)
    if kinds <= {bool, int, float} and categories.dtype.kind in "Oiu":
        datatype = "FP64"
        if float not in kinds and max(abs(value) for value in known) > _EXACT:
            datatype = "UINT64" if max(known) > np.iinfo(np.int64).max else "INT64"
        return Column(feature.name, datatype, missing_text=missing_text, objects=objects, example=examples)
    feature.alien = " and ".join(sorted(kind.__name__ for kind in kinds))
    return None

"""Derive a column from what is known about one feature of a scikit-learn estimator.

Reads categories, imputed values and other findings of :mod:`inferd.runtimes.sklearn_columns`, hands on a column with
its type, or none if unknown. Worker side only: imports numpy. Knows nothing of estimators.
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
"""Number of plausible values per column."""
WORDS = ("a text", "another one", "text", "the last of them")
_EXACT = 2**53
"""FP64 represents every integer up to this."""


@dataclass
class Feature:
    """Findings about one feature of the estimator.

    Args:
        name: the fitted name, or scikit-learn's default for unnamed columns: ``x0``, ``x1``.
    """

    name: str
    column: Column | None = None
    """``None``: its type is unknown."""
    reads: list[str] = field(default_factory=list)
    """Steps that take it and reveal no type."""
    unsupported: str | None = None
    """Its type, if the protocol has no datatype for that."""
    path: list[object] = field(default_factory=list)
    """Steps that it passes through. Columns of equal paths behave alike."""
    near: float | None = None
    """A value that a step was fitted with."""

    text: bool = False
    """Whether a step takes it as text."""
    words: tuple[str, ...] = WORDS
    """Texts that such a step was fitted with, or defaults."""
    categories: np.ndarray | None = None
    """Categories that a step encodes."""
    filled: Any = None
    """Value that an imputer of objects fills in."""
    number: bool = False
    """Whether a step takes it as a number."""
    none: bool = False
    """Whether a step was fitted with None, not NaN, as the missing value."""

    @property
    def used(self) -> bool:
        """Whether any step reads it."""
        known = self.text or self.categories is not None or self.filled is not None or self.number
        return known or bool(self.reads or self.unsupported)


def is_missing(value: object) -> bool:
    """Whether scikit-learn treats ``value`` as missing: None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def column_of(feature: Feature) -> Column | None:
    """Return the column of ``feature``; ``None`` if its type is unknown. Sets ``unsupported`` if it has no datatype."""
    missing_text = None if feature.none else float("nan")
    if feature.unsupported:
        return None
    if feature.text:
        return Column(feature.name, "BYTES", missing_text=missing_text, example=feature.words)
    if feature.categories is not None:
        return _of_categories(feature, feature.categories, missing_text)
    if feature.filled is not None:
        if isinstance(feature.filled, str):
            return Column(feature.name, "BYTES", missing_text=missing_text, example=feature.filled)
        if isinstance(feature.filled, numbers.Real):
            # Numbers mixed with text: objects, as fitted.
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
    feature.unsupported = " and ".join(sorted(kind.__name__ for kind in kinds))
    return None

"""scikit-learn as people use it: every way to choose columns, every type of them, and every kind of answer."""

from __future__ import annotations

from differential.models import _sklearn_answers, _sklearn_columns  # noqa: F401 (they add cases)
from differential.models._sklearn import CASES

__all__ = ["CASES", "SLICE"]

SLICE = (
    "a matrix with names",
    "text and numbers in a column transformer",
    "integer ids above 2**53",
    "a pipeline over texts",
)

"""Find which missing values and large numbers a scikit-learn estimator accepts, by trying them.

Reads rows that the estimator accepts, hands on the same columns with their limits. Worker side only. Knows nothing of
the library's rules, which differ between estimators, versions and settings.

Columns that pass through equal steps behave alike, so one stands for all: the number of runs depends on the number of
kinds of columns, not of columns.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from inferd.types import DATATYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from inferd.runtimes.base import Batch
    from inferd.runtimes.tables import Column, Table

__all__ = ["with_limits"]

_KINDS_MAX = 32
"""Maximum number of kinds to try: at three to eight runs each, about a second for most models. For further kinds the
library's own error applies, which names no row."""
_FP64_MAX = float(np.finfo(np.float64).max)
# The greatest FP64 that rounds to a finite FP32.
_FP32_MAX = float(np.nextafter(float(np.finfo(np.float32).max) + 2.0**103, 0))
_ABOVE_FP32 = float(np.nextafter(_FP32_MAX, np.inf))


class _Limits(NamedTuple):
    missing: bool
    largest: float | None


def with_limits(
    table: Table, row: Batch, kinds: Sequence[Hashable], accepts: Callable[[Batch], bool]
) -> tuple[Column, ...]:
    """Return the columns of ``table`` with their limits.

    Args:
        table: the columns.
        row: one row that the estimator accepts.
        kinds: for each column, a key that columns of equal behaviour share.
        accepts: whether the estimator accepts a batch.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, kind in enumerate(kinds):
        groups.setdefault((kind, table.columns[index].datatype), []).append(index)
    trials = _Trials(table, row, accepts)
    everything = range(len(table.columns))
    # One run over all columns: most models accept or reject all of them.
    missing, infinite = trials.missing(everything), trials.infinite(everything)
    found: dict[int, _Limits] = {}
    for number, group in enumerate(groups.values()):
        if number >= _KINDS_MAX:
            limits = _Limits(missing=True, largest=None)
        else:
            limits = _Limits(
                missing or (trials.missing(group[:1]) and trials.missing(group)),
                None if infinite or trials.infinite(group[:1]) else trials.largest(group[0]),
            )
        found |= dict.fromkeys(group, limits)
    return tuple(
        replace(column, missing=found[index].missing, largest=found[index].largest)
        for index, column in enumerate(table.columns)
    )


class _Trials:
    """Tries one row with some columns changed."""

    def __init__(self, table: Table, row: Batch, accepts: Callable[[Batch], bool]) -> None:
        self._table = table
        self._row = row
        self._accepts = accepts

    def missing(self, indices: Sequence[int]) -> bool:
        """Whether the columns may be missing; True for types without a missing value."""
        return self._takes(indices, None)

    def infinite(self, indices: Sequence[int]) -> bool:
        """Whether the columns may be infinite, of either sign."""
        return self._takes(indices, np.inf) or self._takes(indices, -np.inf)

    def largest(self, index: int) -> float:
        """Return the greatest magnitude of a column that must be finite."""
        above = self._takes([index], _ABOVE_FP32) or self._takes([index], -_ABOVE_FP32)
        below = self._takes([index], _FP32_MAX) or self._takes([index], -_FP32_MAX)
        # If large numbers overflow inside the model, there is no limit to state.
        found = _FP32_MAX if below and not above else _FP64_MAX
        return min(found, float(np.finfo(DATATYPES[self._table.columns[index].datatype]).max))

    def _takes(self, indices: Sequence[int], value: float | None) -> bool:
        with np.errstate(all="ignore"):
            batch = self._changed(indices, value)
            return batch is None or self._accepts(batch)

    def _changed(self, indices: Sequence[int], value: float | None) -> Batch | None:
        """Return the row with ``value`` (``None``: missing) in these columns; ``None`` if none of them can hold it."""
        batch = {name: array.copy() for name, array in self._row.items()}
        changed = False
        for index in indices:
            column = self._table.columns[index]
            text = column.datatype == "BYTES"
            if (text and value is not None) or not (text or column.datatype.startswith("FP")):
                continue
            changed = True
            new = np.nan if value is None and not text else value
            if self._table.matrix:
                next(iter(batch.values()))[:, index] = new
            else:
                batch[column.name][:] = new
        return batch if changed else None

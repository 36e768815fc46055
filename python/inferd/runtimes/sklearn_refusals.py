"""What a scikit-learn estimator takes of missing values and large numbers: it is asked.

Reads rows that the estimator answers, hands on the same columns with what each of them takes. Worker side only.
Does not know the library's rules: they differ between estimators, versions and settings.

Columns that go through equal steps are treated alike, so one of them is asked for all: the number of runs depends on
how many kinds of columns there are, and not on how many columns.
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

__all__ = ["with_refusals"]

_KINDS_MAX = 32
"""Most kinds of columns that are asked for one by one: at three to eight runs each that is a second of most models.
Further ones are left to the library, whose message names no row."""
_FP64_MAX = float(np.finfo(np.float64).max)
# What rounds to the largest FP32 and not to infinity.
_FP32_MAX = float(np.nextafter(float(np.finfo(np.float32).max) + 2.0**103, 0))
_ABOVE_FP32 = float(np.nextafter(_FP32_MAX, np.inf))


class _Taken(NamedTuple):
    missing: bool
    largest: float | None


def with_refusals(
    table: Table, row: Batch, kinds: Sequence[Hashable], answers: Callable[[Batch], bool]
) -> tuple[Column, ...]:
    """The columns of ``table`` with what each takes.

    Args:
        table: the columns.
        row: one row that the estimator answers.
        kinds: of each column, what it has in common with those that are treated alike.
        answers: whether the estimator answers a batch.
    """
    groups: dict[Hashable, list[int]] = {}
    for place, kind in enumerate(kinds):
        groups.setdefault((kind, table.columns[place].datatype), []).append(place)
    asked = _Asked(table, row, answers)
    everything = range(len(table.columns))
    # Most models take all or refuse all, and a run over each group is saved.
    missing, infinite = asked.missing(everything), asked.infinite(everything)
    found: dict[int, _Taken] = {}
    for number, group in enumerate(groups.values()):
        if number >= _KINDS_MAX:
            taken = _Taken(missing=True, largest=None)
        else:
            taken = _Taken(
                missing or (asked.missing(group[:1]) and asked.missing(group)),
                None if infinite or asked.infinite(group[:1]) else asked.largest(group[0]),
            )
        found |= dict.fromkeys(group, taken)
    return tuple(
        replace(column, missing=found[place].missing, largest=found[place].largest)
        for place, column in enumerate(table.columns)
    )


class _Asked:
    """Asks about one row in which some columns are changed."""

    def __init__(self, table: Table, row: Batch, answers: Callable[[Batch], bool]) -> None:
        self._table = table
        self._row = row
        self._answers = answers

    def missing(self, places: Sequence[int]) -> bool:
        """Whether columns may be missing; of those whose type has no missing value, True."""
        return self._takes(places, None)

    def infinite(self, places: Sequence[int]) -> bool:
        """Whether columns may be infinite, of one sign at least."""
        return self._takes(places, np.inf) or self._takes(places, -np.inf)

    def largest(self, place: int) -> float:
        """The greatest magnitude of a column that may not be infinite."""
        above = self._takes([place], _ABOVE_FP32) or self._takes([place], -_ABOVE_FP32)
        below = self._takes([place], _FP32_MAX) or self._takes([place], -_FP32_MAX)
        # Where large numbers overflow on their way, the limit is none that could be told.
        found = _FP32_MAX if below and not above else _FP64_MAX
        return min(found, float(np.finfo(DATATYPES[self._table.columns[place].datatype]).max))

    def _takes(self, places: Sequence[int], value: float | None) -> bool:
        with np.errstate(all="ignore"):
            batch = self._changed(places, value)
            return batch is None or self._answers(batch)

    def _changed(self, places: Sequence[int], value: float | None) -> Batch | None:
        """The row with ``value`` in these columns, ``None`` for missing; ``None`` where no type has such a value."""
        batch = {name: array.copy() for name, array in self._row.items()}
        changed = False
        for place in places:
            column = self._table.columns[place]
            text = column.datatype == "BYTES"
            if (text and value is not None) or not (text or column.datatype.startswith("FP")):
                continue
            changed = True
            put = np.nan if value is None and not text else value
            if self._table.matrix:
                next(iter(batch.values()))[:, place] = put
            else:
                batch[column.name][:] = put
        return batch if changed else None

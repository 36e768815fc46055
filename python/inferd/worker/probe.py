"""Finds out whether a row's answer depends on the rows that run with it, by running rows alone and in company.

Reads a runtime and bounds, hands on how many rows were compared, or how rows change each other. It shows nothing of
rows that it did not run: a passed probe is no proof. Knows nothing of settings and channels.

Each row first runs alone twice, with all the others in between: what differs from itself can't be compared. Then rows
run in company: ordinary ones, an outlier among them in several places, all of them in both orders, equal ones, and as
many as a batch may have. What the model refuses alone is left out; an ordinary row must be right.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from inferd.worker.probe_compare import close, difference
from inferd.worker.probe_rows import Rows, recipes
from inferd.worker.tensors import checked_outputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from inferd.runtimes.base import Batch, Runtime
    from inferd.worker.probe_rows import Row

__all__ = ["Bounds", "Finding", "NotIndependent", "Undecided", "probe"]

SECONDS = 1.0
"""How long the probe takes past the first run, as far as it has a choice. Two rows run alone twice and together in
either order however long that takes."""
_ROWS_MOST = 128
_REFUSED_MOST = 4
_ELEMENTS_MOST = 1 << 22
"""Of the largest company: 32 MiB in FP64."""


class NotIndependent(Exception):
    """Why rows must not run together, in words for the operator."""


class Undecided(NotIndependent):
    """Why nothing is known of rows that run together."""


@dataclass(frozen=True)
class Bounds:
    """How far the probe goes.

    Args:
        rows_max: most rows of a batch.
        tolerance: ``absolute`` and ``relative`` difference that is rounding.
        samples: requests of the warm-up, whose rows are ordinary ones: plain values by input.
        once: whether the model has side effects: it runs five times and no more: two rows, one of them twice, and both
            together in either order.
        wild: whether an unknown integer is an exception at worst.
        seconds: see :data:`SECONDS`.
    """

    rows_max: int
    tolerance: Mapping[str, float]
    samples: Sequence[Mapping[str, Any]] = ()
    once: bool = False
    wild: bool = False
    seconds: float = SECONDS


class Finding(NamedTuple):
    """What was compared, without a difference."""

    rows: int
    companies: int
    short: str | None
    """Why there were not more; ``None`` where everything was run."""


def probe(runtime: Runtime, bounds: Bounds) -> Finding:
    """Run rows alone and in company.

    Raises:
        NotIndependent: a row changes in company or from run to run.
        Undecided: the rows show nothing.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # What a library thinks of made-up rows is no news to the operator.
        warnings.simplefilter("ignore")
        return _Probe(runtime, bounds).found()


class _Answered(NamedTuple):
    row: Row
    answer: list[np.ndarray]


class _Clock:
    """What runs take of the time that there is.

    A run that takes far longer than others of as many rows waited for the machine: it is charged as four of them, so
    that a busy machine does not make the probe see less. Past ten times its seconds the probe ends all the same.
    """

    def __init__(self, seconds: float) -> None:
        self.spent = 0.0
        self._seconds = seconds
        self._started = time.perf_counter()
        self._last = self._row = self._share = math.inf

    def start(self) -> None:
        """Begin to count: what was run so far is free."""
        self.spent, self._started = 0.0, time.perf_counter()

    @contextlib.contextmanager
    def run(self, rows: int) -> Iterator[None]:
        """Measure a run of so many rows."""
        began = time.perf_counter()
        yield
        self._last = time.perf_counter() - began
        self.spent += min(self._last, 4 * self._row * rows)
        self._share = min(self._share, self._last / rows)
        if rows == 1:
            self._row = min(self._row, self._last)
        if time.perf_counter() - self._started > 10 * self._seconds:
            self.spent = math.inf

    def last_is_long(self) -> bool:
        """Whether the last run of one row took far longer than the quickest."""
        return self._last > max(4 * self._row, self._row + 0.1)

    def has_time_for(self, rows: int) -> bool:
        """Whether a run of so many rows fits in, as far as runs so far tell."""
        return self.spent + self._share * rows < self._seconds


class _Probe:
    def __init__(self, runtime: Runtime, bounds: Bounds) -> None:
        self._runtime, self._bounds = runtime, bounds
        self._specs = runtime.signature.outputs
        self._clock = _Clock(bounds.seconds)
        self._row_elements = 1
        self._refused: list[Row] = []
        self._short: str | None = None

    def found(self) -> Finding:
        made, first = self._begin()
        rows = made.each()
        lone = [_Answered(next(rows), first)]
        self._row_elements = sum(array.size for array in lone[0].row.batch.values())
        # Loading ends in the first run of many a library: it is not counted.
        self._clock.start()
        self._run_alone(rows, lone)
        if len(lone) < 2:
            raise Undecided(
                "the model takes only one of the rows that were made up, so a probe shows nothing; give the class an"
                " example of several rows, or set batching: on if rows are independent"
            )
        self._repeat(lone)
        self._same_shapes(lone)
        companies = 0
        for company in self._companies(len(lone)):
            if companies >= 2 and not self._has_time_for(company):
                # A smaller one may fit.
                self._short = self._short or "the model is slow"
                continue
            self._together([lone[place] for place in company])
            companies += 1
        self._not_all_alike(lone)
        self._refused_in_company(lone)
        return Finding(len(lone), companies, self._short)

    def _begin(self) -> tuple[Rows, list[np.ndarray]]:
        """What makes rows of which the model takes an ordinary one, and the answer to that one."""
        fault: Exception = ValueError("the model has no inputs")
        for tried, recipe in enumerate(recipes(self._runtime)):
            if tried and self._bounds.once:
                break
            try:
                made = Rows(self._runtime, recipe, self._bounds.samples, wild=self._bounds.wild)
                return made, self._run(made.ordinary(), 1)
            except Exception as error:  # noqa: BLE001 (whatever a model raises, another row may do)
                fault = fault if tried else error
        raise fault

    def _run_alone(self, rows: Iterator[Row], lone: list[_Answered]) -> None:
        """Run each row alone, as far as there is time: a quarter of it, as the rest is for what comes after."""
        rung = None
        for row in rows:
            if len(lone) > 1 and self._bounds.once:
                self._short = "it runs five times only, as retry_on_worker_loss is false"
                return
            if len(lone) > 1 and self._clock.spent > self._bounds.seconds / 4:
                self._short = "the model is slow"
                return
            if rung is not None and row.rung >= rung:
                continue
            if self._bounds.once and row.rung and self._runtime.example is not None:
                # There is one run for a second row: it must be one that the model takes.
                continue
            try:
                lone.append(_Answered(row, self._alone(row)))
            except Exception:
                if self._bounds.once:
                    raise
                # What a model raises on what is out of its range is no fault.
                self._refused.append(row)
                continue
            if row.rung and not self._bounds.once and self._clock.last_is_long():
                # Once more: the machine may have been busy.
                self._alone(row)
                if self._clock.last_is_long():
                    # Its time grows with its numbers: it may wait as many seconds, or count so far.
                    rung = row.rung

    def _repeat(self, lone: Sequence[_Answered]) -> None:
        for place, one in enumerate(lone):
            if self._bounds.once and place:
                return
            if place > 1 and self._clock.spent > self._bounds.seconds / 2:
                self._short = self._short or "the model is slow"
                return
            again = self._alone(one.row)
            name = difference(self._specs, one.answer, again, self._bounds.tolerance)
            if name is not None:
                raise NotIndependent(f"output '{name}' differs from run to run for the same row")

    def _same_shapes(self, lone: Sequence[_Answered]) -> None:
        for index, spec in enumerate(self._specs):
            if len({one.answer[index].shape for one in lone}) > 1:
                raise NotIndependent(f"the shape of output '{spec.name}' depends on the data")

    def _not_all_alike(self, lone: Sequence[_Answered]) -> None:
        for index, spec in enumerate(self._specs):
            first = lone[0].answer[index]
            if not all(close(first, one.answer[index], spec, self._bounds.tolerance).all() for one in lone):
                return
        raise Undecided(
            "the model answers every made-up row alike, so a probe shows nothing; give the class an example, or set"
            " batching: on if rows are independent"
        )

    def _companies(self, count: int) -> Iterator[list[int]]:
        """Which rows run together, the most useful first. Rows 0 and 1 are ordinary and unlike."""
        most = min(self._bounds.rows_max, _ROWS_MOST)
        yield [0, 1]
        yield [1, 0]
        if self._bounds.once:
            return
        everything = list(range(count))
        for company in (everything, everything[::-1], [0, *everything[2:][:2]], [1, 0, 1, 0], [0, 0, 0]):
            yield company[:most]
        for place in everything[2:]:
            # One that is unlike the rest, before and behind it.
            yield [place, 0]
            yield [0, 1, place][:most]
        many = min(most, max(2, _ELEMENTS_MOST // max(1, self._row_elements)))
        yield [place % count for place in range(many)]
        # Mostly ordinary rows, one stranger in the middle: bounds that are taken from a batch hide it elsewhere.
        yield [1 if place == many // 2 else 0 for place in range(many)]

    def _has_time_for(self, company: Sequence[int]) -> bool:
        return self._clock.has_time_for(len(company))

    def _together(self, company: Sequence[_Answered]) -> None:
        first = company[0].row.batch
        batch = {name: np.concatenate([one.row.batch[name] for one in company]) for name in first}
        try:
            answers = self._run(batch, len(company))
        except Exception as fault:
            fewer = "; where it takes fewer, set batch_rows_max" if len(company) > 2 else ""
            raise NotIndependent(
                f"the model raises {type(fault).__name__} where {len(company)} rows run together that it answers alone"
                f" ({_described(company, 0)}){fewer}"
            ) from fault
        for place, one in enumerate(company):
            mine = [answer[place : place + 1] for answer in answers]
            name = difference(self._specs, one.answer, mine, self._bounds.tolerance)
            if name is not None:
                raise NotIndependent(
                    f"output '{name}' of a row changes when other rows run with it ({_described(company, place)})"
                )

    def _refused_in_company(self, lone: Sequence[_Answered]) -> None:
        """Where the model answers a row in company that it refuses alone, it fills in what it takes from others."""
        for row in self._refused[:_REFUSED_MOST]:
            if not self._has_time_for([0, 0, 0]):
                return
            rows = (lone[0].row, row, lone[1].row)
            batch = {name: np.concatenate([one.batch[name] for one in rows]) for name in row.batch}
            try:
                self._run(batch, len(rows))
            except Exception:  # noqa: BLE001, S112 (it refuses the row in company, too)
                continue
            raise NotIndependent(f"a row that the model refuses alone ('{row.kind}') gets an answer in company")

    def _alone(self, row: Row) -> list[np.ndarray]:
        return self._run(row.batch, 1)

    def _run(self, batch: Batch, rows: int) -> list[np.ndarray]:
        # A copy: a model may write into what it is given.
        given = {name: array.copy() for name, array in batch.items()}
        with self._clock.run(rows):
            outputs = self._runtime.predict(given)
        return [array.copy() for array in checked_outputs(outputs, self._runtime.signature, rows)]


def _described(company: Sequence[_Answered], place: int) -> str:
    mine = company[place].row.kind
    others = sorted({one.row.kind for other, one in enumerate(company) if other != place})
    if len(company) == 2:
        return f"a row of the kind '{mine}' beside one of the kind '{others[0]}'"
    kinds = "', '".join(others[:2]) + ("' and others" if len(others) > 2 else "'")
    return f"a row of the kind '{mine}' beside {len(company) - 1} of the kinds '{kinds}"

"""Probe whether a row's outputs depend on the other rows of its batch, by running rows alone and in batches.

Reads a runtime and bounds, hands on the number of rows compared, or how rows influence each other. A passed probe is no
proof: it covers only the rows that it ran. Knows nothing of settings and channels.

Each row first runs alone twice, with all others in between: a row that differs from itself can't be compared. Then rows
run in batches: ordinary ones, with an outlier in several positions, all of them in both orders, equal ones, and a full
batch. Rows that the model rejects alone are skipped; an ordinary row must be accepted.
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
from inferd.worker.probe_rows import RowGenerator, recipes
from inferd.worker.tensors import checked_outputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from inferd.runtimes.base import Batch, Runtime
    from inferd.worker.probe_rows import Row

__all__ = ["Bounds", "Finding", "NotIndependent", "Undecided", "probe"]

SECONDS = 1.0
"""Time budget in seconds after the first run. Exceeded if need be by the minimum: two rows, each run alone twice and
together in both orders."""
_ROWS_MAX = 128
_REJECTED_MAX = 4
_ELEMENTS_MAX = 1 << 22
"""Maximum elements of the largest batch: 32 MiB in FP64."""


class NotIndependent(Exception):
    """Rows must not be batched; the message gives operators the reason."""


class Undecided(NotIndependent):
    """The probe could not tell whether rows are independent."""


@dataclass(frozen=True)
class Bounds:
    """Limits of the probe.

    Args:
        rows_max: maximum rows per batch.
        tolerance: ``absolute`` and ``relative`` difference that counts as rounding.
        samples: warm-up requests, whose rows are ordinary: plain values by input.
        once: whether the model has side effects: limits the probe to five runs, of two rows, one of them twice, and
            both together in both orders.
        unbounded: whether integers beyond a vocabulary raise an exception at worst.
        seconds: see :data:`SECONDS`.
    """

    rows_max: int
    tolerance: Mapping[str, float]
    samples: Sequence[Mapping[str, Any]] = ()
    once: bool = False
    unbounded: bool = False
    seconds: float = SECONDS


class Finding(NamedTuple):
    """The extent of a probe that found no difference."""

    rows: int
    batches: int
    incomplete: str | None
    """Why the probe was cut short; ``None`` if it was not."""


def probe(runtime: Runtime, bounds: Bounds) -> Finding:
    """Run rows alone and in batches.

    Raises:
        NotIndependent: outputs of a row change in a batch or from run to run.
        Undecided: the rows are inconclusive.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Library warnings about generated rows do not concern the operator.
        warnings.simplefilter("ignore")
        return _Probe(runtime, bounds).found()


class _Result(NamedTuple):
    row: Row
    outputs: list[np.ndarray]


class _Clock:
    """The probe's time budget.

    A run that takes four times as long as others of as many rows was delayed by the machine: it is charged as four of
    them, so that a busy machine does not reduce coverage. The probe ends after ten times its budget in any case.
    """

    def __init__(self, seconds: float) -> None:
        self.spent = 0.0
        self._seconds = seconds
        self._started = time.perf_counter()
        self._last = self._row = self._share = math.inf

    def start(self) -> None:
        """Start counting: earlier runs are free."""
        self.spent, self._started = 0.0, time.perf_counter()

    @contextlib.contextmanager
    def run(self, rows: int) -> Iterator[None]:
        """Measure a run of ``rows`` rows."""
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
        """Whether the last run of one row took much longer than the fastest."""
        return self._last > max(4 * self._row, self._row + 0.1)

    def has_time_for(self, rows: int) -> bool:
        """Whether a run of ``rows`` rows fits in the budget, by the measured time per row."""
        return self.spent + self._share * rows < self._seconds


class _Probe:
    def __init__(self, runtime: Runtime, bounds: Bounds) -> None:
        self._runtime, self._bounds = runtime, bounds
        self._specs = runtime.signature.outputs
        self._clock = _Clock(bounds.seconds)
        self._row_elements = 1
        self._rejected: list[Row] = []
        self._incomplete: str | None = None

    def found(self) -> Finding:
        generator, first = self._first_row()
        rows = generator.each()
        results = [_Result(next(rows), first)]
        self._row_elements = sum(array.size for array in results[0].row.batch.values())
        # Not counted: in many libraries the first run completes loading.
        self._clock.start()
        self._run_alone(rows, results)
        if len(results) < 2:
            raise Undecided(
                "the model takes only one of the generated rows, so a probe shows nothing; give the class"
                " an example of several rows, or set batching: on if rows are independent"
            )
        self._check_repeatable(results)
        self._check_shapes(results)
        batches = 0
        for members in self._batches(len(results)):
            if batches >= 2 and not self._has_time_for(members):
                # A smaller batch may fit.
                self._incomplete = self._incomplete or "the model is slow"
                continue
            self._check_batch([results[index] for index in members])
            batches += 1
        self._check_outputs_vary(results)
        self._check_rejected(results)
        return Finding(len(results), batches, self._incomplete)

    def _first_row(self) -> tuple[RowGenerator, list[np.ndarray]]:
        """Return a generator whose ordinary row the model accepts, and the outputs of that row."""
        fault: Exception = ValueError("the model has no inputs")
        for tried, recipe in enumerate(recipes(self._runtime)):
            if tried and self._bounds.once:
                break
            try:
                rows = RowGenerator(self._runtime, recipe, self._bounds.samples, unbounded=self._bounds.unbounded)
                return rows, self._run(rows.ordinary(), 1)
            except Exception as error:  # noqa: BLE001 (a model may raise anything; the next recipe may work)
                fault = fault if tried else error
        raise fault

    def _run_alone(self, rows: Iterator[Row], results: list[_Result]) -> None:
        """Run each row alone, within a quarter of the budget: the rest is for the batches."""
        magnitude = None
        for row in rows:
            if len(results) > 1 and self._bounds.once:
                self._incomplete = "it runs five times only, as retry_on_worker_loss is false"
                return
            if len(results) > 1 and self._clock.spent > self._bounds.seconds / 4:
                self._incomplete = "the model is slow"
                return
            if magnitude is not None and row.magnitude >= magnitude:
                continue
            if self._bounds.once and row.magnitude and self._runtime.example is not None:
                # There is one run for a second row: use one that the model is likely to accept.
                continue
            try:
                results.append(_Result(row, self._alone(row)))
            except Exception:
                if self._bounds.once:
                    raise
                # The model may reject rows out of its range.
                self._rejected.append(row)
                continue
            if row.magnitude and not self._bounds.once and self._clock.last_is_long():
                # Measure again: the machine may have been busy.
                self._alone(row)
                if self._clock.last_is_long():
                    # Run time grows with the numbers, e.g. a count or a delay: skip larger ones.
                    magnitude = row.magnitude

    def _check_repeatable(self, results: Sequence[_Result]) -> None:
        for index, one in enumerate(results):
            if self._bounds.once and index:
                return
            if index > 1 and self._clock.spent > self._bounds.seconds / 2:
                self._incomplete = self._incomplete or "the model is slow"
                return
            again = self._alone(one.row)
            name = difference(self._specs, one.outputs, again, self._bounds.tolerance)
            if name is not None:
                raise NotIndependent(f"output '{name}' differs from run to run for the same row")

    def _check_shapes(self, results: Sequence[_Result]) -> None:
        for index, spec in enumerate(self._specs):
            if len({one.outputs[index].shape for one in results}) > 1:
                raise NotIndependent(f"the shape of output '{spec.name}' depends on the data")

    def _check_outputs_vary(self, results: Sequence[_Result]) -> None:
        for index, spec in enumerate(self._specs):
            first = results[0].outputs[index]
            if not all(close(first, one.outputs[index], spec, self._bounds.tolerance).all() for one in results):
                return
        raise Undecided(
            "the model answers every generated row alike, so a probe shows nothing; give the class an example, or"
            " set batching: on if rows are independent"
        )

    def _batches(self, count: int) -> Iterator[list[int]]:
        """Yield rows to batch, most useful first. Rows 0 and 1 are ordinary and differ."""
        limit = min(self._bounds.rows_max, _ROWS_MAX)
        yield [0, 1]
        yield [1, 0]
        if self._bounds.once:
            return
        everything = list(range(count))
        for members in (everything, everything[::-1], [0, *everything[2:][:2]], [1, 0, 1, 0], [0, 0, 0]):
            yield members[:limit]
        for index in everything[2:]:
            # An outlier before and after an ordinary row.
            yield [index, 0]
            yield [0, 1, index][:limit]
        many = min(limit, max(2, _ELEMENTS_MAX // max(1, self._row_elements)))
        yield [index % count for index in range(many)]
        # Ordinary rows around one outlier: statistics over a smaller batch may hide it.
        yield [1 if index == many // 2 else 0 for index in range(many)]

    def _has_time_for(self, members: Sequence[int]) -> bool:
        return self._clock.has_time_for(len(members))

    def _check_batch(self, members: Sequence[_Result]) -> None:
        first = members[0].row.batch
        batch = {name: np.concatenate([one.row.batch[name] for one in members]) for name in first}
        try:
            answers = self._run(batch, len(members))
        except Exception as fault:
            fewer = "; where it takes fewer, set batch_rows_max" if len(members) > 2 else ""
            raise NotIndependent(
                f"the model raises {type(fault).__name__} where {len(members)} rows run together that it answers alone"
                f" ({_describe(members, 0)}){fewer}"
            ) from fault
        for index, one in enumerate(members):
            mine = [answer[index : index + 1] for answer in answers]
            name = difference(self._specs, one.outputs, mine, self._bounds.tolerance)
            if name is not None:
                raise NotIndependent(
                    f"output '{name}' of a row changes when other rows run with it ({_describe(members, index)})"
                )

    def _check_rejected(self, results: Sequence[_Result]) -> None:
        """Fail if the model accepts a row in a batch that it rejects alone: it imputes from the other rows."""
        for row in self._rejected[:_REJECTED_MAX]:
            if not self._has_time_for([0, 0, 0]):
                return
            rows = (results[0].row, row, results[1].row)
            batch = {name: np.concatenate([one.batch[name] for one in rows]) for name in row.batch}
            try:
                self._run(batch, len(rows))
            except Exception:  # noqa: BLE001, S112 (rejected in the batch too)
                continue
            raise NotIndependent(f"a row that the model refuses alone ('{row.kind}') gets an answer in company")

    def _alone(self, row: Row) -> list[np.ndarray]:
        return self._run(row.batch, 1)

    def _run(self, batch: Batch, rows: int) -> list[np.ndarray]:
        # Copy: a model may write to its inputs.
        given = {name: array.copy() for name, array in batch.items()}
        with self._clock.run(rows):
            outputs = self._runtime.predict(given)
        return [array.copy() for array in checked_outputs(outputs, self._runtime.signature, rows)]


def _describe(members: Sequence[_Result], index: int) -> str:
    mine = members[index].row.kind
    others = sorted({one.row.kind for other, one in enumerate(members) if other != index})
    if len(members) == 2:
        return f"a row of the kind '{mine}' beside one of the kind '{others[0]}'"
    kinds = "', '".join(others[:2]) + ("' and others" if len(others) > 2 else "'")
    return f"a row of the kind '{mine}' beside {len(members) - 1} of the kinds '{kinds}"

"""A served model says what its library says in this process: every row, over every protocol, alone and batched."""

from __future__ import annotations

import itertools
import textwrap
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from differential.case import ROWS
from differential.compare import Difference, Library, differences
from differential.rows import Questions
from differential.ways import WAYS, Asker, Got, Reply, Way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from differential.case import Case
    from differential.conftest import Served
    from differential.suite import Entry

# Callers at once, and how often they may all be answered alone before that is no chance.
CALLERS, TRIES = 32, 10
# Rows that are asked alone over each of the slower ways.
SAMPLE = 10
SHOWN = 3


def test_a_served_model_answers_as_its_library(group: dict[str, Served], entry: Entry, seed: int) -> None:
    case, server, fault = group[entry.id]
    if case is None:
        raise fault
    if server is None:
        pytest.fail(f"{entry.id} (seed {seed}) can't be loaded: {fault}", pytrace=False)
    (info,) = [model for model in server.models if model.name == entry.id]
    metadata = httpx.get(f"{server.url}/v2/models/{entry.id}", verify=False).json()
    random = np.random.default_rng(seed)
    questions = Questions(case.rows, metadata)
    assert questions.count == ROWS, f"a case has {ROWS} rows"
    library = Library(case, questions, rowwise=info.signature.batched)
    with Asker(server, entry.id, questions, random) as asker:
        check = Check(case, questions, library, asker)
        check.every_row_alone()
        if info.signature.batched:
            check.rows_of_many_callers(lambda: _largest_batch(server.url, entry.id))
        check.some_rows_over(random)
        check.rows_together(random)
    if check.found:
        pytest.fail(check.report(entry, seed), pytrace=False)


def _largest_batch(url: str, model: str) -> int:
    (stats,) = httpx.get(f"{url}/v2/models/{model}/stats", verify=False).json()["model_stats"]
    return max((int(batch["batch_size"]) for batch in stats["batch_stats"]), default=0)


class Check:
    """Asks one model, and keeps every difference: ``found`` by the way in which it was asked."""

    def __init__(self, case: Case, questions: Questions, library: Library, asker: Asker) -> None:
        self._case = case
        self._questions = questions
        self._library = library
        self._asker = asker
        self.found: list[tuple[str, Difference]] = []

    @property
    def _sayable(self) -> list[int]:
        return [int(row) for row in np.flatnonzero(~self._questions.unsayable)]

    def every_row_alone(self) -> None:
        """Each row in a run of its own."""
        rows = self._sayable
        self._add("/v2 binary, each row alone", ([row] for row in rows), self._asker.rows(rows, 1))

    def rows_of_many_callers(self, largest_batch: Callable[[], int]) -> None:
        """Each row in a request of its own, many at once: they share runs, those that are refused too."""
        rows = self._sayable
        for _ in range(TRIES):
            self._add("/v2 binary, many callers", ([row] for row in rows), self._asker.rows(rows, CALLERS))
            if largest_batch() > 1:
                return
        raise AssertionError(f"{TRIES} times {CALLERS} callers at once, and no run had more than one row")

    def some_rows_over(self, random: np.random.Generator) -> None:
        """Some rows alone, over each way; among them some that are refused and some that the types don't hold."""
        unsayable = np.flatnonzero(self._questions.unsayable)
        refused = np.flatnonzero(self._library.refused & ~self._questions.unsayable)
        ordinary = np.setdiff1d(self._sayable, refused)
        for way in WAYS:
            kinds = [unsayable, refused, ordinary]
            for row in np.concatenate([random.permutation(kind)[:SAMPLE] for kind in kinds]):
                self._ask(way, [int(row)])
        for row in ordinary[:SAMPLE]:
            # Else the case's precision says more than its library does.
            alone = self._library.alone(int(row))
            reply = Reply({name: Got.of(array) for name, array in alone.items()})
            self._add("the library, asked alone", [[int(row)]], [reply])

    def rows_together(self, random: np.random.Generator) -> None:
        """Several rows in one request, over each way: those that are answered, and one that is not among them."""
        if self._questions.lone:
            return
        answered = np.flatnonzero(~self._library.refused & ~self._questions.unsayable)
        refused = np.flatnonzero(self._library.refused & ~self._questions.unsayable)
        for way in WAYS:
            rows = random.permutation(answered)
            cuts = np.cumsum([2, 7, 30, 64])
            for part in np.split(rows, cuts[cuts < len(rows)]):
                self._ask(way, [int(row) for row in part])
            for row in random.permutation(refused)[:2]:
                self._ask(way, [*map(int, rows[:3]), int(row), *map(int, rows[3:5])])
        if len(answered):
            index = [int(row) for row in answered]
            self._add("AsyncClient", [index], [self._asker.client_async(index)])

    def _ask(self, way: str, index: Sequence[int]) -> None:
        index = [row for row in index if self._can_be_asked(row, WAYS[way])]
        if index:
            reply = WAYS[way].ask(self._asker, index)
            self._add(f"{way}, several rows" if len(index) > 1 else way, [index], [reply])

    def _can_be_asked(self, row: int, way: Way) -> bool:
        """Whether a way can say the row, and what the library answers to it."""
        if self._questions.unsayable[row]:
            return way.own and all(map(way.says, self._questions.tensors([row], own=True)))
        answer = self._library.answer([row]) or {}
        tensors = self._questions.tensors([row], own=way.own)
        return all(map(way.says, tensors)) and all(map(way.gives, answer.values()))

    def _add(self, way: str, indices: Iterable[Sequence[int]], replies: Iterable[Reply]) -> None:
        for index, reply in zip(indices, replies, strict=True):
            lost = self._questions.unsayable[list(index)].any()
            expected = None if lost else self._library.answer(index)
            self.found += [(way, found) for found in differences(self._case, index, expected, reply)]

    def report(self, entry: Entry, seed: int) -> str:
        """Every way that differs, some rows of each with their values and both answers, and how to see it again."""
        lines = [f"{entry.id} (seed {seed}): {len(self.found)} answers differ from the library's"]
        by_way = itertools.groupby(sorted(self.found, key=lambda found: found[0]), key=lambda found: found[0])
        for way, group in by_way:
            found = [difference for _, difference in group]
            lines.append(f"{way}: {len(found)}")
            # Of whole requests once: names and types are the same in each.
            whole = {difference.what: difference for difference in found if difference.row is None}
            alone = [difference for difference in found if difference.row is not None]
            for difference in [*whole.values(), *alone[:SHOWN]]:
                where = "" if difference.row is None else f"row {difference.row}, "
                said = f"{_shown(difference.library)} by the library, {_shown(difference.served)} served"
                lines.append(f"  {where}{difference.what}: {said}")
                if difference.row is not None:
                    lines.append(f"    {self._questions.shown(difference.row)}")
        lines.append(f"replay: pytest tests/differential --seed {seed} -k {entry.id}")
        return "\n".join(lines)


def _shown(value: object) -> str:
    """Every digit of numbers, and not too many of them."""
    return textwrap.shorten(str(value.tolist() if isinstance(value, np.ndarray) else value), 400)

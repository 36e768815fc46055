"""What a library says of rows, and where a served model says something else.

Reads a case and replies, hands on differences in words. Knows nothing of servers.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from differential.rows import datatype_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from differential.case import Case
    from differential.rows import Questions
    from differential.ways import Got, Reply

__all__ = ["Difference", "Library", "differences"]


class Difference(NamedTuple):
    """One row (``None``: all that were asked) of which the served model says something else than the library."""

    row: int | None
    what: str
    library: Any
    served: Any


class Library:
    """What the library says of any rows of a case.

    Args:
        case: the model.
        questions: its rows.
        rowwise: whether rows are answered independently of each other, so that one run over all of them serves.
    """

    def __init__(self, case: Case, questions: Questions, *, rowwise: bool) -> None:
        self._case = case
        self._questions = questions
        self._rowwise = rowwise
        self.refused = np.zeros(questions.count, bool)
        if rowwise:
            self._refuse(list(range(questions.count)))
        else:
            for row in range(questions.count):
                self._refuse([row])
        self._known = np.flatnonzero(~self.refused)
        self._whole = self._run(self._known) if rowwise and len(self._known) else {}
        self._kept: dict[tuple[int, ...], dict[str, np.ndarray]] = {}

    def answer(self, index: Sequence[int]) -> dict[str, np.ndarray] | None:
        """Outputs by name for these rows; ``None``: the library refuses them."""
        if self.refused[list(index)].any():
            return None
        if self._rowwise:
            places = np.searchsorted(self._known, index)
            return {name: array[places] for name, array in self._whole.items()}
        key = tuple(index)
        if key not in self._kept:
            self._kept[key] = self._run(key)
        return self._kept[key]

    def alone(self, row: int) -> dict[str, np.ndarray]:
        """Outputs for a run over one row."""
        return self._run([row])

    def _run(self, index: Sequence[int]) -> dict[str, np.ndarray]:
        answer = self._case.answer(self._questions.subset(index))
        return {name: np.asarray(values) for name, values in answer.items()}

    def _refuse(self, index: list[int]) -> None:
        """Find the rows that are refused: halves of a part that is, until one row is left."""
        try:
            self._run(index)
        except self._case.refusals:
            if len(index) == 1:
                self.refused[index] = True
                return
            half = len(index) // 2
            self._refuse(index[:half])
            self._refuse(index[half:])


def differences(
    case: Case, index: Sequence[int], expected: Mapping[str, np.ndarray] | None, reply: Reply
) -> Iterator[Difference]:
    """Where ``reply`` to a request of the rows ``index`` is not what the library says.

    Args:
        case: the precision.
        index: the rows of the request.
        expected: the library's outputs; ``None``: it refuses the rows.
        reply: what the server said.
    """
    row = index[0] if len(index) == 1 else None
    if expected is None or reply.fault is not None or reply.refusal is not None:
        if expected is not None or reply.refusal is None:
            yield Difference(row, "answered or refused", "refuses it" if expected is None else expected, reply)
        return
    outputs = reply.outputs
    if set(outputs) == {""} and len(expected) == 1:
        outputs = {next(iter(expected)): outputs[""]}
    if set(outputs) != set(expected):
        yield Difference(row, "names of outputs", sorted(expected), sorted(outputs))
        return
    wrong: dict[str, np.ndarray] = {}
    for name, wanted in expected.items():
        found = outputs[name]
        if found.datatype not in (None, datatype_of(wanted.dtype)):
            yield Difference(None, f"type of '{name}'", datatype_of(wanted.dtype), found.datatype)
            return
        array = _values(found, wanted)
        if array.shape != wanted.shape:
            yield Difference(None, f"shape of '{name}'", wanted.shape, array.shape)
            return
        wrong[name] = ~_equal(array, wanted, case, plain=found.datatype is None)
    for name, elements in wrong.items():
        rows = np.flatnonzero(elements.reshape(len(elements), -1).any(axis=1)) if elements.ndim else []
        for place in rows:
            if name in case.outputs and _tied(expected[case.outputs[name]][place], case):
                continue
            served = _values(outputs[name], expected[name])[place]
            where = index[place] if len(elements) == len(index) else None
            yield Difference(where, f"'{name}'", expected[name][place], served)


def _values(found: Got, wanted: np.ndarray) -> np.ndarray:
    """The values of an output as the library's array would have them, where a way does not tell their type."""
    array = found.array
    if found.datatype is None and wanted.dtype.kind not in "OSUT":
        # One by one: together, integers of 64 bits and fractions would be rounded.
        array = np.empty(found.array.shape, wanted.dtype)
        array.reshape(-1)[:] = [np.nan if one is None else one for one in found.array.reshape(-1).tolist()]
    # A request without the dimension of rows has an answer without it, too.
    return array[None] if array.shape == wanted.shape[1:] and wanted.shape[:1] == (1,) else array


def _equal(array: np.ndarray, wanted: np.ndarray, case: Case, *, plain: bool) -> np.ndarray:
    """Elements that are equal within the library's precision.

    Plain JSON has one word for NaN and the infinities, and bytes that are no text are in base64.
    """
    if wanted.dtype.kind in "OSUT":
        pairs = zip(array.reshape(-1), wanted.reshape(-1), strict=True)
        return np.array([_bytes(one) == _bytes(other, plain=plain) for one, other in pairs]).reshape(wanted.shape)
    if wanted.dtype.kind in "iub":
        return array == wanted
    one, other = array.astype(np.longdouble), wanted.astype(np.longdouble)
    if plain:
        one, other = (np.where(np.isfinite(array), array, np.nan) for array in (one, other))
    with np.errstate(invalid="ignore"):
        near = np.abs(one - other) <= case.absolute + case.relative * np.abs(other)
    finite = np.isfinite(one) & np.isfinite(other)
    return (near & finite) | (one == other) | (np.isnan(one) & np.isnan(other))


def _bytes(value: Any, *, plain: bool = False) -> bytes:
    data = value if isinstance(value, bytes) else str(value).encode()
    try:
        data.decode()
    except UnicodeDecodeError:
        return base64.b64encode(data) if plain else data
    return data


def _tied(probabilities: np.ndarray, case: Case) -> bool:
    """Whether two classes are equally probable."""
    flat = np.sort(np.atleast_1d(probabilities).astype(float).reshape(-1))
    apart = abs(flat[0] - 0.5) * 2 if len(flat) == 1 else flat[-1] - flat[-2]
    return bool(apart <= case.absolute + case.relative)

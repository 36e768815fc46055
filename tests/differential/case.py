"""What a differential test needs of one model: the file, rows to ask it, and what its library says of them.

Each runtime has ``models/RUNTIME.py`` with ``CASES`` (a :data:`Maker` by name; names say what differs), ``SLICE`` (names
of those that run in every run of the tests) and, where its library is only there in ``make test-all``, ``HEAVY = True``.
To see one again: ``pytest tests/differential --seed N -k NAME``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    import pandas as pd

    Rows = pd.DataFrame | dict[str, np.ndarray]
    Maker = Callable[[Path, np.random.Generator], "Case"]
    """Fits one model into an empty folder; the same seed makes the same case."""

__all__ = ["ROWS", "Case"]

ROWS = 500
"""Rows of each case: ordinary ones, every kind of missing value, extremes."""


@dataclass(frozen=True)
class Case:
    """One fitted model and its questions.

    Args:
        path: what ``inferd serve`` is given.
        rows: for a model of tables a data frame of ``ROWS`` rows, its columns named and ordered as the library was
            fitted; for others arrays by input name, dimension 0 counting rows.
        answer: the outputs by the names that are served, for any subset of the rows in the form of ``rows``; computed
            by the library in this process. It raises where the library refuses them.
        refusals: what ``answer`` raises then. A row that the library refuses alone must be refused when served, with
            400; any other exception is a fault of the test.
        settings: keyword arguments of ``inferd.Server``.
        relative, absolute: the library's own precision: an FP64 library is held to some 1e-12 (sums in another order),
            an FP32 one to 1e-6. Labels and texts are always compared exactly.
        outputs: outputs that ``answer`` gives and that a test may leave out of the comparison where two classes are
            equally probable to within the precision: ``label`` by its ``probabilities``.
    """

    path: Path
    rows: Rows
    answer: Callable[[Rows], Mapping[str, Any]]
    refusals: tuple[type[BaseException], ...] = (ValueError,)
    settings: dict[str, Any] = field(default_factory=dict)
    relative: float = 1e-12
    absolute: float = 1e-12
    outputs: Mapping[str, str] = field(default_factory=dict)

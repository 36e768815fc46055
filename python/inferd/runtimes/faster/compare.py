"""How far the answers of two versions of a model are apart.

Reads the answers of both, hands on the tolerance that they need. Knows nothing of models and libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferd.runtimes.base import Batch
    from inferd.types import Signature, TensorSpec

    Margin = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    """Rows, the library's labels of them and other labels: by how much the library prefers its own, as a fraction of
    their score; infinite where that is not known."""

__all__ = ["PRECISION", "SMALL", "Comparison", "magnitude", "no_margin"]

PRECISION = {"FP64": 1e-10, "FP32": 1e-6, "FP16": 1e-3}
"""How far apart answers of a type may be, as a fraction of their value, where the settings do not say."""

SMALL = 1e-3
"""What is below this fraction of an output's usual magnitude is held to as much of that as what is just above it."""


class Comparison:
    """How far the answers to many batches are apart.

    Numbers are apart by a fraction of the library's; labels by as much as the library's own label is preferred.

    Args:
        signature: what both versions give.
        usual: the library's answers to ordinary rows, which tell the magnitude of each output.
        margin: how much labels differ.
    """

    def __init__(self, signature: Signature, usual: Batch, margin: Margin) -> None:
        self._outputs = signature.outputs
        self._small = {spec.name: SMALL * magnitude(usual[spec.name]) for spec in signature.outputs}
        self._margin = margin
        self.rows = 0
        self.apart = dict.fromkeys(self._small, 0.0)
        """For each output the greatest difference so far; infinite where no tolerance would do."""
        self.fault = ""
        """What no tolerance allows, in words; empty where there is no such thing."""

    def add(self, rows: np.ndarray, wanted: Batch, found: Batch) -> None:
        """Compare the answers to ``rows``: those of the library and the others."""
        self.rows += len(rows)
        for spec in self._outputs:
            one, other = np.asarray(wanted[spec.name]), np.asarray(found[spec.name])
            if one.shape != other.shape:
                apart = np.array([np.inf])
                self.note(f"'{spec.name}' has shape {list(other.shape)}, not {list(one.shape)}")
            elif one.dtype.kind == "f":
                apart = _apart(one, other, self._small[spec.name])
                apart[_overflowed(rows, one) & ~np.isfinite(other)] = 0
                self._note_numbers(spec, apart, one, other)
            else:
                apart = self._labels_apart(spec, rows, one, other)
            self.apart[spec.name] = max(self.apart[spec.name], float(np.max(apart, initial=0)))

    def needed(self, tolerance: float | None) -> float:
        """The least tolerance that allows all differences, where ``tolerance`` does not; else 0.

        Args:
            tolerance: ``None``: the precision of each output.
        """
        precisions = {spec.name: PRECISION.get(spec.datatype, PRECISION["FP64"]) for spec in self._outputs}
        allowed = precisions if tolerance is None else dict.fromkeys(precisions, tolerance)
        beyond = [apart for name, apart in self.apart.items() if apart > allowed[name]]
        return max(beyond, default=0.0)

    @property
    def worst(self) -> str:
        """The output whose answers are furthest apart."""
        return max(self.apart, key=lambda name: self.apart[name])

    def _labels_apart(self, spec: TensorSpec, rows: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        unlike = np.asarray(_as_texts(one) != _as_texts(other))
        if not unlike.any():
            return np.zeros(1)
        apart = np.array([np.inf])
        if one.ndim == 1:
            apart = self._margin(rows[unlike], one[unlike], other[unlike])
        if not np.isfinite(apart).all():
            self.note(f"'{spec.name}' differs in {np.count_nonzero(unlike)} of {one.size} places")
        return apart

    def _note_numbers(self, spec: TensorSpec, apart: np.ndarray, one: np.ndarray, other: np.ndarray) -> None:
        beyond = ~np.isfinite(apart)
        if beyond.any():
            first = np.unravel_index(np.argmax(beyond), beyond.shape)
            self.note(f"'{spec.name}' is {other[first]:g}, not {one[first]:g}, in a row")

    def note(self, fault: str) -> None:
        """Take up what no tolerance allows. The first such thing is told."""
        self.fault = self.fault or fault


def no_margin(*_: object) -> Margin:
    """For models whose labels, where they give any, are decided by nothing that can be asked for."""
    return lambda rows, *_: np.full(len(rows), np.inf)


def magnitude(values: Any) -> float:
    """The greatest finite magnitude; 0 of what are no numbers."""
    array = np.asarray(values)
    if array.dtype.kind != "f":
        return 0.0
    return float(np.max(np.abs(array[np.isfinite(array)]), initial=0))


def _apart(one: np.ndarray, other: np.ndarray, small: float) -> np.ndarray:
    """Differences as fractions of ``one``; 0 where both are the same number, infinite or NaN."""
    with np.errstate(all="ignore"):
        one, other = one.astype(np.float64), other.astype(np.float64)
        fractions = np.abs(one - other) / np.maximum(np.abs(one), small)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    return np.where(same, 0, np.where(np.isnan(fractions), np.inf, fractions))


def _overflowed(rows: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Where the library itself gives infinity or NaN for a row of finite numbers.

    Which of them depends on the order in which it adds, and that on the rows beside.
    """
    finite = np.isfinite(rows).all(axis=1).reshape(-1, *[1] * (answers.ndim - 1))
    overflowed: np.ndarray = finite & ~np.isfinite(answers)
    return overflowed


def _as_texts(labels: np.ndarray) -> np.ndarray:
    if labels.dtype != object:
        return labels
    texts = [one.decode(errors="replace") if isinstance(one, bytes) else str(one) for one in labels.reshape(-1)]
    return np.array(texts, dtype=object).reshape(labels.shape)

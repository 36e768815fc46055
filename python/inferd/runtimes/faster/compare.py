"""Measure the difference between the outputs of two versions of a model.

Reads the outputs of both, hands on the tolerance that they need. Knows nothing of models and libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from inferd.runtimes.base import Batch
    from inferd.types import Signature, TensorSpec

    Margin = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    """Maps rows, the library's labels and other labels to the library's preference for its own, as a fraction of their
    score; infinite if unknown."""

__all__ = ["PRECISION", "SMALL", "Comparison", "magnitude", "no_margin"]

PRECISION = {"FP64": 1e-10, "FP32": 1e-6, "FP16": 1e-3}
"""Default tolerance by datatype, as a fraction of the value."""

SMALL = 1e-3
"""Fraction of an output's usual magnitude below which differences count as absolute."""


class Comparison:
    """The differences over many batches.

    Differences of numbers are fractions of the library's value; those of labels are the library's preference for its
    own.

    Args:
        signature: with the outputs of both versions.
        usual: the library's outputs for ordinary rows, which give the magnitude of each output.
        margin: the difference between labels.
    """

    def __init__(self, signature: Signature, usual: Batch, margin: Margin) -> None:
        self._outputs = signature.outputs
        self._small = {spec.name: SMALL * magnitude(usual[spec.name]) for spec in signature.outputs}
        self._margin = margin
        self.rows = 0
        self.apart = dict.fromkeys(self._small, 0.0)
        """Maximum difference of each output so far; infinite if beyond any tolerance."""
        self.fault = ""
        """The first difference beyond any tolerance, for messages; empty if none."""

    def add(self, rows: np.ndarray, wanted: Batch, found: Batch) -> None:
        """Compare outputs for ``rows``: ``wanted`` by the library, ``found`` by the other version."""
        self.rows += len(rows)
        for spec in self._outputs:
            one, other = np.asarray(wanted[spec.name]), np.asarray(found[spec.name])
            if one.shape != other.shape:
                apart = np.array([np.inf])
                self.note(f"'{spec.name}' has shape {list(other.shape)}, not {list(one.shape)}")
            elif one.dtype.kind == "f":
                apart = _apart(one, other, self._small[spec.name])
                apart[_library_overflowed(rows, one) & ~np.isfinite(other)] = 0
                self._note_numbers(spec, apart, one, other)
            else:
                apart = self._labels_apart(spec, rows, one, other)
            self.apart[spec.name] = max(self.apart[spec.name], float(np.max(apart, initial=0)))

    def needed(self, tolerance: float | None) -> float:
        """Return the least tolerance that allows all differences, 0 if ``tolerance`` suffices.

        Args:
            tolerance: ``None``: the default of each output's datatype.
        """
        precisions = {spec.name: PRECISION.get(spec.datatype, PRECISION["FP64"]) for spec in self._outputs}
        allowed = precisions if tolerance is None else dict.fromkeys(precisions, tolerance)
        beyond = [apart for name, apart in self.apart.items() if apart > allowed[name]]
        return max(beyond, default=0.0)

    @property
    def worst(self) -> str:
        """The output with the greatest difference."""
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
        """Record a difference beyond any tolerance. Only the first is kept."""
        self.fault = self.fault or fault


def no_margin(*_: object) -> Margin:
    """Return the margin for models without scores: always infinite."""
    return lambda rows, *_: np.full(len(rows), np.inf)


def magnitude(values: Any) -> float:
    """Return the greatest finite magnitude; 0 for non-numbers."""
    array = np.asarray(values)
    if array.dtype.kind != "f":
        return 0.0
    return float(np.max(np.abs(array[np.isfinite(array)]), initial=0))


def _apart(one: np.ndarray, other: np.ndarray, small: float) -> np.ndarray:
    """Return differences as fractions of ``one``; 0 for equal values including NaN, infinite if only one is NaN."""
    with np.errstate(all="ignore"):
        one, other = one.astype(np.float64), other.astype(np.float64)
        fractions = np.abs(one - other) / np.maximum(np.abs(one), small)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    return np.where(same, 0, np.where(np.isnan(fractions), np.inf, fractions))


def _library_overflowed(rows: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return a mask of outputs where the library overflows to infinity or NaN on finite input.

    Which of the two depends on the order of additions, and thus on the batch.
    """
    finite = np.isfinite(rows).all(axis=1).reshape(-1, *[1] * (answers.ndim - 1))
    overflowed: np.ndarray = finite & ~np.isfinite(answers)
    return overflowed


def _as_texts(labels: np.ndarray) -> np.ndarray:
    if labels.dtype != object:
        return labels
    texts = [one.decode(errors="replace") if isinstance(one, bytes) else str(one) for one in labels.reshape(-1)]
    return np.array(texts, dtype=object).reshape(labels.shape)

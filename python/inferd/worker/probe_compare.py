"""Compare a row's outputs alone and in a batch.

Reads both, hands on the output that differs. Rounding is no difference, as the order of sums depends on the batch size;
nor is another label if two scores are equal within tolerance. Knows nothing of how rows are run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inferd.types import TensorSpec

__all__ = ["close", "difference"]

# Half-precision floats can't match within less than a few units in the last place, whatever the setting.
_STEPS = {"FP16": 4.0 / 1024.0, "BF16": 4.0 / 128.0}
# Thresholds at which a single score decides between two classes.
_DECISIVE = (np.zeros(1), np.full(1, 0.5))


def difference(
    specs: Sequence[TensorSpec],
    alone: Sequence[np.ndarray],
    together: Sequence[np.ndarray],
    tolerance: Mapping[str, float],
) -> str | None:
    """Return the name of the first output that differs; ``None`` if none does.

    Args:
        specs: of the outputs.
        alone: outputs of the row alone, each of shape ``(1, *item_shape)``.
        together: its outputs in a batch, in the same shapes.
        tolerance: ``absolute`` and ``relative``.
    """
    pairs = list(zip(specs, alone, together, strict=True))
    scores = [_numbers(one, spec) for spec, one, _ in pairs if _is_float(spec)]
    for spec, one, other in pairs:
        if one.shape != other.shape:
            return spec.name
        same = close(one, other, spec, tolerance)
        if same.all():
            continue
        if _is_float(spec) or not any(_tied(~same, score, tolerance) for score in scores):
            return spec.name
    return None


def close(one: np.ndarray, other: np.ndarray, spec: TensorSpec, tolerance: Mapping[str, float]) -> np.ndarray:
    """Return a mask of the elements that are equal up to rounding."""
    if not _is_float(spec):
        same: np.ndarray = np.asarray(one == other, bool).reshape(one.shape)
        return same
    a, b = _numbers(one, spec), _numbers(other, spec)
    step = _STEPS.get(spec.datatype, 0.0)
    relative = max(tolerance["relative"], step)
    # Small results of large numbers carry the rounding error of the large ones.
    greatest = np.abs(b[np.isfinite(b)]).max(initial=1.0)
    absolute = max(tolerance["absolute"], step / 16.0) * greatest
    with np.errstate(all="ignore"):
        # inf - x is infinite, and so is the relative bound.
        near = np.isfinite(b) & (np.abs(a - b) <= absolute + relative * np.abs(b))
    equal: np.ndarray = (a == b) | (np.isnan(a) & np.isnan(b)) | near
    return equal


def _is_float(spec: TensorSpec) -> bool:
    return spec.datatype.startswith("FP") or spec.datatype == "BF16"


def _numbers(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    if spec.datatype == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float64)


def _tied(differs: np.ndarray, scores: np.ndarray, tolerance: Mapping[str, float]) -> bool:
    """Whether every difference is a choice between scores that are equal within tolerance.

    Args:
        differs: mask of the labels or ranks that differ.
        scores: an output of the same row.
        tolerance: ``absolute`` and ``relative``.
    """

    def near(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        bound = tolerance["absolute"] + tolerance["relative"] * np.maximum(np.abs(a), np.abs(b))
        with np.errstate(all="ignore"):
            equal: np.ndarray = np.abs(a - b) <= bound
        return equal

    if differs.size == 1 and scores.size == 1:
        return bool(any(near(scores, value).all() for value in _DECISIVE))
    if scores.shape == differs.shape and scores.shape[-1] > 1:
        # A ranking with scores: neighbours may have been swapped.
        neighbours = near(scores[..., 1:], scores[..., :-1])
        adjacent = np.zeros(scores.shape, bool)
        adjacent[..., 1:] |= neighbours
        adjacent[..., :-1] |= neighbours
        return bool(adjacent[differs].all())
    if scores.ndim and scores.shape[-1] > 1 and scores.size == differs.size * scores.shape[-1]:
        best = np.sort(scores.reshape(differs.size, -1), axis=1)[:, -2:]
        return bool(near(best[:, 0], best[:, 1])[differs.reshape(-1)].all())
    return False

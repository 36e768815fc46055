"""Whether a row has the same answer alone and in company.

Reads two answers to one row, hands on the output that differs. Rounding is no difference: the order of sums depends on
how many rows there are. Nor is another label where two scores are as good as equal. Knows nothing of how rows are run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inferd.types import TensorSpec

__all__ = ["close", "difference"]

# A short float can't be closer than a few of its own steps, whatever the operator asks for.
_STEPS = {"FP16": 4.0 / 1024.0, "BF16": 4.0 / 128.0}
# Where a lone score decides between two classes.
_DECISIVE = (np.zeros(1), np.full(1, 0.5))


def difference(
    specs: Sequence[TensorSpec],
    lone: Sequence[np.ndarray],
    together: Sequence[np.ndarray],
    tolerance: Mapping[str, float],
) -> str | None:
    """The name of the first output that differs; ``None`` where none does.

    Args:
        specs: of the outputs.
        lone: the row's answer alone, each array of shape ``(1, *item_shape)``.
        together: its answer in company, in the same shapes.
        tolerance: ``absolute`` and ``relative``.
    """
    pairs = list(zip(specs, lone, together, strict=True))
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
    """Which elements of two answers of one shape are the same but for rounding."""
    if not _is_float(spec):
        same: np.ndarray = np.asarray(one == other, bool).reshape(one.shape)
        return same
    a, b = _numbers(one, spec), _numbers(other, spec)
    step = _STEPS.get(spec.datatype, 0.0)
    relative = max(tolerance["relative"], step)
    # What large numbers come to is rounded like them, however small it is.
    greatest = np.abs(b[np.isfinite(b)]).max(initial=1.0)
    absolute = max(tolerance["absolute"], step / 16.0) * greatest
    with np.errstate(all="ignore"):
        # Infinity is as far from any number as its own size.
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
    """Whether all that differs was chosen between scores that are as good as equal.

    Args:
        differs: which labels or places of a row differ.
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
        # Places in an order, each with its score: neighbours have changed places.
        neighbours = near(scores[..., 1:], scores[..., :-1])
        beside = np.zeros(scores.shape, bool)
        beside[..., 1:] |= neighbours
        beside[..., :-1] |= neighbours
        return bool(beside[differs].all())
    if scores.ndim and scores.shape[-1] > 1 and scores.size == differs.size * scores.shape[-1]:
        best = np.sort(scores.reshape(differs.size, -1), axis=1)[:, -2:]
        return bool(near(best[:, 0], best[:, 1])[differs.reshape(-1)].all())
    return False
